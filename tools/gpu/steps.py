"""The steps of tools/gpu-check besides the table: each takes the context and fills in its Step."""
import json
import shutil
from pathlib import Path

import curves
from common import ROOT, Skipped, read_metrics
from tensors import differing

HERE = Path(__file__).resolve().parent
LOCAL = ("ms_per_step",)   # in metrics: differs from run to run


def devices(check, step):
    """What the program sees: the GPU, its precisions, cuDNN."""
    asked = check.run([check.program, "devices", "--json"], "devices", 60)
    if asked.code != 0:
        step.fail(f"charrnn-gpu devices: exit code {asked.code}: {asked.last_line()}")
        return
    check.devices = json.loads(asked.stdout)
    step.details = {"devices": check.devices, "libraries": check.environment.get("LD_LIBRARY_PATH", "")}
    check.run([check.program, "devices"], "devices", 60)
    for device in check.devices["devices"]:
        state = "available" if device["available"] else "absent"
        step.lines.append(f"- {device['device'] or device['backend']}: {state}, {device['detail']}")
    step.lines.append(f"- cuDNN: {check.devices['cudnn']}")
    if shutil.which("nvidia-smi"):
        fields = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,temperature.gpu"
        smi = check.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], "devices", 30, theirs=True)
        step.details["nvidia_smi"] = dict(zip(fields.split(","), [v.strip() for v in smi.stdout.split(",")]))
        step.lines.append(f"- {fields}: {smi.stdout.strip()}")
    if not check.precisions():
        step.fail("there is no GPU that the program can use: " +
                  "; ".join(d["detail"] for d in check.devices["devices"] if d["backend"] == "cuda"))
    elif "cudnn" not in check.implementations():
        step.fail(f"cuDNN cannot be used: {check.devices['cudnn']}")


def tests(check, step):
    """backend_test in each precision, pytorch_test in fp32, gradcheck of each cell; by each implementation."""
    check.need_gpu()
    jobs = []

    def job(name, command, environment):
        def run():
            return name, check.run(command, f"tests-{name}", environment=environment)
        jobs.append(run)

    fixtures = ROOT / "tests" / "fixtures" / "pytorch"
    for implementation in check.implementations():
        chosen = {"CHARRNN_TEST_DEVICE": check.device, "CHARRNN_TEST_IMPLEMENTATION": implementation,
                  "CHARRNN_PYTORCH_FIXTURES": str(fixtures)}
        job(f"pytorch-{implementation}", [check.binaries / "pytorch_test", "--warn", "NoTests"], chosen)
        for precision in check.precisions():
            job(f"backend-{implementation}-{precision}", [check.binaries / "backend_test", "--warn", "NoTests"],
                {**chosen, "CHARRNN_TEST_PRECISION": precision})
        for cell in ("lstm", "gru", "rnn"):
            job(f"gradcheck-{implementation}-{cell}",
                [check.program, "gradcheck", "--cell", cell, "--device", check.device, "--implementation",
                 implementation], {})
    results = check.at_once(jobs)
    for name, outcome in results:
        step.details[name] = {"exit_code": outcome.code, "seconds": round(outcome.seconds, 1)}
        if outcome.code != 0:
            step.fail(f"{name}: exit code {outcome.code}: {outcome.last_line()}")
    step.lines.append(f"{sum(o.code == 0 for _, o in results)} of {len(results)} programs of tests passed")


