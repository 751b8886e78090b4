"""Runs ours and PyTorch in turns, so that a machine whose speed drifts is unfair to nobody."""
import datetime
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import rows
import summary

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NOT_HERE = 4   # the exit code of a device or a precision that this machine or build lacks
# Keeps freed memory: no mmap a block, no trimming of the heap, which grows by a gigabyte at a time.
KEPT_MEMORY = {"MALLOC_TOP_PAD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000",
               "MALLOC_TRIM_THRESHOLD_": "8000000000"}
INTERESTING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")


class Failed(Exception):
    """A run that ended otherwise than with a result or with NOT_HERE: the text says which, and how."""


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str
    cpu_seconds: float   # that it took on all cores


def cpu_seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def busy_seconds():
    """That all cores were busy or taken away since the machine started; None where the kernel does not tell."""
    try:
        user, nice, system, _, _, irq, softirq, steal, *_ = pathlib.Path("/proc/stat").read_text().split()[1:]
    except (OSError, ValueError):
        return None
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


class Program:
    """Ours: a process a run."""

    def __init__(self, file):
        self.file = file

    def run(self, arguments):
        before = cpu_seconds_of_children()
        done = subprocess.run([self.file, *arguments], capture_output=True, text=True, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr, cpu_seconds_of_children() - before)


class Rival:
    """PyTorch: pytorch_server.py, started when it is first asked, with malloc told to keep memory or as installed."""

    def __init__(self, python, kept):
        self.python, self.environment = python, {**os.environ, **(KEPT_MEMORY if kept else {})}
        self.process = None
        self.torch = None

    def start(self):
        self.process = subprocess.Popen([self.python, str(HERE / "pytorch_server.py")], env=self.environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.torch = self.answer()["torch"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.python} pytorch_server.py has ended with exit code {self.process.wait()}")
        return json.loads(line)

    def run(self, script, arguments):
        try:
            self.process.stdin.write(json.dumps({"script": script, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass   # the answer is then its end
        return Outcome(**self.answer())

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()


class Turns:
    """One record a run: {"row", "variant", "asked_precision", "round", "run": the JSON, "elsewhere": the share of the
    cores that other programs took meanwhile}, or "not_here": why, in place of the last two. A precision that was not
    here is not tried again."""

    def __init__(self, options, variants, on_record):
        self.options, self.on_record = options, on_record
        self.program = Program(options.program)
        self.rivals = {name: Rival(options.python, kept=name == "pytorch-kept-memory")
                       for name in variants if name != "ours"}
        self.variants = list(variants)
        self.records = []
        self.settings = {}   # of PyTorch, chosen in its first quiet run of a row and precision; quick: of either malloc

    def close(self):
        for rival in self.rivals.values():
            rival.close()

    def measure(self, row, variant, precision, number, size):
        """One run. @raises Failed"""
        key = (row.name, variant, precision)
        if any((r["row"], r["variant"], r["asked_precision"]) == key and "not_here" in r for r in self.records):
            return
        if variant != "ours" and self.rivals[variant].process is None:
            self.rivals[variant].start()
        busy, began = busy_seconds(), time.monotonic()
        if variant == "ours":
            outcome = self.program.run([*rows.ours(row, self.options, size), "--precision", precision])
        else:
            script, arguments = rows.theirs(row, self.options, size)
            choice = (row.name, precision, "" if getattr(self.options, "quick", False) else variant)
            setting = ["--setting", self.settings[choice]] if choice in self.settings else []
            outcome = self.rivals[variant].run(script, [*arguments, "--precision", precision, *setting])
        record = {"row": row.name, "variant": variant, "asked_precision": precision, "round": number}
        lines = outcome.stderr.strip().splitlines()
        if outcome.code == NOT_HERE:
            said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
            record["not_here"] = said.removeprefix("error: ")
        elif outcome.code != 0:
            raise Failed(f"{row.name}, {variant}, {precision}: exit code {outcome.code}: {' | '.join(lines[-5:])}")
        else:
            record["run"] = json.loads(outcome.stdout)
            if busy is not None:
                others = busy_seconds() - busy - outcome.cpu_seconds
                record["elsewhere"] = round(max(0.0, others / (time.monotonic() - began) / os.cpu_count()), 3)
            quiet = record.get("elsewhere", 0) <= summary.BUSY   # else the choice was made by what other programs left
            if "setting" in record["run"] and (quiet or getattr(self.options, "quick", False)):
                self.settings[choice] = record["run"]["setting"]
        self.records.append(record)
        self.on_record(record)

    def round(self, number, jobs, precisions, tell):
        """jobs: [(row, size)]. Whose turn is first alternates from round to round."""
        for row, size in jobs:
            for precision in precisions:
                for variant in self.variants if number % 2 == 1 else reversed(self.variants):
                    tell(f"round {number}: {row.name} {variant} {precision}")
                    self.measure(row, variant, precision, number, size)


def check_programs(options):
    """@raises Failed where there is nothing to run"""
    if not os.access(options.program, os.X_OK):
        raise Failed(f"no {options.program}; run tools/build")
    found = subprocess.run([options.python, "-c", "import torch"], capture_output=True, check=False) \
        if os.access(options.python, os.X_OK) else None
    if found is None or found.returncode != 0:
        raise Failed(f"{options.python} has no torch; run tools/pytorch/setup")


def machine():
    """What the numbers depend on, as far as the kernel tells."""
    facts = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
             "usable_cores": len(os.sched_getaffinity(0)), "flags": [], "kernel": platform.release(),
             "load_average": os.getloadavg()[0]}
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return facts
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    facts["cpu"] = fields.get("model name", facts["cpu"])
    for name, field in (("family", "cpu family"), ("model", "model")):
        if field in fields:
            facts[name] = int(fields[field])
    facts["flags"] = [flag for flag in INTERESTING_FLAGS if flag in fields.get("flags", "").split()]
    return facts


def version_of(program):
    """The first line of --version, and the commit of this checkout."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    described = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
                               capture_output=True, text=True, check=False)
    return said[0] if said else "", described.stdout.strip() or None


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def tell(line):
    print(line, file=sys.stderr, flush=True)
