#!/usr/bin/env python3
"""usage: bench_test.py REPOSITORY

tools/bench on recorded runs, and with a program and a PyTorch that only play their parts.
"""
import argparse
import json
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(sys.argv.pop(1)) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
BENCH = ROOT / "tools" / "bench"
sys.path.insert(0, str(BENCH))
import rows  # noqa: E402  (these need the path above)
import summary  # noqa: E402
import turns  # noqa: E402


def step_run(ms, gflops=None):
    ours = {"gflops": gflops, "peak_gflops": 220.0} if gflops else {}
    return {"ms_per_step_median": ms, "chars_per_second": 1e7 / ms, "threads": 2, "device": "cpu", **ours}


# Three rounds of the headline row as they were once measured; ours had no bf16 then.
RECORDED = [{"row": "lstm-2x512", "variant": variant, "asked_precision": "fp32", "round": number, "run": run}
            for variant, runs in (
                ("pytorch", [step_run(1373.0), step_run(1417.0), step_run(1404.0)]),
                ("ours", [step_run(949.0, 202.0), step_run(930.0, 206.0), step_run(937.0, 205.0)]),
                ("pytorch-kept-memory", [step_run(1157.0), step_run(1159.0), step_run(1165.0)]))
            for number, run in enumerate(runs, 1)]
RECORDED += [{"row": "lstm-2x512", "variant": "ours", "asked_precision": "bf16", "round": 1,
              "not_here": "the cpu backend computes in fp32 only"},
             {"row": "lstm-2x512", "variant": "pytorch", "asked_precision": "bf16", "round": 1,
              "run": step_run(710.0)}]

# A program that plays ours: a step or a character takes as long as the shape says, and there is no bf16.
FAKE_PROGRAM = """#!/usr/bin/env python3
import json, sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("charrnn-gpu 9.9")
    sys.exit(0)
given = dict(zip(arguments[1:], arguments[2:]))
if given["--precision"] == "bf16":
    print("timing\\nerror: fp32 only\\nsee --help", file=sys.stderr)
    sys.exit(4)
rates = {"chars_per_second": 5000.0, "gflops": 50.0, "peak_gflops": 200.0, "threads": 2, "device": "cpu"}
unit = "ms_per_step" if given["--what"] == "step" else "us_per_char"
print(json.dumps({f"{unit}_median": 10.0, **rates}))
"""

# A python that plays the one with torch: it answers as pytorch_server.py does, as $FAKE_TORCH says.
FAKE_PYTHON = """#!/usr/bin/env python3
import json, os, sys
if sys.argv[1] == "-c":
    sys.exit(0)
role = os.environ.get("FAKE_TORCH", "")
print(json.dumps({"torch": "9.15"}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if role == "dies":
        sys.exit(7)
    kept = "MALLOC_TOP_PAD_" in os.environ
    if role and (role != "kept fails" or kept):
        code = 4 if role == "4" else 1
        print(json.dumps({"code": code, "stdout": "", "stderr": "Traceback\\nerror: no such rival",
                          "cpu_seconds": 0}), flush=True)
        continue
    unit = "ms_per_step" if "step" in request["script"] else "us_per_char"
    run = {f"{unit}_median": 20.0 if kept else 30.0, "chars_per_second": 2500.0, "threads": 2}
    if "step" not in request["script"]:
        run["setting"] = "linear,native,2"
        run["asked"] = request["arguments"]
    print(json.dumps({"code": 0, "stdout": json.dumps(run), "stderr": "", "cpu_seconds": 0}), flush=True)
"""


