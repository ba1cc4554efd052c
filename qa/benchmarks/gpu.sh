#!/usr/bin/env bash
# The step table on a CUDA device, within nine minutes, into ${OUT:-results}/gpu.json.
#   qa/benchmarks/gpu.sh             measure
#   qa/benchmarks/gpu.sh --dry-run   the same lines at toy size, on the CPU where there is no GPU
# PYTHON is the interpreter to use; without it the environment of the Makefile, else python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-results}
mkdir -p "$out"
python=${PYTHON:-}
if [ -z "$python" ]; then
    python=python3
    [ -x .venv/bin/python ] && python=.venv/bin/python
fi
# Results are written after each part; the hard end is for a compilation that does not return.
exec timeout --kill-after=5 530 "$python" -m qa.benchmarks.gpu --output "$out/gpu.json" "$@"
