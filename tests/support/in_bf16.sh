#!/usr/bin/env bash
# usage: in_bf16.sh PROGRAM TEST [ARGUMENT...]
#
# Runs tests of the CPU backend in bf16, where charrnn-gpu (PROGRAM) says that this processor has it; else exits 77,
# which CTest shows as skipped.
set -euo pipefail
program=$1
shift
if ! "$program" devices --json | python3 -c '
import json, sys
sys.exit(not any(d["backend"] == "cpu" and "bf16" in d["precisions"] for d in json.load(sys.stdin)["devices"]))'; then
  echo 'skipped: this processor has no bf16'
  exit 77
fi
CHARRNN_TEST_PRECISION=bf16 exec "$@"