class Summary(unittest.TestCase):
    def setUp(self):
        self.rows = summary.rows_of(RECORDED, lambda name: "ms/step")

    def test_medians_ranges_and_ratios_of_recorded_runs(self):
        fp32 = self.rows[0]
        self.assertEqual((fp32["row"], fp32["precision"], list(fp32["variants"])),
                         ("lstm-2x512", "fp32", ["ours", "pytorch", "pytorch-kept-memory"]))
        ours, theirs = fp32["variants"]["ours"], fp32["variants"]["pytorch"]
        self.assertEqual((ours["median"], ours["least"], ours["most"], ours["rounds"]), (937.0, 930.0, 949.0, 3))
        self.assertAlmostEqual(ours["share_of_peak"], 205.0 / 220.0)
        self.assertEqual((ours["times_ours"], theirs["median"]), (1.0, 1404.0))
        self.assertAlmostEqual(theirs["times_ours"], 1404.0 / 937.0)
        self.assertNotIn("share_of_peak", theirs)

    def test_a_precision_is_compared_with_ours_of_the_same_precision_alone(self):
        bf16 = self.rows[1]["variants"]
        self.assertIn("not_here", bf16["ours"])
        self.assertNotIn("times_ours", bf16["pytorch"])

    def test_the_tables(self):
        wide = summary.wide_table(self.rows).splitlines()
        self.assertEqual(wide[2], "| lstm-2x512 | fp32 | ms/step | 937.0 (930.0 - 949.0) | 93% | "
                                  "1,404 (1,373 - 1,417) | 1.50 | 1,159 (1,157 - 1,165) | 1.24 |")
        self.assertEqual(wide[3],
                         "| lstm-2x512 | bf16 | ms/step | not on this machine |  | 710.0 (710.0 - 710.0) |  |  |  |")
        self.assertEqual({line.count("|") for line in wide}, {wide[0].count("|")})
        self.assertIn("| fp32 | PyTorch as installed | 1404.0 | 1373.0 - 1417.0 | 7,123 | 1.50 |",
                      summary.long_table(self.rows))
        self.assertEqual(summary.reasons(RECORDED), ["the cpu backend computes in fp32 only"])


    def test_other_programs_are_told_of_where_they_took_much_of_the_cores(self):
        def records(*shares):
            return [{"elsewhere": share} for share in shares] + [{"not_here": "fp32 only"}]
        self.assertEqual(summary.busy_note(records(0.01, 0.1, 0.02)), "")
        self.assertEqual(summary.busy_note(records()), "")
        self.assertIn("took 20% of the cores in the median run, 45% in the worst", summary.busy_note(
            records(0.45, 0.02, 0.2)))


class Rows(unittest.TestCase):
    def test_the_headline_costs_what_the_documents_say(self):
        row = rows.ROWS[0]
        self.assertAlmostEqual(6 * row.batch * row.sequence * row.multiplies() / 1e9, 191.8, delta=0.05)

    def test_long_steps_are_timed_less_often(self):
        by_name = {row.name: row for row in rows.ROWS}
        self.assertEqual(len(by_name), len(rows.ROWS))
        self.assertEqual(by_name["lstm-3x512"].steps(220.0, quick=False), rows.FEWEST)
        self.assertEqual(by_name["lstm-1x64"].steps(220.0, quick=False), rows.MOST)
        self.assertEqual(by_name["lstm-3x512"].steps(220.0, quick=True), 1)

    def test_both_sides_are_given_the_same_shape(self):
        options = argparse.Namespace(config="a.yaml", threads=2, device="cpu", implementation="auto", warm_up=None)
        row = rows.Row("r", "step", "rnn_relu", 3, 37, 11, 5, 7, 0.25)
        ours = " ".join(rows.ours(row, options, 4))
        for part in ("--what step", "model.cell=rnn ", "model.nonlinearity=relu", "model.layers=3", "model.hidden=37",
                     "--vocabulary 11", "train.batch=5", "train.sequence=7", "model.dropout=0.25", "--steps 4"):
            self.assertIn(part, ours)
        script, arguments = rows.theirs(row, options, 4)
        self.assertEqual(script, "pytorch_step.py")
        for part in ("--cell rnn_relu", "--layers 3", "--hidden 37", "--vocabulary 11", "--batch 5", "--sequence 7",
                     "--dropout 0.25", "--steps 4"):
            self.assertIn(part, " ".join(arguments))


