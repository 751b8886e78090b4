#!/usr/bin/env python3
"""Times drawing characters in PyTorch, at its best: the rival of `charrnn-gpu bench --what sample`.

A loop of one step a character: the network of random weights, softmax of logits / temperature, torch.multinomial, and
the characters handed to the host, since the text is what is wanted. --count texts are one batch. Without --setting
every way of writing the step is tried on one thread and on all, with oneDNN and without, and the fastest is timed:
    lstm      nn.LSTM of all layers, a window of one step
    cell      an nn.LSTMCell a layer
    addmm     by hand: one addmm a layer over [x | h], layer 0's input a row of a table; weights [in, out]
    linear    the same with F.linear; weights [out, in]
    addmv     the same with addmv, for one text alone
    compile   linear under torch.compile (needs a C++ compiler; only if asked for)
Precisions: fp32; bf16, all weights and sums in bfloat16; int8, nn.LSTM by dynamic quantization, for information: it is
not the same network. Tried and left out: autocast (its casts of the weights in each step make it slower than fp32 as
often as not), torch.jit (nn.LSTM gains little, and it is deprecated), torch.compile with frozen weights or a C++
wrapper (as compile). Prints one JSON object with the keys of `charrnn-gpu bench --what sample --json`, the setting, and
the characters a second of each that was tried.
"""
import argparse
import json
import pathlib
import sys
import warnings

import torch
from torch import nn
from torch.nn import functional as F

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent),
                str(pathlib.Path(__file__).resolve().parents[1] / "pytorch")]
import trial  # noqa: E402  (these need the path above)
from model import CharRnn, initialize  # noqa: E402

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}
TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2}   # of logits after a few steps, by hand beside nn.LSTM


