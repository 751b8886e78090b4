#!/usr/bin/env python3
"""Trains char-rnn's recipe in PyTorch and prints a JSON line a step, like our metrics.jsonl: the curve to compare with.

The text is split by stream, as in src/data/streams.h: B lanes of n = floor((N - 1) / (B T)) windows; the first
floor(f n) of each lane train, the last floor(g n) are left to a test, the rest validate. h and c are carried through
an epoch and zeroed at its start; validation starts from zero state and carries it, dropout off. RMSProp; the gradient
of the mean nats per character is clipped element by element; the learning rate decays once an epoch, from an epoch
on. The defaults are those of configs/char-rnn.yaml.

    charrnn_reference.py --text shakespeare.txt --hidden 128 --layers 2 --batch 50 --sequence 50 --epochs 2 --seed 1
"""
import argparse
import json
import math
import pathlib
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

from model import CELLS, CharRnn, detached, initialize


def share(fraction, count):
    """floor(fraction * count) of the decimal number that is meant: 0.29 of 100 is 29. As in src/data/streams.cpp."""
    return min(count, math.floor(fraction * count * (1 + 4 * sys.float_info.epsilon)))


class Streams:
    def __init__(self, text, batch, sequence, split, validation_limit):
        self.batch, self.sequence = batch, sequence
        vocabulary = sorted(set(text))
        self.vocabulary = len(vocabulary)
        index = torch.zeros(256, dtype=torch.uint8)
        index[torch.tensor(vocabulary)] = torch.arange(len(vocabulary), dtype=torch.uint8)
        self.ids = index[torch.frombuffer(bytearray(text), dtype=torch.uint8).long()]

        windows = (len(text) - 1) // (batch * sequence)
        if windows < 1:
            raise SystemExit(f"the text has {len(text)} characters, expected over {batch} * {sequence}")
        self.stride = windows * sequence
        if split[1] <= 0 and split[2] <= 0:
            self.train, test = windows, 0
        else:
            self.train = max(1, share(split[0], windows))
            rest = windows - self.train
            test = 0 if split[2] <= 0 else rest if split[1] <= 0 else min(share(split[2], windows), rest)
        available = (windows - self.train - test) * sequence
        self.validation = min(available, max(1, validation_limit // batch)) if available else 0   # characters a lane

    def window(self, start, steps):
        """Inputs and targets [T,B] of `steps` characters from `start` on in every lane."""
        lanes = torch.arange(self.batch) * self.stride + start
        at = torch.arange(steps)[:, None] + lanes[None, :]
        return self.ids[at].long(), self.ids[at + 1].long()


def nats(logits, targets, reduction):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


def validate(model, streams):
    if streams.validation == 0:
        return None
    model.eval()
    total, state = 0.0, None
    first = streams.train * streams.sequence
    with torch.no_grad():
        for start in range(0, streams.validation, streams.sequence):
            steps = min(streams.sequence, streams.validation - start)
            ids, targets = streams.window(first + start, steps)
            logits, state = model(ids, state)
            total += nats(logits, targets, "sum").item()
    model.train()
    return total / (streams.validation * streams.batch)


def train(options):
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    streams = Streams(options.text.read_bytes(), options.batch, options.sequence, options.split,
                      options.validation_characters)
    model = CharRnn(options.cell, streams.vocabulary, options.hidden, options.layers, options.dropout)
    initialize(model, options.init, options.forget_bias)
    parameters = list(model.parameters())
    optimizer = torch.optim.RMSprop(parameters, lr=options.learning_rate, alpha=options.decay_rate, eps=1e-8)
    count = sum(p.numel() for p in parameters)
    last = options.steps or options.epochs * streams.train
    print(f"vocabulary {streams.vocabulary}, parameters {count}, steps an epoch {streams.train}, steps {last}, "
          f"validation characters {streams.validation * streams.batch}, torch {torch.__version__}, "
          f"threads {torch.get_num_threads()}", file=sys.stderr)

    state = None
    for step in range(1, last + 1):
        epochs_done, window = divmod(step - 1, streams.train)
        begin = time.perf_counter()
        if window == 0:
            state = None
        rate = options.learning_rate * options.decay ** max(0, epochs_done - options.decay_after + 1)
        for group in optimizer.param_groups:
            group["lr"] = rate

        ids, targets = streams.window(window * streams.sequence, streams.sequence)
        optimizer.zero_grad()
        logits, state = model(ids, state)
        state = detached(state)
        loss = nats(logits, targets, "mean")
        loss.backward()
        norm = torch.sqrt(sum((p.grad ** 2).sum() for p in parameters)).item()
        if options.clip > 0:
            nn.utils.clip_grad_value_(parameters, options.clip)
        optimizer.step()

        line = {"step": step, "epoch": step / streams.train, "train_nats_per_char": loss.item(),
                "learning_rate": rate, "gradient_norm": norm, "ms_per_step": (time.perf_counter() - begin) * 1e3}
        if step == last or step % options.validate_every == 0:
            value = validate(model, streams)
            if value is not None:
                line["validation_nats_per_char"] = value
        print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--init", type=float, default=0.08, help="half-width of the uniform range")
    parser.add_argument("--forget-bias", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--sequence", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=0, help="end at this step, whatever --epochs says")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--decay-rate", type=float, default=0.95, help="RMSProp's alpha")
    parser.add_argument("--clip", type=float, default=0.1,
                        help="of each element; char-rnn's 5 acts on a sum over its 50 steps; 0: none")
    parser.add_argument("--decay", type=float, default=0.97, help="of the learning rate, per epoch")
    parser.add_argument("--decay-after", type=int, default=10, help="epochs")
    parser.add_argument("--split", type=float, nargs=3, default=(0.95, 0.05, 0.0), metavar=("TRAIN", "VALID", "TEST"))
    parser.add_argument("--validate-every", type=int, default=1000, help="steps")
    parser.add_argument("--validation-characters", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
