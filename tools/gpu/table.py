"""The table: our training steps and samples beside PyTorch's, in turns, and what becomes of them as Markdown."""
import json
import queue
import statistics
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHAPES = {   # in the order of their worth
    "2x512": {"vocabulary": 96, "hidden": 512, "layers": 2, "batch": 100, "sequence": 100, "dropout": 0.5},
    "3x512": {"vocabulary": 96, "hidden": 512, "layers": 3, "batch": 100, "sequence": 100, "dropout": 0.5},
    "2x128": {"vocabulary": 96, "hidden": 128, "layers": 2, "batch": 50, "sequence": 50, "dropout": 0.0},
}
TINY_SHAPES = {"2x16": {"vocabulary": 11, "hidden": 16, "layers": 2, "batch": 5, "sequence": 6, "dropout": 0.5}}
HEADLINE = next(iter(SHAPES))
PYTORCH_STEPS = {
    "users fp32": "PyTorch nn.LSTM, fp32", "users tf32": "PyTorch nn.LSTM, tf32",
    "users bf16": "PyTorch nn.LSTM, bf16 autocast",
    "graph fp16": "PyTorch, fp16, CUDA graph", "graph bf16": "PyTorch, bf16, CUDA graph",
    "graph fp16 single": "PyTorch, fp16, CUDA graph, a module a layer, batch of 8s",
    "graph bf16 single": "PyTorch, bf16, CUDA graph, a module a layer, batch of 8s",
}
PYTORCH_SAMPLES = {"users fp32": "PyTorch loop, fp32", "graph fp16 single": "PyTorch, fp16, CUDA graph a character"}
STEPS = 200   # enough for a GPU that idled to come up to its clocks: the median is of those after
MOST_ROUNDS = 5
FUSED_GOAL_MS = 1.8
SAMPLE_CHARACTERS = 2000


@dataclass
class Row:
    """One line of the table. `runs`: what each round measured, JSON as it came."""
    kind: str          # step, sample
    shape: str
    name: str
    side: str          # ours, pytorch
    runs: list = field(default_factory=list)
    errors: list = field(default_factory=list)

    def values(self, key):
        return [run[key] for run in self.runs if run.get(key) is not None]

    def summary(self):
        result = {"kind": self.kind, "shape": self.shape, "name": self.name, "side": self.side,
                  "rounds": len(self.runs), "errors": self.errors}
        main = "ms_per_step_median" if self.kind == "step" else "chars_per_second"
        for key in (main, "device_ms_per_step_median", "launches_per_step", "gflops", "peak_gflops",
                    "peak_memory_bytes"):
            values = self.values(key)
            if values:
                result[key] = statistics.median(values)
                if key == main:
                    result["lowest"], result["highest"] = min(values), max(values)
        return result


class Rival:
    """pytorch_rows.py as a process that answers requests."""

    def __init__(self, check, device):
        self.log = open(check.log("table-pytorch"), "a", encoding="utf-8")
        self.process = subprocess.Popen([check.python, str(HERE / "pytorch_rows.py"), "--device", device],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.facts = self.next_line(120)

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def next_line(self, limit):
        try:
            line = self.lines.get(timeout=max(1, limit))
        except queue.Empty:
            self.close()
            return {"error": f"no answer in {limit:.0f} s"}
        return json.loads(line) if line else {"error": f"PyTorch's process has ended: {self.process.poll()}"}

    def ask(self, request, limit):
        if self.process.poll() is not None:
            return {"error": "PyTorch's process has ended"}
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "PyTorch's process has ended"}
        return self.next_line(limit)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


def settings_of(shape):
    names = {"hidden": "model.hidden", "layers": "model.layers", "dropout": "model.dropout", "batch": "train.batch",
             "sequence": "train.sequence"}
    return [part for name, key in names.items() for part in ("--set", f"{key}={shape[name]}")]


def our_steps(check, shape):
    """(name, implementation, precision) in the order of their worth. `auto` is what users get."""
    has = check.precisions()
    rows = [(f"{i} {p}", i, p) for p in has for i in check.implementations()]
    fast = [p for p in ("bf16", "fp16") if p in has] or has[:1]
    rows = [(f"auto {p}", "auto", p) for p in fast] + rows
    return rows if shape == HEADLINE else [r for r in rows if r[2] in ("bf16", "fp16", "fp32")]


def measure_step(check, shape, implementation, precision, steps):
    device = check.device
    if check.is_tiny:   # bench also times products that a device made of the CPU would take hours for
        device, precision = "cpu", "fp32"
    asked = check.run([check.program, "bench", "--config", check.config_file(), "--json", "--device", device,
                       "--implementation", implementation, "--precision", precision, "--steps", steps, "--vocabulary",
                       shape["vocabulary"], *settings_of(shape), "--set", "train.clip={value: 5.0}"], "table-ours", 60)
    if asked.code != 0:
        return {"error": f"exit code {asked.code}: {asked.last_line()}"}
    found = json.loads(asked.stdout)
    if implementation not in ("auto", found.get("implementation", implementation)):
        return {"error": f"fell back to {found['implementation']}: {asked.last_line()}"}
    return found


