# What the scripts of this folder share. Sourced, not run; after tools/lib.sh.
# shellcheck shell=bash

# find_program: $program becomes a bundle's (then with its libraries and CUDA's, as tools/gpu-check finds them) or the
# release build's.
find_program() {
  local folders
  # shellcheck disable=SC2154
  program=$root/build/release/charrnn-gpu
  if [[ -x $root/bin/charrnn-gpu ]]; then
    program=$root/bin/charrnn-gpu
    folders=$(python3 -B -c '
import sys
sys.path.insert(0, sys.argv[1])
from common import cuda_folders
print("".join(f":{folder}" for folder in cuda_folders("python3")))' "$root/tools/gpu")
    export LD_LIBRARY_PATH=$root/lib$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
  [[ -x $program ]] || fail 1 "no $program; run tools/build"
  export CHARRNN_CONFIGS=$root/configs
}

# find_tool NAME FOLDER...: $found becomes the tool, from PATH, else from the last of the folders that has it.
find_tool() {
  local name=$1 folder
  shift
  found=$(command -v "$name" || true)
  if [[ -n $found ]]; then return; fi
  for folder; do
    if [[ -x $folder/$name ]]; then found=$folder/$name; fi
  done
  [[ -n $found ]] || fail 3 "$name is not here: it comes with NVIDIA's CUDA toolkit (nsight-systems, nsight-compute)"
}

# set_command STEPS [COMMAND ARGUMENT...]: $command becomes what is profiled.
set_command() {
  local steps=$1
  shift
  if (($# == 0)); then set -- bench --config paul-graham --vocabulary 96 --device cuda --steps "${steps#*-}"; fi
  # Read by the scripts that source this.
  # shellcheck disable=SC2034
  command=("$program" "$@" --profile "steps=$steps")
}