def loss_curves(check, step):
    """Dropout 0: each implementation and precision = PyTorch = the CPU. Dropout 0.5: fused = the CPU, same masks."""
    s = check.sizes
    gpu = bool(check.precisions())
    started, start = check.train("curve-start", 1, device="cpu")
    if started.code != 0:
        step.fail(f"the run that gives the weights: exit code {started.code}: {started.last_line()}")
        return
    weights = [f"init_from={json.dumps(str(start / 'latest'))}"]
    names = {}    # of a run -> (implementation, precision, dropout)
    for dropout in (0, 0.5):
        names[f"cpu-dropout-{dropout}"] = ("cpu", "fp32", dropout)
        for implementation in (check.implementations() if gpu else []):
            if implementation == "cudnn" and dropout:
                continue   # between layers its masks are the same, but it is covered by the tests
            for precision in check.precisions():
                names[f"{implementation}-{precision}-dropout-{dropout}"] = (implementation, precision, dropout)

    def train(name):
        implementation, precision, dropout = names[name]
        cpu = implementation == "cpu"
        return check.train(f"curve-{name}", s.steps, [*weights, f"model.dropout={dropout}",
                                                      f"train.precision={precision}"],
                           device="cpu" if cpu else None, implementation=None if cpu else implementation)

    roundings = ["fp64", "torch"] + [p for p in check.precisions() if p != "fp32"]

    def torch(name):
        return check.run([check.python, HERE / "pytorch_curve.py", start / "latest", check.text, "--batch", s.batch,
                          "--sequence", s.sequence, "--steps", s.steps, "--threads", 1, "--rounding", name],
                         f"curve-pytorch-{name}", theirs=True)

    jobs = [lambda n=n: torch(n) for n in roundings] if check.has_torch else []
    theirs_count = len(jobs)
    results = check.at_once(jobs + [lambda n=n: train(n) for n in names])
    yardsticks, runs = {}, {}
    for name, outcome in zip(roundings, results[:theirs_count]):
        if outcome.code == 0:
            yardsticks.update(json.loads(outcome.stdout))
        else:
            step.fail(f"PyTorch ({name}): exit code {outcome.code}: {outcome.last_line()}")
    for name, (outcome, folder) in zip(names, results[theirs_count:]):
        if outcome.code == 0:
            runs[name] = [line["train_nats_per_char"] for line in read_metrics(folder)]
        else:
            step.fail(f"{name}: exit code {outcome.code}: {outcome.last_line()}")
    step.details["curves"] = {**{f"pytorch-{n}": c for n, c in yardsticks.items()}, **runs}
    if "fp64" not in yardsticks or "torch" not in yardsticks:
        if check.has_torch:
            return   # it has failed, and that is said
        if gpu and not check.is_tiny:
            step.fail(f"{check.python} has no torch: the curves were compared with nothing")
            return
        raise Skipped(f"{check.python} has no torch")

    exact = yardsticks["fp64"]
    longest = s.layers * s.sequence * max(2 * s.hidden, 96)
    rows, details = [], []
    for name, (implementation, precision, dropout) in names.items():
        yardstick = yardsticks["torch" if precision == "fp32" else precision] if (
            precision == "fp32" or precision in yardsticks) else None
        if name not in runs or yardstick is None:
            continue
        if dropout == 0:
            rivals = {"PyTorch": exact if precision != "fp32" else yardsticks["torch"]}
            if implementation != "cpu":
                rivals["cpu"] = runs.get("cpu-dropout-0")
        else:
            rivals = {"cpu": runs.get("cpu-dropout-0.5")} if implementation != "cpu" else {}
        window, allowed = curves.tolerances(exact, yardstick, precision, longest)
        for rival, curve in rivals.items():
            found = curves.compare(runs[name], curve, window, allowed) if curve else None
            if found is None:
                step.fail(f"{name} beside {rival}: the curves have no equal length")
                continue
            details.append({"run": name, "rival": rival, "window": window, **found})
            rows.append(f"| {name} | {rival} | {found['largest_difference']:.1e} | "
                        f"{100 * found['share_of_allowed']:.0f} % | {found['at_step']} |")
            if not found["share_of_allowed"] <= 1:
                step.fail(f"{name} differs from {rival} by up to {found['largest_difference']:.1e} nats, "
                          f"{found['share_of_allowed']:.1f} times what rounding explains, at step {found['at_step']}")
    step.details["comparisons"] = details
    learned = exact[0] - exact[-1]
    step.lines += [f"{s.layers}x{s.hidden}, B={s.batch}, T={s.sequence}, {s.steps} steps; PyTorch's loss in float64 "
                   f"falls from {exact[0]:.3f} to {exact[-1]:.3f} nats ({learned:.3f}). Coarse precisions are compared "
                   f"as means over {curves.WINDOW} steps.", "",
                   "| run | beside | largest difference, nats | of what rounding explains | worst from step |",
                   "|---|---|---:|---:|---:|", *rows]


def comparable(folder):
    return [{k: v for k, v in line.items() if k not in LOCAL} for line in read_metrics(folder)]


def compare_runs(step, what, first, second):
    """Two runs that must be equal bit for bit: metrics, weights, state."""
    (a, folder_a), (b, folder_b) = first, second
    for outcome in (a, b):
        if outcome.code != 0:
            step.fail(f"{what}: exit code {outcome.code}: {outcome.last_line()}")
            return
    metrics_a, metrics_b = comparable(folder_a), comparable(folder_b)
    if metrics_a != metrics_b or not metrics_a:
        at = next((x.get("step") for x, y in zip(metrics_a, metrics_b) if x != y), None)
        step.fail(f"{what}: metrics differ from step {at} on ({len(metrics_a)} and {len(metrics_b)} lines)")
    for name in ("model.safetensors", "state.safetensors"):
        found = differing(folder_a / "latest" / name, folder_b / "latest" / name)
        if found:
            step.fail(f"{what}: {name}: {', '.join(found[:5])}{' and more' if len(found) > 5 else ''} differ")
    if not any(f.startswith(what + ":") for f in step.failures):
        step.lines.append(f"- {what}: equal in {len(metrics_a)} lines of metrics, all weights and all state")


