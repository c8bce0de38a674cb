#!/usr/bin/env bash
# All that only a GPU can show, in at most ten minutes: bash benchmarks/gpu.sh [FOLDER of events.parquet of ml-1m]
#
# PYTHON says which Python has peterrec and pytest (default: python). Tables go to stdout, and with all numbers to
# runs/gpu/results.json; what was measured before an interruption is there, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no nvidia-smi here"
"$python" - <<'CODE'
import sys

import torch

print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}")
if not torch.cuda.is_available():
    sys.exit("torch sees no GPU: nothing to measure (`python benchmarks/gpu.py --device cpu --tiny` tries the script)")
CODE

# A test that fails must not keep the tables back; it decides the exit status in the end.
tests=0
timeout 150 "$python" -m pytest -q -n 0 -m gpu tests/test_gpu.py || tests=$?
"$python" benchmarks/gpu.py --seconds 430 ${1:+--data "$1"}
exit "$tests"
