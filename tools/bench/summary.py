"""Medians, ranges and ratios of the records of turns.py, as tables."""
import statistics

NAMES = {
    "ours": "charrnn-gpu",
    "pytorch": "PyTorch as installed",
    "pytorch-kept-memory": "PyTorch, malloc keeps memory",
}
NOT_HERE = "not on this machine"
BUSY = 0.1   # share of the cores


def middle_of(run):
    """The median time of one run, in the unit of its kind."""
    return run["ms_per_step_median"] if "ms_per_step_median" in run else run["us_per_char_median"]


def entry_of(group):
    """One variant of one row and precision: the median over rounds of each run's median, and the range of those."""
    runs = [record["run"] for record in group if "run" in record]
    if not runs:
        return {"not_here": group[0]["not_here"]}
    middles = [middle_of(run) for run in runs]
    entry = {"rounds": len(runs), "median": statistics.median(middles), "least": min(middles), "most": max(middles),
             "chars_per_second": statistics.median(run["chars_per_second"] for run in runs),
             "threads": runs[0].get("threads"), "device": runs[0].get("device")}
    for name in ("gflops", "peak_gflops"):
        if name in runs[0]:
            entry[name] = statistics.median(run[name] for run in runs)
    if "peak_gflops" in entry:
        entry["share_of_peak"] = statistics.median(run["gflops"] / run["peak_gflops"] for run in runs)
    if "setting" in runs[0]:
        entry["setting"] = runs[0]["setting"]
        entry["tried"] = runs[0].get("tried", {})
    return entry


def rows_of(records, unit_of):
    """[{"row", "precision", "unit", "variants": {variant: entry}}], in the order in which they were first run; the
    variants in NAMES' order. `times_ours` is theirs by ours of the same row and precision."""
    groups = {}
    for record in records:
        row = groups.setdefault((record["row"], record["asked_precision"]), {})
        row.setdefault(record["variant"], []).append(record)
    result = []
    for (name, precision), variants in groups.items():
        entries = {variant: entry_of(variants[variant]) for variant in NAMES if variant in variants}
        ours = entries.get("ours", {}).get("median")
        for entry in entries.values():
            if ours and "median" in entry:
                entry["times_ours"] = entry["median"] / ours
        result.append({"row": name, "precision": precision, "unit": unit_of(name), "variants": entries})
    return result


def number(value):
    """Three or more digits that mean something, thousands separated."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def range_of(entry):
    return f"{number(entry['least'])} - {number(entry['most'])}"


def cell(entry):
    if entry is None:
        return ""
    return NOT_HERE if "not_here" in entry else f"{number(entry['median'])} ({range_of(entry)})"


def ratio(entry):
    return f"{entry['times_ours']:.2f}" if entry and "times_ours" in entry else ""


def wide_table(rows):
    """A line a row and precision, the variants side by side."""
    rivals = [variant for variant in NAMES if variant != "ours" and any(variant in row["variants"] for row in rows)]
    heads = ["row", "precision", "unit", NAMES["ours"], "of the peak"]
    for variant in rivals:
        heads += [NAMES[variant], "times ours"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "---:|" * (len(heads) - 3)]
    for row in rows:
        ours = row["variants"].get("ours")
        share = f"{100 * ours['share_of_peak']:.0f}%" if ours and "share_of_peak" in ours else ""
        cells = [row["row"], row["precision"], row["unit"], cell(ours), share]
        for variant in rivals:
            entry = row["variants"].get(variant)
            cells += [cell(entry), ratio(entry)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def long_table(rows):
    """A line a precision and variant, for one row."""
    lines = ["| precision | | ms/step | range | chars/s | times ours |", "|---|---|---:|---:|---:|---:|"]
    for row in rows:
        for variant, entry in row["variants"].items():
            cells = [row["precision"], NAMES[variant]]
            if "not_here" in entry:
                cells += [NOT_HERE, "", "", ""]
            else:
                cells += [f"{entry['median']:.1f}", f"{entry['least']:.1f} - {entry['most']:.1f}",
                          f"{entry['chars_per_second']:,.0f}", ratio(entry)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def busy_note(records):
    """A paragraph where other programs took so much of the cores that the numbers mean little, else nothing."""
    shares = [record["elsewhere"] for record in records if "elsewhere" in record]
    if not shares or max(shares) <= BUSY:
        return ""
    return (f"\n\nOther programs took {100 * statistics.median(shares):.0f}% of the cores in the median run, "
            f"{100 * max(shares):.0f}% in the worst: these numbers are not to be quoted.")


def reasons(records):
    """Why something is not on this machine, each sentence once."""
    return sorted({record["not_here"] for record in records if "not_here" in record})
