#!/usr/bin/env python3
"""Writes the numbers that the tests hold this project to: one JSON file a cell, computed by PyTorch in float64.

    make_fixtures.py [--seed N] [--output FOLDER] [--cell NAME]...

A file holds a two-layer network of odd, distinct sizes; one window with everything that a window can have (weights of
the losses, among them zeros; lanes that are reset; a state to start from) and what comes of it: logits, final state,
loss, gradients; and ten training steps of each optimizer, with their losses, gradient norms and final parameters.

Every input (parameters, state, weights) is a float32 number, so that a float32 engine starts from the very same ones.
Arrays are flat, row-major, time first: ids [T,B], logits [T,B,V], h [L,B,H]. tests/support/fixtures.h reads the files.
"""
import argparse
import json
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

CELLS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="tanh", **options),
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
LAYERS, HIDDEN, VOCABULARY = 2, 5, 7
STEPS, BATCH = 4, 3
UPDATES = 10

# Rates at which ten steps move the loss visibly. Each kind of clipping is in use at least once and binds in some steps.
OPTIMIZERS = {
    "rmsprop": dict(learning_rate=0.01, decay_rate=0.95, epsilon=1e-8, clip={"value": 0.05}),
    "adam": dict(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8, clip={"norm": 0.3}),
    "adagrad": dict(learning_rate=0.05, epsilon=1e-8, clip={}),
    "sgd": dict(learning_rate=0.5, momentum=0.9, clip={"norm": 0.3}),
}


class CharRnn(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.rnn = CELLS[cell](VOCABULARY, HIDDEN, num_layers=LAYERS)
        self.head = nn.Linear(HIDDEN, VOCABULARY)
        self.double()

    def forward(self, ids, state):
        x = F.one_hot(ids, VOCABULARY).double()
        y, state = self.rnn(x, state)
        return self.head(y), state


def uniform(generator, shape, bound):
    """Numbers that float32 holds exactly, as float64."""
    return ((torch.rand(shape, generator=generator) * 2 - 1) * bound).float().double()


def as_list(tensor):
    return tensor.detach().reshape(-1).tolist()


def named(tensors):
    return {name: as_list(tensor) for name, tensor in tensors}


def make_window(generator):
    ids = torch.randint(VOCABULARY, (STEPS, BATCH), generator=generator)
    targets = torch.randint(VOCABULARY, (STEPS, BATCH), generator=generator)
    weights = (torch.rand((STEPS, BATCH), generator=generator) + 0.5).float().double()
    weights[torch.rand((STEPS, BATCH), generator=generator) < 0.25] = 0.0
    weights[0, 0] = 1.0   # never all zero
    reset = torch.rand(BATCH, generator=generator) < 0.4
    return dict(ids=ids, targets=targets, weights=weights, reset=reset)


def window_json(window):
    return {name: as_list(value.long() if name == "reset" else value) for name, value in window.items()}


def restart(state, reset):
    keep = (~reset).double().reshape(1, BATCH, 1)
    return tuple(part * keep for part in state)


def run_window(model, window, state):
    """state is (h,) or (h, c). Returns logits, new state, and the sums of nats, of weights, and of correct weights."""
    state = restart(state, window["reset"])
    logits, state = model(window["ids"], state if len(state) == 2 else state[0])
    state = state if isinstance(state, tuple) else (state,)
    nats = F.cross_entropy(logits.reshape(-1, VOCABULARY), window["targets"].reshape(-1), reduction="none")
    weights = window["weights"].reshape(-1)
    correct = weights[logits.reshape(-1, VOCABULARY).argmax(1) == window["targets"].reshape(-1)].sum()
    return logits, state, (nats * weights).sum(), weights.sum(), correct


def state_json(state):
    return {"h": as_list(state[0]), "c": as_list(state[1]) if len(state) == 2 else []}


def make_optimizer(name, settings, parameters):
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=settings["learning_rate"], alpha=settings["decay_rate"],
                                   eps=settings["epsilon"])
    if name == "adam":
        return torch.optim.Adam(parameters, lr=settings["learning_rate"],
                                betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"])
    if name == "adagrad":
        return torch.optim.Adagrad(parameters, lr=settings["learning_rate"], eps=settings["epsilon"])
    return torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=settings["momentum"])


def clip_gradients(clip, parameters):
    """Returns the norm before clipping."""
    norm = torch.sqrt(sum((p.grad ** 2).sum() for p in parameters))
    if "value" in clip:
        nn.utils.clip_grad_value_(parameters, clip["value"])
    elif "norm" in clip and norm > clip["norm"]:
        # Not clip_grad_norm_: it scales by threshold / (norm + 1e-6), we by threshold / norm.
        for p in parameters:
            p.grad *= clip["norm"] / norm
    return norm.item()


def train(cell, start, windows, state, name, settings):
    model = CharRnn(cell)
    model.load_state_dict(start)
    parameters = list(model.parameters())
    optimizer = make_optimizer(name, settings, parameters)
    losses, norms = [], []
    for window in windows:
        optimizer.zero_grad()
        _, state, nats, weight, _ = run_window(model, window, tuple(part.detach() for part in state))
        loss = nats / weight
        loss.backward()
        losses.append(loss.item())
        norms.append(clip_gradients(settings["clip"], parameters))
        optimizer.step()
    return dict(settings=settings, losses=losses, gradient_norms=norms, parameters=named(model.state_dict().items()))


def make_fixture(cell, seed):
    generator = torch.Generator().manual_seed(seed)
    model = CharRnn(cell)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(uniform(generator, parameter.shape, 0.6))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    state = tuple(uniform(generator, (LAYERS, BATCH, HIDDEN), 0.8) for _ in range(2 if cell == "lstm" else 1))
    window = make_window(generator)
    window["reset"] = torch.arange(BATCH) == 1   # one lane, and not the first

    logits, final, nats, weight, correct = run_window(model, window, state)
    (nats / weight).backward()

    windows = [make_window(generator) for _ in range(UPDATES)]
    return {
        "about": "Made by tools/pytorch/make_fixtures.py; do not edit. See docs/testing.md.",
        "torch": torch.__version__,
        "seed": seed,
        "cell": cell,
        "layers": LAYERS, "hidden": HIDDEN, "vocabulary": VOCABULARY, "steps": STEPS, "batch": BATCH,
        "parameters": named(start.items()),
        "state": state_json(state),
        "window": window_json(window),
        "logits": as_list(logits),
        "final_state": state_json(final),
        "nats": nats.item(), "weight": weight.item(), "correct": correct.item(),
        "gradients": named((name, p.grad) for name, p in model.named_parameters()),
        "training_windows": [window_json(w) for w in windows],
        "training": {name: train(cell, start, windows, state, name, settings)
                     for name, settings in OPTIMIZERS.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--output", type=pathlib.Path, default=root / "tests" / "fixtures" / "pytorch")
    parser.add_argument("--cell", action="append", choices=sorted(CELLS))
    options = parser.parse_args()

    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for cell in options.cell or CELLS:
        path = options.output / f"{cell}.json"
        fixture = make_fixture(cell, options.seed)
        # One member a line: git's differences stay readable, and no line is longer than an array.
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fixture.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
