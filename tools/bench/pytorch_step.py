#!/usr/bin/env python3
"""Times the training step in PyTorch as its users write it: the rival of `charrnn-gpu bench`, at the same shapes.

nn.LSTM (or GRU, RNN) on 1-of-k float input, dropout between layers and before the head, cross-entropy, backward,
clipping by value, RMSProp; h and c carried. The default shape is the article's: 2x512, batch 100, length 100, with 100
characters.
Prints one JSON object with the keys of `charrnn-gpu bench --json`.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "pytorch"))
from model import CELLS, CharRnn, detached, initialize  # noqa: E402  (needs the path above)

WINDOWS = 8   # different ones, used in turn


def allow_tf32(allowed):
    """For products and cuDNN alike; PyTorch's own default differs between the two."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def time_steps(options):
    generator = torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    allow_tf32(options.precision == "tf32")
    shape = (WINDOWS, options.sequence, options.batch)
    ids = torch.randint(options.vocabulary, shape, generator=generator).to(device)
    targets = torch.randint(options.vocabulary, shape, generator=generator).to(device)
    model = CharRnn(options.cell, options.vocabulary, options.hidden, options.layers, options.dropout)
    initialize(model, 0.08, 1.0)
    model.to(device).train()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.002, alpha=0.95, eps=1e-8)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    state, ms = None, []
    for step in range(options.warm_up + options.steps):
        wait()
        begin = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16"):
            logits, state = model(ids[step % WINDOWS], state)
            loss = F.cross_entropy(logits.flatten(0, 1), targets[step % WINDOWS].flatten())
        state = detached(state)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), options.clip)
        optimizer.step()
        value = loss.item()   # users print it; on a GPU it also waits
        wait()
        if step >= options.warm_up:
            ms.append((time.perf_counter() - begin) * 1e3)
    return ms, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--vocabulary", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--sequence", type=int, default=100)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--clip", type=float, default=0.05)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32",
                        help="tf32: of a GPU; bf16: autocast")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    ms, loss = time_steps(options)
    median = statistics.median(ms)
    print(json.dumps({
        "ms_per_step_median": median, "ms_per_step_min": min(ms), "ms_per_step_max": max(ms),
        "chars_per_second": options.batch * options.sequence / median * 1e3, "steps": options.steps,
        "cell": options.cell, "vocabulary": options.vocabulary, "hidden": options.hidden, "layers": options.layers,
        "batch": options.batch, "sequence": options.sequence, "dropout": options.dropout,
        "precision": options.precision, "threads": torch.get_num_threads(), "device": options.device,
        "torch": torch.__version__, "last_loss": loss}))


if __name__ == "__main__":
    main()