def pairs_of(check, make):
    """(what, run 1, run 2) for each implementation, in a coarse precision and in fp32; programs run side by side."""
    check.need_gpu()
    wanted = [p for p in ("bf16", "fp16", "fp32") if p in check.precisions()]
    cases = [(i, p) for i in check.implementations() for p in wanted]
    return check.at_once([lambda i=i, p=p: (f"{i} {p}", *make(i, p)) for i, p in cases])


def bitwise_repeat(check, step):
    """The same run twice: the same bits, with dropout."""
    def make(implementation, precision):
        return [check.train(f"repeat-{implementation}-{precision}-{k}", check.sizes.short,
                            ["model.dropout=0.5", f"train.precision={precision}"], implementation=implementation)
                for k in (1, 2)]
    for what, first, second in pairs_of(check, make):
        compare_runs(step, what, first, second)


def resume(check, step):
    """A run that stops half way and goes on: the same bits as one that does not stop."""
    n = check.sizes.short

    def make(implementation, precision):
        settings = ["model.dropout=0.5", f"train.precision={precision}"]
        name = f"resume-{implementation}-{precision}"
        whole = check.train(f"{name}-whole", n, settings, implementation=implementation)
        half, _ = check.train(f"{name}-halves", n // 2, settings, implementation=implementation)
        rest, folder = check.train(f"{name}-halves", n, settings, implementation=implementation)
        return whole, (half if half.code != 0 else rest, folder)
    for what, first, second in pairs_of(check, make):
        compare_runs(step, what, first, second)


def streaming(check, step):
    """Windows from the host's loader, as for a text that does not fit, beside windows cut on the device: same bits."""
    check.need_gpu()
    variable = "CHARRNN_HOLD_TEXT"
    if not knows(check, variable):
        raise Skipped(f"this build has no {variable}=0, which would keep the text from the device")

    def make(implementation, precision):
        settings = ["model.dropout=0.5", f"train.precision={precision}"]
        return [check.train(f"stream-{implementation}-{precision}-{value}", check.sizes.short, settings,
                            implementation=implementation, environment={variable: value}) for value in ("1", "0")]
    for what, first, second in pairs_of(check, make):
        compare_runs(step, what, first, second)


def knows(check, variable):
    files = [check.program, check.environment.get("CHARRNN_CUDA_LIBRARY", check.binaries / "libcharrnn_cuda.so")]
    return any(Path(f).is_file() and variable.encode() in Path(f).read_bytes() for f in files)


def find_sanitizer():
    found = shutil.which("compute-sanitizer")
    places = [found] if found else []
    places += sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    places += sorted(Path("/usr/local").glob("cuda*/compute-sanitizer/compute-sanitizer"))
    if not places:
        raise Skipped("compute-sanitizer is neither in PATH nor in /usr/local/cuda*/bin")
    return places[0]


def sanitizers(check, step):
    """compute-sanitizer over short runs with dropout, validation and a sample: every kernel at small, odd sizes.

    memcheck looks at all kernels, cuBLASLt's and cuDNN's too; the others at ours alone, whose names hold "charrnn".
    """
    check.need_gpu()
    sanitizer = find_sanitizer()
    shape = ["--set", "model.hidden=37", "--set", "model.layers=2", "--set", "train.batch=5", "--set",
             "train.sequence=7", "--set", "model.dropout=0.5", "--set", "corpus.split=[0.9, 0.1, 0]", "--set",
             "validate.every=3", "--set", "validate.characters=200", "--set", "sample.at=[2]", "--set",
             "sample.length=20"]
    cases = []
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        cases += [(tool, "fused", precision) for precision in ("bf16", "fp32") if precision in check.precisions()]
    if "cudnn" in check.implementations():
        cases.append(("memcheck", "cudnn", "fp16"))

    def run(tool, implementation, precision):
        name = f"sanitizer-{tool}-{implementation}-{precision}"
        command = [sanitizer, "--tool", tool, "--error-exitcode", 9, "--launch-timeout", 60, "--print-limit", 20,
                   "--report-api-errors", "no"]   # we check each status; libraries try calls that may fail
        if tool != "memcheck":
            command += ["--kernel-name", "kns=charrnn"]
        command += [check.program, "train", "--config", check.config_file(), "--output", check.out / "runs" / name,
                    "--steps", 3, "--device", check.device, "--implementation", implementation, *shape,
                    "--set", f"train.precision={precision}"]
        return check.run(command, name, 80)

    outcomes = check.at_once([lambda c=c: run(*c) for c in cases])
    for case, outcome in zip(cases, outcomes):
        what, text = " ".join(case), outcome.stdout + outcome.stderr
        summary = next((line.strip("= ") for line in text.splitlines()[::-1] if "SUMMARY" in line), None)
        step.details[what] = {"exit_code": outcome.code, "seconds": round(outcome.seconds, 1), "summary": summary}
        if outcome.code == 0 and summary:
            step.lines.append(f"- {what}: {summary}")
        else:
            step.fail(f"{what}: exit code {outcome.code}: {summary or outcome.last_line()}")
