#!/usr/bin/env python3
"""Runs the pytorch_*.py of this folder, each in a process of its own that is forked from one that has loaded PyTorch.

So a run begins with a fresh heap and a fresh PyTorch, as when a user starts it, but not with two seconds of imports.
Nothing is computed before the fork, so that no thread is lost in it. Reads {"script": NAME, "arguments": [...]},
a line from stdin, answers {"code": exit code, "stdout": TEXT, "stderr": TEXT, "cpu_seconds": X}; the first line is
{"torch": VERSION}.
"""
import json
import os
import pathlib
import runpy
import sys
import tempfile
import traceback

import torch
import torch._dynamo  # noqa: F401  (an optimizer loads it when it is made)

HERE = pathlib.Path(__file__).resolve().parent


def run_here(script, arguments):
    """In the child: the script as the program, its exit code as a shell would see it."""
    sys.argv = [str(HERE / script), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        return 0
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:   # whatever it is, the parent is told
        traceback.print_exc()
        return 1


def run(request):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = run_here(request["script"], request["arguments"])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status, used = os.wait4(child, 0)
        for file in (out, err):
            file.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "stdout": out.read(), "stderr": err.read(),
                "cpu_seconds": used.ru_utime + used.ru_stime}


def main():
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
