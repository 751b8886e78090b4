"""tools/gpu-check --no-gpu: what can be known without a GPU about a later run with one."""
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import curves
import table
from common import ROOT, Skipped, needed_cublaslt
from steps import loss_curves

IS_CUDA = re.compile(r"^lib(cuda|cudart|cublas|cublasLt|cudnn.*|nvrtc.*|nvidia.*)\.so")
IS_GLIBC = re.compile(r"^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|mvec))\.so")
ON_CPU = ("on_cpu", "libcharrnn_cuda.so")   # the backend on a device made of the CPU, where the tests have built it
MUST_HAVE = ("tools/gpu-check", "tools/gpu/pytorch_rows.py", "tools/gpu/pytorch_curve.py",
             "tools/bench/pytorch_step.py", "tools/pytorch/model.py", "tools/pytorch/charrnn_reference.py",
             "tools/profile/nsys", "bin/charrnn-gpu", "bin/libcharrnn_cuda.so", "bin/backend_test", "bin/pytorch_test",
             "data/text.txt", "tests/fixtures/pytorch/lstm.json", "configs/shakespeare.yaml")


def scripts(check, step):
    """Every script of ours parses; shellcheck where it is."""
    folders = [ROOT / "tools" / name for name in ("gpu", "bench", "pytorch", "profile")]
    files = [path for folder in folders for path in sorted(folder.glob("*")) if path.is_file()]
    files += [ROOT / "tools" / name for name in ("gpu-check", "bundle", "lib.sh") if (ROOT / "tools" / name).is_file()]
    shells, pythons = [], []
    for path in files:
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        if path.suffix == ".py" or "python" in first:
            pythons.append(path)
        elif path.suffix == ".sh" or first.endswith("sh"):
            shells.append(path)
    for path in pythons:
        try:
            compile(path.read_text(encoding="utf-8"), str(path), "exec")
        except SyntaxError as error:
            step.fail(f"{path.relative_to(ROOT)}: {error}")
    for path in shells:
        parsed = check.run(["bash", "-n", path], "scripts", theirs=True)
        if parsed.code != 0:
            step.fail(f"{path.relative_to(ROOT)}: {parsed.last_line()}")
    if shutil.which("shellcheck"):
        linted = check.run(["shellcheck", "--external-sources", "--source-path", ROOT, *shells], "scripts", theirs=True)
        if linted.code != 0:
            step.fail(f"shellcheck: {linted.stdout.strip()[:500]}")
    step.lines.append(f"{len(pythons)} Python scripts and {len(shells)} shell scripts parse")


def self_tests(_, step):
    """The code that judges curves and writes tables, on invented numbers."""
    for module in (curves, table):
        module.self_test()
    step.lines.append("curves and tables: the self-tests pass")


