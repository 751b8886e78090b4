#!/usr/bin/env python3
"""Prints the runs of tools/bench/compare as a Markdown table and, after it, as one JSON object."""
import json
import pathlib
import statistics
import sys

NAMES = {
    "ours": "charrnn-gpu",
    "pytorch": "PyTorch as installed",
    "pytorch-kept-memory": "PyTorch, malloc keeps memory",
}


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: summarize.py FILE.jsonl")
    runs = {}
    for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
        record = json.loads(line)
        runs.setdefault((record["asked_precision"], record["variant"]), []).append(record["run"])
    if not runs:
        raise SystemExit(f"{sys.argv[1]}: no runs")

    print("Milliseconds a step: the median over rounds of each run's median, and the range of those medians.\n")
    print("| precision | | ms/step | range | chars/s | times ours |")
    print("|---|---|---:|---:|---:|---:|")
    rows = []
    for (precision, variant), group in runs.items():
        medians = [run["ms_per_step_median"] for run in group]
        row = {"precision": precision, "variant": variant, "rounds": len(group),
               "ms_per_step_median": statistics.median(medians),
               "ms_per_step_median_min": min(medians), "ms_per_step_median_max": max(medians),
               "chars_per_second": statistics.median(run["chars_per_second"] for run in group),
               "device": group[0].get("device"), "threads": group[0].get("threads")}
        ours = runs.get((precision, "ours"))
        if ours:
            row["times_ours"] = row["ms_per_step_median"] / statistics.median(r["ms_per_step_median"] for r in ours)
        rows.append(row)
        times = f"{row['times_ours']:.2f}" if ours else ""
        print(f"| {precision} | {NAMES.get(variant, variant)} | {row['ms_per_step_median']:.1f} "
              f"| {min(medians):.1f} - {max(medians):.1f} | {row['chars_per_second']:,.0f} | {times} |")
    versions = sorted({run["torch"] for group in runs.values() for run in group if "torch" in run})
    print()
    print(json.dumps({"schema": 1, "torch": versions, "rows": rows}))


if __name__ == "__main__":
    main()