def gates_to_state(a, c):
    i, f, g, o = a.unsafe_chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class Steps:
    """Each way's step: step(tokens [B], state) -> logits [B,V], state. begin(way) gives it and its first state."""

    def __init__(self, options):
        torch.manual_seed(options.seed)
        kind = TYPES[options.precision]
        self.batch, self.hidden, self.layers = options.count, options.hidden, options.layers
        model = CharRnn("lstm", options.vocabulary, options.hidden, options.layers)
        initialize(model, 0.08, 1.0)
        model = model.to(kind).eval().requires_grad_(False)
        self.rnn, self.head = model.rnn, model.head
        self.vectors = torch.eye(options.vocabulary, dtype=kind)
        if options.precision == "int8":
            warnings.filterwarnings("ignore")
            model = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
            self.quantized = model
            return
        weights = [[getattr(self.rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                   for layer in range(self.layers)]
        self.cells = [nn.LSTMCell(w[0].shape[1], self.hidden).to(kind) for w in weights]
        for cell, values in zip(self.cells, weights):
            for parameter, value in zip((cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh), values):
                parameter.data = value.clone()
        self.table = (weights[0][0].t() + weights[0][2] + weights[0][3]).contiguous()   # [V,4H]
        self.out_in = [weights[0][1].clone()] + [torch.cat(w[:2], 1) for w in weights[1:]]
        self.in_out = [w.t().contiguous() for w in self.out_in]
        self.biases = [None] + [w[2] + w[3] for w in weights[1:]]
        self.head_in_out = self.head.weight.t().contiguous()

    def begin(self, way):
        rows = (self.batch, self.hidden) if way != "addmv" else (self.hidden,)
        zeros = [torch.zeros(rows, dtype=self.head.weight.dtype) for _ in range(2 * self.layers)]
        state = zeros[:self.layers], zeros[self.layers:]
        if way in ("lstm", "int8"):
            return getattr(self, way), None
        if way == "compile":
            return torch.compile(self.linear, dynamic=False), state
        return getattr(self, way), state

    def lstm(self, tokens, state):
        y, state = self.rnn(self.vectors[tokens][None], state)
        return self.head(y[0]), state

    def int8(self, tokens, state):
        y, state = self.quantized.rnn(self.vectors[tokens][None], state)
        return self.quantized.head(y[0]), state

    def cell(self, tokens, state):
        x, hs, cs = self.vectors[tokens], [], []
        for cell, h, c in zip(self.cells, *state):
            x, c = cell(x, (h, c))
            hs.append(x)
            cs.append(c)
        return self.head(x), (hs, cs)

    def by_hand(self, first, product, state):
        """first(h): layer 0's sums; product(layer, xh): those of a layer above it."""
        hs, cs = [], []
        x = None
        for layer, (h, c) in enumerate(zip(*state)):
            a = first(h) if layer == 0 else product(layer, torch.cat((x, h), -1))
            x, c = gates_to_state(a, c)
            hs.append(x)
            cs.append(c)
        return x, (hs, cs)

    def addmm(self, tokens, state):
        x, state = self.by_hand(lambda h: torch.addmm(self.table[tokens], h, self.in_out[0]),
                                lambda layer, xh: torch.addmm(self.biases[layer], xh, self.in_out[layer]), state)
        return torch.addmm(self.head.bias, x, self.head_in_out), state

    def linear(self, tokens, state):
        x, state = self.by_hand(lambda h: self.table[tokens] + F.linear(h, self.out_in[0]),
                                lambda layer, xh: F.linear(xh, self.out_in[layer], self.biases[layer]), state)
        return self.head(x), state

    def addmv(self, tokens, state):
        x, state = self.by_hand(lambda h: torch.addmv(self.table[tokens[0]], self.out_in[0], h),
                                lambda layer, xh: torch.addmv(self.biases[layer], self.out_in[layer], xh), state)
        return torch.addmv(self.head.bias, self.head.weight, x)[None], state


def check(steps, ways, options):
    """Every way is the same network: what is written by hand agrees with nn.LSTM."""
    with torch.inference_mode():
        found = {}
        for way in ways:
            step, state = steps.begin(way)
            for position in range(5):
                tokens = (torch.arange(options.count) + position) % options.vocabulary
                logits, state = step(tokens, state)
            found[way] = logits.float()
        expected = steps.begin("lstm")[0]
        state = None
        for position in range(5):
            logits, state = expected((torch.arange(options.count) + position) % options.vocabulary, state)
    for way, logits_of_way in found.items():
        error = (logits_of_way - logits.float()).abs().max().item()
        if not error <= TOLERANCES[options.precision]:
            raise SystemExit(f"pytorch_sample.py: {way} differs from nn.LSTM by {error:.2g}, expected at most "
                             f"{TOLERANCES[options.precision]:.2g}")


def drawing(steps, way, length, options):
    """A function that draws `length` characters of each text."""
    step, state = steps.begin(way)
    tokens = torch.zeros(options.count, dtype=torch.long)

    def draw():
        nonlocal state, tokens
        texts = []
        for _ in range(length):
            logits, state = step(tokens, state)
            tokens = torch.multinomial(torch.softmax(logits.float() / options.temperature, -1), 1).squeeze(1)
            texts.append(tokens.tolist())
        return texts

    return draw


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--count", type=int, default=1, help="texts, drawn as one batch")
    parser.add_argument("--length", type=int, default=200, help="characters of each text in a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--precision", choices=TYPES, default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="the most that are tried")
    parser.add_argument("--setting", help="time this one: way,onednn|native,threads")
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()

    steps = Steps(options)
    ways = ["int8"] if options.precision == "int8" else ["lstm", "cell", "addmm", "linear"]
    if options.precision != "int8":
        ways += ["addmv"] if options.count == 1 else []
        check(steps, ways, options)
    tried = {}
    if options.setting:
        setting = trial.parse_setting(options.setting)
    else:
        # oneDNN's switch is nothing to int8's own kernels.
        settings = [s for s in trial.settings_of(ways, options.threads) if s[0] != "int8" or s[1] == "onednn"]
        setting, rates = trial.choose(settings, lambda way: drawing(steps, way, 1, options))
        tried = {trial.name_of(s): value * options.count for s, value in rates.items()}
    seconds = trial.seconds_of_repeats(setting, lambda way: drawing(steps, way, options.length, options),
                                       options.repeats)
    print(json.dumps({
        "what": "sample", **trial.spread(seconds, options.length * options.count), "setting": trial.name_of(setting),
        "tried": tried, "precision": options.precision, "threads": setting[2], "device": "cpu",
        "repeats": options.repeats, "length": options.length, "count": options.count, "cell": "lstm",
        "layers": options.layers, "hidden": options.hidden, "vocabulary": options.vocabulary,
        "temperature": options.temperature, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
