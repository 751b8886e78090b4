#!/bin/sh
# Holds test programs to fresh numbers of PyTorch, from another seed than the committed fixtures'.
#   pytorch_fixtures.sh PYTHON SEED FOLDER TEST...
# Exit status 77, which CTest shows as skipped: PYTHON is missing or has no torch.
set -eu
python=$1 seed=$2 folder=$3
shift 3
tools=$(cd "$(dirname "$0")/../../tools/pytorch" && pwd)

if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "skipped: '$python' cannot import torch; tools/pytorch/setup installs it," \
       "or configure with -DCHARRNN_PYTORCH=a python that has it"
  exit 77
fi
"$python" "$tools/make_fixtures.py" --seed "$seed" --output "$folder"
for test; do
  echo "$test"
  CHARRNN_PYTORCH_FIXTURES=$folder "$test" "[pytorch]"
done
