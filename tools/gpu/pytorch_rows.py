#!/usr/bin/env python3
"""The rivals of tools/gpu-check's table: what PyTorch needs for a training step, and to draw characters.

Reads requests from stdin, a JSON object a line, and answers each with one on stdout, so that PyTorch is loaded once and
its rows can be measured in turns with ours:
    {"kind": "step", "row": NAME, "shape": {vocabulary, hidden, layers, batch, sequence, dropout}, "steps": N}
    {"kind": "sample", "row": NAME, "shape": {...}, "characters": N}
Rows of steps, as users write them (tools/bench/pytorch_step.py: nn.LSTM on 1-of-k vectors, loss read in each step):
    users fp32    TF32 forbidden            users tf32    TF32 allowed            users bf16    autocast
and the best that was found for cuDNN, each a whole step in one CUDA graph, 16-bit weights with fp32 masters, the loss
not read, the update of a few multi-tensor calls:
    graph fp16 | graph bf16                 one nn.LSTM of all layers, the shape's own batch
    graph fp16 single | graph bf16 single   an nn.LSTM a layer, batch padded to a multiple of 8, vectors to one of 128:
                                            what PyTorch asks for before it lets cuDNN use its persistent kernels
Rows of samples: "users fp32" (a Python loop), "graph fp16 single" (one graph a character).
The answer has ms_per_step_median, _min, _max by the host's clock, device_ms_per_step_median by the GPU's, or "error".
"""
import argparse
import json
import pathlib
import statistics
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "bench"), str(HERE.parent / "pytorch")]
import pytorch_step  # noqa: E402  (needs the path above)
from model import CharRnn  # noqa: E402

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WARM_UP, WINDOWS = 5, 8
LOSS_SCALE = 1024.0   # of fp16; fixed, as a user would choose it who reads no loss


def up_to_multiple(value, of):
    return -(-value // of) * of


class GraphedStep:
    """A training step that touches static memory alone, so that it can be captured."""

    def __init__(self, shape, kind, single, device):
        torch.manual_seed(123)
        self.device, self.dropout, self.single = device, shape["dropout"], single
        self.kind = TYPES[kind if device.type == "cuda" else "fp32"]
        self.scale = LOSS_SCALE if kind == "fp16" else 1.0
        self.vocabulary, hidden, layers = shape["vocabulary"], shape["hidden"], shape["layers"]
        self.batch = up_to_multiple(shape["batch"], 8) if single else shape["batch"]
        width = up_to_multiple(self.vocabulary, 128) if single else self.vocabulary
        if single:
            stack = [nn.LSTM(width if layer == 0 else hidden, hidden) for layer in range(layers)]
            depth = 1
        else:
            stack = [nn.LSTM(width, hidden, num_layers=layers, dropout=self.dropout if layers > 1 else 0.0)]
            depth = layers
        self.model = nn.ModuleDict({"rnn": nn.ModuleList(stack), "head": nn.Linear(hidden, self.vocabulary)})
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.uniform_(-0.08, 0.08)
        self.model.to(device=device, dtype=self.kind).train()
        for rnn in self.model["rnn"]:
            rnn.flatten_parameters()
        self.work = list(self.model.parameters())
        self.masters = [p.detach().float().clone() for p in self.work]
        self.squares = [torch.zeros_like(p) for p in self.masters]
        self.vectors = torch.eye(self.vocabulary, width, device=device, dtype=self.kind)
        size = (shape["sequence"], self.batch)
        generator = torch.Generator().manual_seed(5)
        self.windows = torch.randint(self.vocabulary, (WINDOWS, 2, *size), generator=generator).to(device)
        self.ids, self.targets = (torch.zeros(size, dtype=torch.long, device=device) for _ in range(2))
        self.states = [tuple(torch.zeros(depth, self.batch, hidden, device=device, dtype=self.kind) for _ in range(2))
                       for _ in stack]
        self.loss = torch.zeros((), device=device)
        self.graph = None

    def step(self):
        x = self.vectors[self.ids]
        finals = []
        for rnn, state in zip(self.model["rnn"], self.states):
            x, final = rnn(x, state)
            finals.append(final)
            x = F.dropout(x, self.dropout, training=True)
        logits = self.model["head"](x)
        loss = F.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())
        gradients = torch.autograd.grad(loss * self.scale, self.work)
        with torch.no_grad():
            g = [gradient.float() for gradient in gradients]
            torch._foreach_mul_(g, 1 / self.scale)
            torch._foreach_clamp_min_(g, -5.0)
            torch._foreach_clamp_max_(g, 5.0)
            torch._foreach_mul_(self.squares, 0.95)
            torch._foreach_addcmul_(self.squares, g, g, 0.05)
            roots = torch._foreach_sqrt(self.squares)
            torch._foreach_add_(roots, 1e-8)
            torch._foreach_addcdiv_(self.masters, g, roots, -0.002)
            torch._foreach_copy_(self.work, self.masters)
            for state, final in zip(self.states, finals):
                for old, new in zip(state, final):
                    old.copy_(new.detach())
            self.loss.copy_(loss.detach())

    def feed(self, index):
        window = self.windows[index % WINDOWS]
        self.ids.copy_(window[0])
        self.targets.copy_(window[1])

    def capture(self):
        if self.graph is not None or self.device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for index in range(3):
                self.feed(index)
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()

    def time(self, steps):
        self.capture()
        wall, events = [], []
        on_gpu = self.device.type == "cuda"
        for index in range(WARM_UP + steps):
            begin = time.perf_counter()
            self.feed(index)
            if on_gpu:
                self.graph.replay()
                events.append(torch.cuda.Event(enable_timing=True))
                events[-1].record()
                if index % 2 == 1:
                    events[-2].synchronize()   # as a program that keeps two steps in flight
            else:
                self.step()
            wall.append((time.perf_counter() - begin) * 1e3)
        if not on_gpu:
            return wall[WARM_UP:], None, self.loss.item()
        torch.cuda.synchronize()
        device = [a.elapsed_time(b) for a, b in zip(events, events[1:])][WARM_UP:]
        return device, device, self.loss.item()   # from result to result, both

    def answer(self, steps):
        wall, device, loss = self.time(steps)
        if not loss == loss:
            raise RuntimeError("the loss is not a number")
        return {"batch": self.batch, "last_loss": loss, **times(wall, device)}


