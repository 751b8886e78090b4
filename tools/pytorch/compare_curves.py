#!/usr/bin/env python3
"""Compares curves of validation loss: several seeds of ours against several of PyTorch's.

    compare_curves.py --ours runs/a/metrics.jsonl runs/b/metrics.jsonl ... --theirs torch-1.jsonl torch-2.jsonl ...

Prints a Markdown table: step, mean and standard deviation over the seeds of each side, the difference of the means, and
that difference in units of the spread, which is the pooled standard deviation of both sides. With --key
train_nats_per_char it compares the training loss, averaged over the steps since the row before.
"""
import argparse
import json
import math
import pathlib
import statistics


def read_curve(path, key):
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    curve = {}
    for line in path.read_text().splitlines():
        if line.strip():
            metrics = json.loads(line)
            if metrics.get(key) is not None:
                curve[metrics["step"]] = metrics[key]
    if not curve:
        raise SystemExit(f"{path}: no line has {key}")
    return curve


def averaged(curve, steps):
    """The mean of a curve over the steps up to each of `steps` since the one before."""
    result, before = {}, 0
    for step in steps:
        values = [value for at, value in curve.items() if before < at <= step]
        if values:
            result[step] = statistics.fmean(values)
        before = step
    return result


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0.0


def pooled(a, b):
    """Standard deviation of one run about its side's mean, from both sides together."""
    freedom = len(a) + len(b) - 2
    if freedom < 1:
        return math.nan
    squares = sum((x - statistics.fmean(side)) ** 2 for side in (a, b) for x in side)
    return math.sqrt(squares / freedom)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--theirs", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--key", default="validation_nats_per_char")
    parser.add_argument("--every", type=int, default=0, help="only steps that are multiples of this, and the last")
    options = parser.parse_args()

    sides = [[read_curve(path, options.key) for path in paths] for paths in (options.ours, options.theirs)]
    steps = sorted(set.intersection(*(set(curve) for side in sides for curve in side)))
    if not steps:
        raise SystemExit("the files have no step in common")
    if options.every:
        steps = [s for s in steps if s % options.every == 0 or s == steps[-1]]
    if options.key == "train_nats_per_char":
        sides = [[averaged(curve, steps) for curve in side] for side in sides]

    counts = f"{len(options.ours)} of ours, {len(options.theirs)} of PyTorch's"
    print(f"{options.key}: {counts}; mean +- standard deviation\n")
    print("| step | ours | PyTorch | difference | in spreads |")
    print("|---:|---:|---:|---:|---:|")
    worst = math.nan
    for step in steps:
        ours, theirs = ([curve[step] for curve in side] for side in sides)
        difference = statistics.fmean(ours) - statistics.fmean(theirs)
        unit = pooled(ours, theirs)
        in_spreads = difference / unit if unit > 0 else math.nan
        if not math.isnan(in_spreads):
            worst = abs(in_spreads) if math.isnan(worst) else max(worst, abs(in_spreads))
        print(f"| {step} | {statistics.fmean(ours):.4f} +- {spread(ours):.4f} "
              f"| {statistics.fmean(theirs):.4f} +- {spread(theirs):.4f} | {difference:+.4f} | {in_spreads:+.2f} |")
    print("\nno spread: give each side several seeds" if math.isnan(worst) else
          f"\nlargest difference: {worst:.2f} spreads")


if __name__ == "__main__":
    main()