def measure_sample(check, checkpoint, implementation, precision, count, characters):
    asked = check.run([check.program, "sample", checkpoint, "--json", "--length", characters, "--temperature", 0.7,
                       "--seed", 1, "--count", count, "--device", check.device, "--implementation", implementation,
                       "--precision", precision], "table-ours", 60)
    if asked.code != 0:
        return {"error": f"exit code {asked.code}: {asked.last_line()}"}
    found = json.loads(asked.stdout)
    return {"chars_per_second": characters * count / found["seconds"], "precision": found["precision"]}


def jobs_of(check, shapes, rival, checkpoints, steps, characters):
    """[(Row, how to measure it once)] of one round, most important first; whose turn it is alternates."""
    jobs = []
    for shape_name, shape in shapes.items():
        ours = [(Row("step", shape_name, f"ours, {name}", "ours"),
                 lambda s=shape, i=i, p=p: measure_step(check, s, i, p, steps))
                for name, i, p in our_steps(check, shape_name)]
        theirs = []
        if rival:
            theirs = [(Row("step", shape_name, title, "pytorch"),
                       lambda s=shape, r=row: rival.ask({"kind": "step", "row": r, "shape": s, "steps": steps},
                                                        check.time_left()))
                      for row, title in reversed(PYTORCH_STEPS.items())]
        while ours or theirs:
            jobs += ours[:1] + theirs[:1]
            ours, theirs = ours[1:], theirs[1:]
        checkpoint = checkpoints.get(shape_name)
        for count in (1, 100) if checkpoint else ():
            for implementation in check.implementations():
                for precision in [p for p in ("bf16", "fp32") if p in check.precisions()]:
                    name = f"ours, {implementation} {precision}, texts at once: {count}"
                    jobs.append((Row("sample", shape_name, name, "ours"),
                                 lambda c=checkpoint, i=implementation, p=precision, n=count:
                                 measure_sample(check, c, i, p, n, characters)))
        if checkpoint and rival:
            for row, title in PYTORCH_SAMPLES.items():
                jobs.append((Row("sample", shape_name, f"{title}, texts at once: 1", "pytorch"),
                             lambda s=shape, r=row: rival.ask({"kind": "sample", "row": r, "shape": s,
                                                               "characters": characters}, check.time_left())))
    return jobs


def table(check, step):
    """Steps and samples, in turns: a round measures each row once, and there are as many rounds as time allows."""
    check.need_gpu()
    shapes, steps, characters = (TINY_SHAPES, 3, 20) if check.is_tiny else (SHAPES, STEPS, SAMPLE_CHARACTERS)
    checkpoints = {}
    for name in list(shapes)[:2]:
        settings = [part for part in settings_of(shapes[name]) if part != "--set"]
        trained, folder = check.train(f"table-{name}", 1, settings)
        if trained.code == 0:
            checkpoints[name] = folder
        else:
            step.fail(f"a checkpoint to sample {name} from: exit code {trained.code}: {trained.last_line()}")
    rival = None
    if check.has_torch:
        rival = Rival(check, "cpu" if check.is_tiny else "cuda")
        step.details["pytorch"] = rival.facts
        if "error" in rival.facts:
            step.fail(f"PyTorch: {rival.facts['error']}")
            rival.close()
            rival = None
    elif not check.is_tiny:
        step.fail(f"{check.python} has no torch: the table has our side alone")
    jobs = jobs_of(check, shapes, rival, checkpoints, steps, characters)
    rows = [row for row, _ in jobs]
    try:
        for number_of_round in range(1 if check.is_tiny else MOST_ROUNDS):
            for row, measure in jobs:
                if check.time_left() < 5:
                    break
                if number_of_round > 0 and row.errors:
                    continue   # what failed once is not tried again
                found = measure()
                if "error" in found and check.time_left() < 1:
                    break   # it is the step's time that ran out
                if "error" in found:
                    row.errors.append(found["error"])
                else:
                    row.runs.append(found)
            step.details["rows"] = [row.summary() for row in rows]
            step.details["runs"] = [{"name": r.name, "shape": r.shape, "kind": r.kind, "runs": r.runs} for r in rows]
            step.lines = goals(step.details["rows"]) + markdown(step.details["rows"])
            check.save()
    finally:
        if rival:
            rival.close()
    for row in rows:
        if row.errors and row.side == "ours":
            step.fail(f"{row.shape} {row.kind} {row.name}: {row.errors[0]}")
    theirs = [row for row in rows if row.side == "pytorch"]   # one that cannot be run is said in the table
    if theirs and not any(row.runs for row in theirs):
        step.fail(f"no row of PyTorch's ran: {next((e for row in theirs for e in row.errors), 'no time was left')}")
    late = [row.name for row in rows if not row.runs and not row.errors]
    if late:
        step.fail(f"no time was left to measure {len(late)} of {len(rows)} rows: {'; '.join(late[:3])}...")


