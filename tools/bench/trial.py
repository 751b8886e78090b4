"""What the forward rivals share: PyTorch's settings are tried for a moment each, and the fastest is timed.

A setting is a tuple (way, math, threads): how the step is written, `onednn` or `native` (torch.backends.mkldnn off: for
a single stream oneDNN's LSTM packs all weights at every call), and threads. On the command line: linear,native,2.
"""
import contextlib
import statistics
import time
import warnings

import torch

warnings.filterwarnings("ignore", message="TF32 acceleration")   # of another maker's GPUs; said at each change of flags
TRIAL_SECONDS, FINAL_SECONDS, FINALISTS = 0.1, 0.4, 3
HOPELESS_SECONDS, HOPELESS_TIMES = 0.3, 4


def settings_of(ways, threads):
    """Every way with both maths, on one thread and on all."""
    return [(way, math, count) for way in ways for math in ("onednn", "native") for count in sorted({1, threads})]


def parse_setting(text):
    way, math, threads = text.split(",")
    if math not in ("onednn", "native"):
        raise ValueError(f"the setting is {text}, expected way,onednn|native,threads")
    return way, math, int(threads)


def name_of(setting):
    return ",".join(str(part) for part in setting)


@contextlib.contextmanager
def applied(setting):
    _, math, threads = setting
    torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=math == "onednn"), torch.inference_mode():
        yield


def rate(setting, make, seconds, best=0.0):
    """Calls a second of make(way)(), for `seconds` after one call to warm up; or that of the first call, if it is long
    and shows that the setting is far behind the best."""
    with applied(setting):
        call = make(setting[0])
        begin = time.perf_counter()
        call()
        first = time.perf_counter() - begin
        if first > HOPELESS_SECONDS and first * best > HOPELESS_TIMES:
            return 1 / first
        calls, begin = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - begin < seconds:
            call()
            calls += 1
        return calls / (time.perf_counter() - begin)


def choose(settings, make):
    """The fastest setting, and calls a second of all: each for a moment, the best of those again for longer."""
    rates = {}
    for setting in settings:
        rates[setting] = rate(setting, make, TRIAL_SECONDS, max(rates.values(), default=0.0))
    finalists = sorted(rates, key=rates.get, reverse=True)[:FINALISTS]
    finals = {setting: rate(setting, make, FINAL_SECONDS) for setting in finalists}
    return max(finals, key=finals.get), {**rates, **finals}


def seconds_of_repeats(setting, make, repeats):
    """Seconds of each call of make(way)(), after one to warm up."""
    with applied(setting):
        call = make(setting[0])
        call()
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
        return seconds


def spread(seconds, characters):
    """The keys of `charrnn-gpu bench --what sample` and eval."""
    us = [value / characters * 1e6 for value in seconds]
    middle = statistics.median(us)
    return {"us_per_char_median": middle, "us_per_char_min": min(us), "us_per_char_max": max(us),
            "chars_per_second": 1e6 / middle}
