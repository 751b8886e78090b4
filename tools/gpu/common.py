"""What the steps of tools/gpu-check share: where things lie, how programs are run, and what a step hands back."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from make_text import make_text

ROOT = pathlib.Path(__file__).resolve().parents[2]   # of the repository, or of an unpacked bundle
CUDA_LIBRARIES = ("libcublasLt.so", "libcudnn.so")
PLACES = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/opt/cuda/lib64")


class Skipped(Exception):
    """A step that cannot run here; the text says why."""


@dataclass
class Outcome:
    """Of one program that was run."""
    code: int          # 124: it ran out of its time
    stdout: str
    stderr: str
    seconds: float

    def last_line(self):
        if self.code == 124:
            return f"it was not done after {self.seconds:.0f} s"
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1][:300] if lines else "it printed nothing"


@dataclass
class Step:
    """One step's results. `details` goes into the JSON, `lines` (Markdown) into the summary."""
    name: str
    state: str = "running"   # passed, failed, skipped, cut (out of time)
    seconds: float = 0.0
    failures: list = field(default_factory=list)
    details: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)

    def fail(self, text):
        self.failures.append(text)

    def as_json(self):
        return {"name": self.name, "state": self.state, "seconds": round(self.seconds, 1), "failures": self.failures,
                "details": self.details}


@dataclass(frozen=True)
class Sizes:
    """How large the runs of the steps are: `tiny` is for a device made of the CPU, and for trying the script out."""
    layers: int = 2
    hidden: int = 128
    batch: int = 20        # no multiple of 8: cuDNN's padding is in use
    sequence: int = 25
    steps: int = 300       # of a curve
    short: int = 60        # of runs whose bits are compared
    workers: int = 6       # programs at a time, where nothing is timed


FULL = Sizes()
TINY = Sizes(hidden=16, batch=3, sequence=6, steps=8, short=4, workers=2)