class Commands(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name, text in (("program", FAKE_PROGRAM), ("python", FAKE_PYTHON)):
            file = self.folder / name
            file.write_text(text)
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def run_tool(self, tool, *arguments, role="", output="all.json"):
        command = [sys.executable, BENCH / tool, "--program", self.folder / "program", "--python",
                   self.folder / "python", "--output", self.folder / output, *arguments]
        return subprocess.run(command, text=True, capture_output=True, check=False,
                              env={"PATH": "/usr/bin:/bin", "FAKE_TORCH": role})

    def result(self):
        return json.loads((self.folder / "all.json").read_text())

    def test_all_measures_each_row_in_turns(self):
        done = self.run_tool("all", "--rounds", "2", "--only", "gru-1x64", "sample-3x512")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| gru-1x64 | fp32 | ms/step | 10.0 (10.0 - 10.0) | 25% | 30.0 (30.0 - 30.0) | 3.00 | "
                      "20.0 (20.0 - 20.0) | 2.00 |", done.stdout)
        self.assertIn("| sample-3x512 | bf16 | us/char | not on this machine |", done.stdout)
        self.assertIn("Not on this machine: fp32 only.", done.stdout)
        result = self.result()
        self.assertEqual((result["schema"], result["finished"], result["torch"], result["program"]),
                         (1, True, "9.15", "charrnn-gpu 9.9"))
        for key in ("cpu", "cores", "flags", "load_average"):
            self.assertIn(key, result["machine"])
        order = [(r["round"], r["variant"]) for r in result["runs"] if (r["row"], r["asked_precision"]) ==
                 ("gru-1x64", "fp32")]
        self.assertTrue(all(0 <= r["elsewhere"] for r in result["runs"] if "run" in r))
        self.assertEqual(order, [(1, "ours"), (1, "pytorch"), (1, "pytorch-kept-memory"), (2, "pytorch-kept-memory"),
                                 (2, "pytorch"), (2, "ours")])
        self.assertEqual([r["not_here"] for r in result["runs"] if "not_here" in r], ["fp32 only"] * 2)   # tried once

    def test_pytorch_keeps_the_setting_that_it_chose_in_its_first_run(self):
        self.assertEqual(self.run_tool("all", "--rounds", "2", "--only", "sample-3x512").returncode, 0)
        first, second = [r for r in self.result()["runs"]
                         if (r["variant"], r["asked_precision"]) == ("pytorch", "fp32")]
        self.assertNotIn("--setting", first["run"]["asked"])
        # Where other programs were busy the choice says little, and the next run chooses again.
        self.assertEqual("--setting" in second["run"]["asked"], first["elsewhere"] <= summary.BUSY)
        self.assertEqual(self.run_tool("all", "--quick", "--only", "sample-3x512").returncode, 0)
        kept = [r["run"]["asked"] for r in self.result()["runs"] if r["variant"] == "pytorch-kept-memory"]
        self.assertIn("linear,native,2", kept[0])

    def test_a_pytorch_that_exits_with_4_is_not_on_this_machine(self):
        done = self.run_tool("all", "--only", "gru-1x64", "--rounds", "1", role="4")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| gru-1x64 | fp32 | ms/step | 10.0 (10.0 - 10.0) | 25% | not on this machine |  |", done.stdout)

    def test_a_pytorch_that_fails_ends_it_and_says_where(self):
        for role, variant in (("1", "pytorch"), ("kept fails", "pytorch-kept-memory")):
            done = self.run_tool("all", "--only", "gru-1x64", role=role)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn(f"gru-1x64, {variant}, fp32: exit code 1: Traceback | error: no such rival", done.stderr)
            self.assertFalse(self.result()["finished"])   # what was measured until then
        done = self.run_tool("all", "--only", "gru-1x64", role="dies")
        self.assertEqual(done.returncode, 1)
        self.assertIn("has ended with exit code 7", done.stderr)

    def test_compare_prints_its_table_and_keeps_the_runs(self):
        done = self.run_tool("compare", "--rounds", "2", "--steps", "3", "--cell", "gru", output="runs.jsonl")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| fp32 | charrnn-gpu | 10.0 | 10.0 - 10.0 | 5,000 | 1.00 |", done.stdout)
        self.assertIn("| bf16 | charrnn-gpu | not on this machine |  |  |  |", done.stdout)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1])["torch"], "9.15")
        runs = [json.loads(line) for line in (self.folder / "runs.jsonl").read_text().splitlines()]
        self.assertEqual(len(runs), 11)   # 2 rounds of 3 variants and 2 precisions, ours in bf16 but once

    def test_wrong_options_exit_with_2_and_missing_programs_with_1(self):
        unknown = self.run_tool("all", "--only", "lstm-9x9")
        self.assertEqual(unknown.returncode, 2)
        self.assertIn("there is no row lstm-9x9, expected some of lstm-2x512", unknown.stderr)
        self.assertEqual(self.run_tool("compare", "--stepz", "3").returncode, 2)
        (self.folder / "program").unlink()
        missing = self.run_tool("all")
        self.assertEqual(missing.returncode, 1)
        self.assertIn("run tools/build", missing.stderr)
        for tool in ("all", "compare"):
            self.assertIn(f"usage: tools/bench/{tool}", self.run_tool(tool, "--help").stdout)


if __name__ == "__main__":
    unittest.main()