def bundle(check, step):
    """A bundle is made and unpacked (or is this one): every file is there, every library but CUDA's is found in it."""
    folder = ROOT
    if not (ROOT / "bundle.json").exists():
        archive = check.out / "bundle.tar.gz"
        made = check.run([ROOT / "tools" / "bundle", "--build", check.binaries, archive], "bundle", theirs=True)
        if made.code == 3:
            raise Skipped("this build has no CUDA backend to pack")
        if made.code != 0:
            step.fail(f"tools/bundle: exit code {made.code}: {made.last_line()}")
            return
        step.lines.append(made.last_line())
        unpacked = check.run(["tar", "-xzf", archive, "-C", check.out], "bundle", theirs=True)
        if unpacked.code != 0:
            step.fail(f"tar: {unpacked.last_line()}")
            return
        archive.unlink()
        folder = check.out / "charrnn-gpu-bundle"
    step.details = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    listed = [line.split(maxsplit=1) for line in (folder / "bundle.sha256").read_text(encoding="utf-8").splitlines()]
    for digest, name in listed:
        path = folder / name
        if not path.is_file():
            step.fail(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            step.fail(f"{name} is not what was packed")
    names = {Path(name).as_posix() for _, name in listed}
    for name in MUST_HAVE:
        if name not in names:
            step.fail(f"{name} was not packed")
    check_libraries(check, step, folder)
    # As on the other machine: the bundle's own script with the bundle's own program.
    if folder != ROOT:
        own = check.run([sys.executable, folder / "tools" / "gpu-check", "--no-gpu", "--steps", "devices", "--out",
                         check.out / "of-bundle"], "bundle-runs", theirs=True)
        if own.code != 0:
            step.fail(f"the unpacked bundle's own --no-gpu: exit code {own.code}: {own.last_line()}")
        shutil.rmtree(folder)


def check_libraries(check, step, folder):
    """Each library that the programs need lies in lib/, is glibc's, or is CUDA's."""
    inside = {path.name for path in (folder / "lib").rglob("*.so*")}
    environment = {"LD_LIBRARY_PATH": f"{folder / 'lib'}:{folder / 'lib' / 'gcc'}"}
    for program in sorted((folder / "bin").iterdir()):
        found = check.run(["ldd", program], "bundle-libraries", environment=environment, theirs=True)
        for line in found.stdout.splitlines():
            name, _, rest = line.strip().partition(" => ")
            if not rest or IS_CUDA.match(name):
                continue
            if "not found" in rest:
                step.fail(f"{program.name} needs {name}, which is neither in the bundle nor on this machine")
            elif name not in inside and not IS_GLIBC.match(name):
                step.fail(f"{program.name} takes {name} from this machine, not from the bundle")
    asked = check.run([folder / "bin" / "charrnn-gpu", "--version"], "bundle-libraries", environment=environment,
                      theirs=True)
    if asked.code != 0:
        step.fail(f"the bundle's program does not start: {asked.last_line()}")
    step.lines.append(f"{len(inside)} libraries travel with it, glibc {step.details.get('glibc')} is needed, and "
                      f"{needed_cublaslt(folder / 'bin' / 'libcharrnn_cuda.so')} must be there")


def pytorch_rows(check, step):
    """PyTorch's side of the table, on the CPU at the smallest shape: that the scripts run, not how fast."""
    if not check.has_torch:
        raise Skipped(f"{check.python} has no torch")
    shape = next(iter(table.TINY_SHAPES.values()))
    requests = [{"kind": "step", "row": row, "shape": shape, "steps": 2} for row in table.PYTORCH_STEPS]
    requests += [{"kind": "sample", "row": row, "shape": shape, "characters": 5} for row in table.PYTORCH_SAMPLES]
    rival = table.Rival(check, "cpu")
    try:
        for request in requests:
            found = rival.ask(request, check.time_left())
            if "error" in found:
                step.fail(f"{request['kind']} {request['row']}: {found['error']}")
    finally:
        rival.close()
    step.lines.append(f"{len(requests)} rows of PyTorch ran on the CPU")


def on_a_cpu_device(function):
    """A step of a GPU run, on the device made of the CPU where there is one."""
    def run(check, step):
        library = os.environ.get("CHARRNN_CUDA_LIBRARY") or check.binaries.joinpath(*ON_CPU)
        if not Path(library).is_file():
            raise Skipped("there is no CUDA backend for a device made of the CPU here (tools/build --tests makes it)")
        check.environment["CHARRNN_CUDA_LIBRARY"] = str(library)
        asked = check.run([check.program, "devices", "--json"], "devices")
        check.devices = json.loads(asked.stdout) if asked.code == 0 else {}
        check.only_some_precisions()
        function(check, step)
    return run


def curves_on_cpu(check, step):
    """The CPU beside PyTorch, without any GPU."""
    check.devices = {}
    loss_curves(check, step)


def steps(wanted):
    """What --no-gpu runs, of the steps that were asked for."""
    names = [name for name, _, _ in wanted]
    result = [("scripts", scripts, 60), ("self-tests", self_tests, 10), ("bundle", bundle, 180)]
    if names == ["devices"]:   # a bundle that looks at itself
        return result
    result += [("pytorch-rows", pytorch_rows, 120), ("curves-cpu", curves_on_cpu, 120)]
    slow = {"tests", "sanitizers"}   # CTest runs the first on that device; the second needs a real one
    return result + [(f"{name}-on-cpu", on_a_cpu_device(function), 120)
                     for name, function, _ in wanted if name not in slow]