class Context:
    """The machine, the programs, the output folder and the time that is left."""

    def __init__(self, options):
        self.out = options.out.resolve()
        self.python = options.python
        self.device = options.device
        self.is_tiny = options.tiny
        self.sizes = TINY if options.tiny else FULL
        self.binaries = find_binaries(options.build)
        self.program = self.binaries / "charrnn-gpu"
        self.began = time.monotonic()
        self.ends = self.began + options.budget
        self.step_ends = self.ends
        self.step = None
        self.devices = {}
        self.out.mkdir(parents=True, exist_ok=True)
        self.environment = self.make_environment()
        self.text = self.find_text()
        self.torch = self.torch_version()
        self.has_torch = self.torch is not None

    # Programs

    def make_environment(self):
        """Of our programs: the bundle's libraries, then those of CUDA, PyTorch's before the toolkit's."""
        environment = dict(os.environ)
        folders = [ROOT / "lib"] if (ROOT / "lib").is_dir() else []
        folders += cuda_folders(self.python)
        before = environment.get("LD_LIBRARY_PATH")
        paths = [str(folder) for folder in folders] + ([before] if before else [])
        if paths:
            environment["LD_LIBRARY_PATH"] = ":".join(paths)
        environment["CHARRNN_CONFIGS"] = str(ROOT / "configs")
        for name in ("CHARRNN_GRAPH", "CHARRNN_SYNC"):
            environment.pop(name, None)
        # The libraries of g++ travel too, for a machine whose own are older; newer ones are left in use.
        own = ROOT / "lib" / "gcc"
        if own.is_dir() and self.program.exists():
            asked = subprocess.run([self.program, "--version"], env=environment, capture_output=True, check=False)
            if asked.returncode != 0:
                environment["LD_LIBRARY_PATH"] = f"{own}:{environment['LD_LIBRARY_PATH']}"
        return environment

    def time_left(self):
        return min(self.ends, self.step_ends) - time.monotonic()

    def run(self, command, log, limit=None, environment=None, theirs=False):
        """Runs a program, in its own process group, no longer than the step may. Its output goes to a log too.

        @param theirs  it is not a program of ours: the environment is left as it was
        """
        limit = max(1.0, min(self.time_left(), limit or 1e9))
        base = dict(os.environ) if theirs else self.environment
        begin = time.monotonic()
        command = [str(part) for part in command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={**base, **(environment or {})}, start_new_session=True, text=True,
                                   errors="replace")
        try:
            stdout, stderr = process.communicate(timeout=limit)
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            code = 124
        seconds = time.monotonic() - begin
        with open(self.log(log), "a", encoding="utf-8") as file:
            changed = " ".join(f"{k}={v}" for k, v in (environment or {}).items())
            file.write(f"$ {changed} {' '.join(command)}\n{stdout}{stderr}\n[exit code {code}, {seconds:.1f} s]\n\n")
        return Outcome(code, stdout, stderr, seconds)

    def log(self, name):
        folder = self.out / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.log"

    def at_once(self, jobs):
        """Calls functions several at a time; returns their results in order."""
        with ThreadPoolExecutor(self.sizes.workers) as pool:
            return list(pool.map(lambda job: job(), jobs))

    # Facts

    def torch_version(self):
        if shutil.which(self.python) is None:
            return None
        asked = subprocess.run([self.python, "-c", "import torch; print(torch.__version__)"], capture_output=True,
                               text=True, check=False)
        return asked.stdout.strip() if asked.returncode == 0 else None

    def find_text(self):
        """The text that travels with a bundle, else one that is made."""
        bundled = ROOT / "data" / "text.txt"
        if bundled.is_file():
            return bundled
        made = self.out / "text.txt"
        if not made.is_file():
            made.write_bytes(make_text(2_000_000))
        return made

    def precisions(self):
        """That the device has, in the order of their worth here."""
        has = [p for d in self.devices.get("devices", []) if d["backend"] == "cuda" and d["available"]
               for p in d["precisions"]]
        return [p for p in ("bf16", "fp16", "tf32", "fp32") if p in has]

    def only_some_precisions(self):
        """On a slow device a coarse one and fp32 will do."""
        for device in self.devices.get("devices", []):
            device["precisions"] = [p for p in device["precisions"] if p in ("bf16", "fp32")]

    def only_some_precisions(self):
        """On a slow device a coarse one and fp32 will do."""
        for device in self.devices.get("devices", []):
            device["precisions"] = [p for p in device["precisions"] if p in ("bf16", "fp32")]

    def implementations(self):
        cudnn = self.devices.get("cudnn") or ""
        return ["fused"] + (["cudnn"] if cudnn[:1].isdigit() else [])

    def need_gpu(self):
        if not self.precisions():
            raise Skipped("there is no GPU that the program can use")

    # Runs

    def train(self, name, steps, settings=(), device=None, implementation=None, environment=None, log=None, limit=None,
              more=()):
        """Trains a small network into the folder `name` of the output folder."""
        s = self.sizes
        folder = self.out / "runs" / name
        command = [self.program, "train", "--config", self.config_file(), "--output", folder, "--steps", steps,
                   "--set", f"model.layers={s.layers}", "--set", f"model.hidden={s.hidden}",
                   "--set", f"train.batch={s.batch}", "--set", f"train.sequence={s.sequence}"]
        command += ["--device", device or self.device]
        if implementation:
            command += ["--implementation", implementation]
        for setting in settings:
            command += ["--set", setting]
        return self.run([*command, *more], log or name, limit, environment), folder

    def config_file(self):
        path = self.out / "config.yaml"
        if not path.exists():
            path.write_text(
                f"corpus: {{path: {json.dumps(str(self.text))}, split: [1, 0, 0], split_by: stream}}\n"
                "model: {cell: lstm, dropout: 0, init: {uniform: 0.08}}\n"
                "train: {epochs: 1000, precision: fp32, clip: {value: 0.1}, seed: 7,\n"
                "        optimizer: {name: rmsprop, learning_rate: 0.002, decay_rate: 0.95, epsilon: 1.0e-8}}\n"
                "validate: {every: 0}\ncheckpoint: {every: 0}\nsample: {at: [], every: 0}\n", encoding="utf-8")
        return path


def find_binaries(build):
    """The folder that has the program: the one that is named, a bundle's, or the release build's."""
    if build:
        return pathlib.Path(build).resolve()
    return ROOT / "bin" if (ROOT / "bin" / "charrnn-gpu").exists() else ROOT / "build" / "release"


def cuda_folders(python):
    """Folders with cuBLASLt and cuDNN: where PyTorch's packages have them, then where a toolkit puts them."""
    roots = []
    if shutil.which(python):
        asked = subprocess.run([python, "-c", "import sys; print('\\n'.join(sys.path))"], capture_output=True,
                               text=True, check=False)
        roots = [pathlib.Path(line) for line in asked.stdout.splitlines() if line]
    found = []
    for root in roots:
        for folder in sorted(root.glob("nvidia/*/lib")) + [root / "torch" / "lib"]:
            if has_any(folder):
                found.append(folder)
    found += [pathlib.Path(place) for place in PLACES if has_any(pathlib.Path(place))]
    return list(dict.fromkeys(found))


def has_any(folder):
    return folder.is_dir() and any(list(folder.glob(f"{name}.*")) for name in CUDA_LIBRARIES)


def needed_cublaslt(library):
    """The file name of the cuBLASLt that the backend asks for."""
    found = re.search(rb"libcublasLt\.so\.\d+", pathlib.Path(library).read_bytes())
    return found.group().decode() if found else None


def read_metrics(folder):
    """Lines of metrics.jsonl, each a dict."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def commit_of():
    """What was built: a bundle says it in a file, a checkout by git."""
    bundled = ROOT / "bundle.json"
    if bundled.exists():
        return json.loads(bundled.read_text(encoding="utf-8")).get("commit", "unknown")
    asked = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
                           capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"
