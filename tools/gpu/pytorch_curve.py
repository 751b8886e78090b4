#!/usr/bin/env python3
"""Trains in PyTorch from a checkpoint's weights: the curves that tools/gpu-check holds ours to.

    pytorch_curve.py CHECKPOINT TEXT --batch B --sequence T --steps N --rounding NAME... >curves.json

Windows are cut as with corpus.split_by: stream and no held-out part, from the first on; h and c start at zero; RMSProp,
clipping of each element, no dropout. All in float64 on the CPU, once for each NAME:
    fp64                    nothing is rounded
    fp32, tf32, bf16, fp16  the weights that the products read are rounded to it in each step, the rest is not: how far
                            a curve moves by that alone says how much rounding matters here
    torch                   float32 throughout, as PyTorch computes it
Prints {NAME: [nats per character of each step]}.
"""
import argparse
import json
import pathlib
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "pytorch")]
from charrnn_reference import Streams  # noqa: E402  (needs the path above)
from model import CharRnn, detached  # noqa: E402
from tensors import TensorFile  # noqa: E402

MANTISSA_BITS = {"fp32": 23, "tf32": 10, "bf16": 7, "fp16": 10}   # those that are stored
NAMES = ("fp64", "torch", *MANTISSA_BITS)


def rounded(x, bits):
    """The nearest numbers with so many bits after the first; exponents are not limited."""
    mantissa, exponent = torch.frexp(x)
    scale = 2.0 ** (bits + 1)
    return torch.ldexp(torch.round(mantissa * scale) / scale, exponent)


def load(file, dtype):
    vocabulary, hidden = file.shape("head.weight")
    layers = sum(name.startswith("rnn.weight_hh_l") for name in file.names())
    model = CharRnn("lstm", vocabulary, hidden, layers)
    model.load_state_dict({name: torch.tensor(list(file.floats(name))).reshape(file.shape(name))
                           for name in file.names()})
    return model.to(dtype)


def curve(name, file, text, options):
    dtype = torch.float32 if name == "torch" else torch.float64
    model = load(file, dtype)
    exact = [p.detach().clone() for p in model.parameters()]   # masters; the model's own are what products read
    squares = [torch.zeros_like(p) for p in exact]
    streams = Streams(text, options.batch, options.sequence, (1.0, 0.0, 0.0), 1)
    losses, state = [], None
    for step in range(options.steps):
        window = step % streams.train
        if window == 0:
            state = None
        ids, targets = streams.window(window * streams.sequence, streams.sequence)
        with torch.no_grad():
            for p, value in zip(model.parameters(), exact):
                p.copy_(rounded(value, MANTISSA_BITS[name]) if name in MANTISSA_BITS else value)
        model.zero_grad()
        logits, state = model(ids, state)
        state = detached(state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), options.clip)
        with torch.no_grad():
            for p, value, square in zip(model.parameters(), exact, squares):   # RMSProp, as torch.optim has it
                square.mul_(options.decay_rate).addcmul_(p.grad, p.grad, value=1 - options.decay_rate)
                value.addcdiv_(p.grad, square.sqrt().add_(options.epsilon), value=-options.learning_rate)
        losses.append(loss.item())
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--sequence", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rounding", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--decay-rate", type=float, default=0.95)
    parser.add_argument("--epsilon", type=float, default=1e-8)
    parser.add_argument("--clip", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    file, text = TensorFile(options.checkpoint / "model.safetensors"), options.text.read_bytes()
    curves = {}
    for name in options.rounding:
        begin = time.perf_counter()
        curves[name] = curve(name, file, text, options)
        print(f"{name}: {time.perf_counter() - begin:.1f} s, torch {torch.__version__}", file=sys.stderr)
    print(json.dumps(curves))


if __name__ == "__main__":
    main()
