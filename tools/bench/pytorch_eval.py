#!/usr/bin/env python3
"""Times scoring a text in PyTorch, at its best: the rival of `charrnn-gpu bench --what eval`.

nn.LSTM on 1-of-k vectors and cross-entropy under torch.inference_mode(), window after window, the state carried, the
loss read at the end. bf16 is tried with bfloat16 weights and by autocast (`cast`), both precisions with oneDNN and
without, on one thread and on all; the fastest is timed unless --setting names one. Prints one JSON object with the keys
of `charrnn-gpu bench --what eval --json`, the setting, and the characters a second of each that was tried.
"""
import argparse
import copy
import json
import pathlib
import sys

import torch
from torch.nn import functional as F

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent),
                str(pathlib.Path(__file__).resolve().parents[1] / "pytorch")]
import trial  # noqa: E402  (these need the path above)
from model import CELLS, CharRnn, initialize  # noqa: E402


def window_steps(streams):
    """Ours (evaluation_steps in src/model/evaluator.cpp)."""
    return min(max(8192 // streams, 16), 512)


def scoring(models, way, ids, steps, options):
    """A function that scores the text once."""
    model = models["fp32" if way == "cast" else way]

    def score():
        state, nats = None, 0.0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "cast"):
            for begin in range(0, ids.shape[0] - 1, steps):
                end = min(begin + steps, ids.shape[0] - 1)
                logits, state = model(ids[begin:end], state)
                nats += F.cross_entropy(logits.flatten(0, 1).float(), ids[begin + 1:end + 1].flatten(),
                                        reduction="sum")
        if not torch.isfinite(nats):
            raise SystemExit("pytorch_eval.py: the loss is not a number")
        return nats.item()

    return score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--vocabulary", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--length", type=int, default=20000, help="characters to score, of all streams")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="the most that are tried")
    parser.add_argument("--setting", help="time this one: fp32|bf16|cast,onednn|native,threads")
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    model = CharRnn(options.cell, options.vocabulary, options.hidden, options.layers)
    initialize(model, 0.08, 1.0)
    models = {"fp32": model.eval().requires_grad_(False)}
    models["bf16"] = copy.deepcopy(model).to(torch.bfloat16)
    steps, each = window_steps(options.streams), max(1, options.length // options.streams)
    ids = torch.randint(options.vocabulary, (each + 1, options.streams),
                        generator=torch.Generator().manual_seed(options.seed))
    ways = ["fp32"] if options.precision == "fp32" else ["bf16", "cast"]
    tried = {}
    if options.setting:
        setting = trial.parse_setting(options.setting)
    else:
        piece = ids[:min(steps, each) + 1]   # a whole window: what is packed once a call weighs as it will
        setting, rates = trial.choose(trial.settings_of(ways, options.threads),
                                      lambda way: scoring(models, way, piece, steps, options))
        tried = {trial.name_of(s): value * (piece.shape[0] - 1) * options.streams for s, value in rates.items()}
    seconds = trial.seconds_of_repeats(setting, lambda way: scoring(models, way, ids, steps, options),
                                       options.repeats)
    print(json.dumps({
        "what": "eval", **trial.spread(seconds, each * options.streams), "setting": trial.name_of(setting),
        "tried": tried, "precision": options.precision, "threads": setting[2], "device": "cpu",
        "repeats": options.repeats, "length": each * options.streams, "streams": options.streams,
        "cell": options.cell, "layers": options.layers, "hidden": options.hidden, "vocabulary": options.vocabulary,
        "torch": torch.__version__}))


if __name__ == "__main__":
    main()