def goals(rows):
    """What the project wants to reach, beside what was measured; [] where the rows for it were not."""
    def best(side, start):
        times = {r["name"]: r["ms_per_step_median"] for r in rows
                 if (r["kind"], r["shape"], r["side"]) == ("step", HEADLINE, side) and r["rounds"] > 0
                 and r["name"].startswith(start)}
        return min(times.items(), key=lambda item: item[1]) if times else None

    lines = []
    fused, auto, rival = best("ours", "ours, fused bf16"), best("ours", "ours, auto"), best("pytorch", "")
    if fused:
        lines.append(f"- Goal for an H100 or H200, {HEADLINE}: `fused` in bf16 at most {FUSED_GOAL_MS} ms a step; here "
                     f"{fused[1]:.3f}.")
    if auto and rival:
        lines.append(f"- Goal, {HEADLINE}: `auto` never slower than PyTorch's best. {auto[0]}: {auto[1]:.3f} ms; "
                     f"{rival[0]}: {rival[1]:.3f} ms ({rival[1] / auto[1]:.2f} times).")
    return lines


def markdown(rows):
    """Lines of Markdown; `rows` are summaries of Row. What was not measured is said, never filled in."""
    lines = []
    for shape, kind in dict.fromkeys((row["shape"], row["kind"]) for row in rows):
        group = [r for r in rows if (r["shape"], r["kind"]) == (shape, kind)]
        lines += ["", f"**{shape}, {'training step' if kind == 'step' else 'sampling'}**", ""]
        if kind == "step":
            lines += ["| | ms a step | lowest - highest | by the GPU | TFLOP/s | launches | memory, MB | rounds |",
                      "|---|---:|---:|---:|---:|---:|---:|---:|"]
        else:
            lines += ["| | characters a second | lowest - highest | rounds |", "|---|---:|---:|---:|"]
        for r in sorted(group, key=lambda r: (not r["rounds"], r.get("ms_per_step_median", 0),
                                              -r.get("chars_per_second", 0))):
            if not r["rounds"]:
                why = r["errors"][0].replace("|", "/") if r["errors"] else "not measured"
                lines.append(f"| {r['name']} | {why[:120]} |" + " |" * (6 if kind == "step" else 2))
            elif kind == "step":
                lines.append(f"| {r['name']} | {r['ms_per_step_median']:.3f} "
                             f"| {r['lowest']:.3f} - {r['highest']:.3f} | "
                             f"{number(r.get('device_ms_per_step_median'), '.3f')} | "
                             f"{number(r.get('gflops'), '.1f', 1e-3)} | {number(r.get('launches_per_step'), '.0f')} | "
                             f"{number(r.get('peak_memory_bytes'), '.0f', 1e-6)} | {r['rounds']} |")
            else:
                lines.append(f"| {r['name']} | {r['chars_per_second']:,.0f} "
                             f"| {r['lowest']:,.0f} - {r['highest']:,.0f} | {r['rounds']} |")
    return lines


def number(value, form, scale=1.0):
    return "" if value is None else format(value * scale, form)


def self_test():
    """Rows with invented numbers through the code that makes tables; nothing of it is written anywhere."""
    fast = Row("step", "2x512", "ours, fused bf16", "ours",
               [{"ms_per_step_median": m, "device_ms_per_step_median": m, "gflops": 1e5, "launches_per_step": 9}
                for m in (3.0, 1.0, 2.0)])
    broken = Row("step", "2x512", "theirs", "pytorch", [], ["a | b"])
    drawn = Row("sample", "2x512", "ours", "ours", [{"chars_per_second": 1000.0}])
    rows = [row.summary() for row in (broken, fast, drawn)]
    assert rows[1]["ms_per_step_median"] == 2.0 and (rows[1]["lowest"], rows[1]["highest"]) == (1.0, 3.0)
    lines = markdown(rows)
    steps = [line for line in lines if line.startswith("| ours, fused")]
    assert steps == ["| ours, fused bf16 | 2.000 | 1.000 - 3.000 | 2.000 | 100.0 | 9 |  | 3 |"], steps
    assert len(goals(rows)) == 1 and "2.000" in goals(rows)[0]
    assert any("a / b" in line for line in lines) and any("1,000" in line for line in lines)
    for line in lines:   # as many cells as the heading has
        if line.startswith("| ") and "sampling" not in line:
            assert line.count("|") in (9, 5), line