def times(wall, device=None):
    result = {"ms_per_step_median": statistics.median(wall), "ms_per_step_min": min(wall), "ms_per_step_max": max(wall)}
    if device:
        result["device_ms_per_step_median"] = statistics.median(device)
    return result


def time_users(shape, precision, steps, device):
    options = argparse.Namespace(cell="lstm", clip=5.0, seed=123, device=device.type, steps=steps, warm_up=WARM_UP,
                                 precision=precision, **shape)
    ms, loss = pytorch_step.time_steps(options)
    return {"batch": shape["batch"], "last_loss": loss, **times(ms)}


def sample_users(shape, characters, device):
    """A loop over nn.LSTM and multinomial, a character at a time, each read by the host."""
    pytorch_step.allow_tf32(False)
    model = CharRnn("lstm", shape["vocabulary"], shape["hidden"], shape["layers"]).to(device).eval()
    with torch.no_grad():
        def draw(count):
            token, state = torch.zeros((1, 1), dtype=torch.long, device=device), None
            for _ in range(count):
                logits, state = model(token, state)
                token = torch.multinomial(torch.softmax(logits[0, 0] / 0.7, 0), 1).reshape(1, 1)
                token.item()
        draw(20)
        begin = time.perf_counter()
        draw(characters)
        return {"chars_per_second": characters / (time.perf_counter() - begin)}


def sample_graph(shape, characters, device):
    """One graph a character: fp16, a module a layer, the draw on the device, characters read at the end."""
    kind = TYPES["fp16" if device.type == "cuda" else "fp32"]
    hidden, vocabulary = shape["hidden"], shape["vocabulary"]
    width = up_to_multiple(vocabulary, 128)
    layers = [nn.LSTM(width if layer == 0 else hidden, hidden).to(device=device, dtype=kind).eval()
              for layer in range(shape["layers"])]
    head = nn.Linear(hidden, vocabulary).to(device=device, dtype=kind)
    vectors = torch.eye(vocabulary, width, device=device, dtype=kind)
    token = torch.zeros((1, 1), dtype=torch.long, device=device)
    states = [tuple(torch.zeros(1, 1, hidden, device=device, dtype=kind) for _ in range(2)) for _ in layers]

    def draw():
        x = vectors[token]
        for rnn, (h, c) in zip(layers, states):
            x, final = rnn(x, (h, c))
            h.copy_(final[0])
            c.copy_(final[1])
        chances = torch.softmax(head(x)[0, 0].float() / 0.7, 0)
        # The largest of chance / exponential is a draw, as torch.multinomial does it, without its wait for the host.
        token.copy_((chances / torch.empty_like(chances).exponential_()).argmax().reshape(1, 1))

    with torch.no_grad():
        replay = draw
        if device.type == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    draw()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                draw()
            replay = graph.replay
        for _ in range(20):
            replay()
        token.item()
        begin = time.perf_counter()
        for _ in range(characters):
            replay()
        token.item()
        return {"chars_per_second": characters / (time.perf_counter() - begin)}


class Rows:
    def __init__(self, device):
        self.device = device
        self.graphed = {}   # the newest alone: an old one gives its memory back

    def answer(self, request):
        way, *rest = request["row"].split()
        shape = request["shape"]
        if way not in ("users", "graph") or not rest:
            raise ValueError(f"there is no row {request['row']}")
        if request["kind"] == "sample":
            make = sample_users if way == "users" else sample_graph
            return make(shape, request["characters"], self.device)
        if way == "users":
            return time_users(shape, rest[0], request["steps"], self.device)
        key = (request["row"], tuple(sorted(shape.items())))
        if key not in self.graphed:
            self.graphed.clear()
            pytorch_step.allow_tf32(False)
            self.graphed[key] = GraphedStep(shape, rest[0], "single" in rest, self.device)
        return self.graphed[key].answer(request["steps"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script out")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr   # what a library prints is no answer
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)   # what is tried out is small
    facts = {"torch": torch.__version__, "device": options.device}
    if device.type == "cuda":
        facts.update(cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
                     device_name=torch.cuda.get_device_name())
    print(json.dumps(facts), file=answers, flush=True)
    rows = Rows(device)
    for line in sys.stdin:
        try:
            result = rows.answer(json.loads(line))
        except Exception as error:   # a row that cannot run is a fact for the table, not the end of it
            result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
