# What the scripts of this folder share. Sourced, not run.
# shellcheck shell=bash

# The repository, wherever a script is called from. Exported, since the scripts that source this are its users.
export root
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tool=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
tool=${tool#"$root/"}

say() { printf '%s: %s\n' "$tool" "$*" >&2; }

# fail CODE SENTENCE...
fail() {
  local code=$1
  shift
  say "$@"
  exit "$code"
}

# help: prints the comment at the head of the script, without the marks.
help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# quietly LOG COMMAND...: runs COMMAND with its output in LOG, which is shown when the command fails. With
# CHARRNN_VERBOSE=1 the output is shown as it comes.
quietly() {
  local log=$1 code=0
  shift
  mkdir -p "$(dirname "$log")"
  if [[ ${CHARRNN_VERBOSE:-0} == 1 ]]; then
    "$@" >&2
    return
  fi
  "$@" >"$log" 2>&1 || code=$?
  if ((code != 0)); then
    # Of a compiler's output from the first failure on, of other output the end.
    { grep -m 1 -A 150 '^FAILED: ' "$log" || tail -n 150 "$log"; } >&2
    say "failed with exit code $code: $*"
    say "the whole output is in $log"
  fi
  return "$code"
}
