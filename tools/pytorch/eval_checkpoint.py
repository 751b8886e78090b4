#!/usr/bin/env python3
"""The mean nats per character of a text under one of our checkpoints, computed by PyTorch from the same file.

    eval_checkpoint.py CHECKPOINT TEXT [--dtype float32|float64] [--threads N]

CHECKPOINT is a model.safetensors or its folder. The text is one stream from zero state, N - 1 predictions.
Prints one JSON object; `charrnn-gpu eval CHECKPOINT --text TEXT --json` should say the same nats_per_char within 1e-4.
"""
import argparse
import json
import math
import pathlib
import re

import torch
from safetensors import safe_open
from torch.nn import functional as F

from model import CharRnn

WINDOW = 1000   # characters between which the state is carried: bounds the memory for the logits


def model_setting(config, key, default=None):
    """The value of model.KEY in the YAML that we write: block style, one scalar a line."""
    block = re.search(r"^model:[^\n]*\n((?:[ \t]+[^\n]*\n|[ \t]*\n|#[^\n]*\n)*)", config + "\n", re.MULTILINE)
    found = block and re.search(rf"^[ \t]+{key}:[ \t]*[\"']?([\w.+-]+)", block.group(1), re.MULTILINE)
    if found:
        return found.group(1)
    if default is None:
        raise SystemExit(f"the checkpoint's config has no model.{key}")
    return default


def load(path, dtype):
    if path.is_dir():
        path = path / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    vocabulary = json.loads(metadata["vocabulary"])
    cell = model_setting(metadata["config"], "cell")
    if cell == "rnn":
        cell = "rnn_" + model_setting(metadata["config"], "nonlinearity", "tanh")
    layers = sum(name.startswith("rnn.weight_hh_l") for name in tensors)
    classes, hidden = tensors["head.weight"].shape
    if classes != len(vocabulary):
        raise SystemExit(f"{path}: the head has {classes} rows and the vocabulary {len(vocabulary)} characters")
    model = CharRnn(cell, classes, hidden, layers)
    model.load_state_dict(tensors)   # strict: names and shapes must be PyTorch's
    return model.to(dtype).eval(), vocabulary, cell


def evaluate(model, ids, dtype):
    nats, correct, state = 0.0, 0, None
    with torch.no_grad():
        for start in range(0, len(ids) - 1, WINDOW):
            end = min(start + WINDOW, len(ids) - 1)
            logits, state = model(ids[start:end, None], state)
            logits, targets = logits[:, 0].to(dtype), ids[start + 1:end + 1]
            nats += F.cross_entropy(logits, targets, reduction="none").double().sum().item()
            correct += (logits.argmax(1) == targets).sum().item()
    return nats, correct


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    dtype = getattr(torch, options.dtype)
    model, vocabulary, cell = load(options.checkpoint, dtype)
    text = options.text.read_bytes()
    index = {byte: k for k, byte in enumerate(vocabulary)}
    for offset, byte in enumerate(text):
        if byte not in index:
            raise SystemExit(f"{options.text}: byte {byte} at offset {offset} is not in the checkpoint's vocabulary")
    if len(text) < 2:
        raise SystemExit(f"{options.text}: {len(text)} characters, expected at least 2")
    ids = torch.tensor([index[byte] for byte in text])
    nats, correct = evaluate(model, ids, dtype)
    count = len(text) - 1
    print(json.dumps({"nats_per_char": nats / count, "bits_per_char": nats / count / math.log(2),
                      "accuracy": correct / count, "characters": count, "cell": cell, "dtype": options.dtype,
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
