#!/usr/bin/env bash
# Builds the producer with its CUDA part in a temporary folder and checks it on this machine's GPU.
#   native/hookpoint/cuda/check.sh [--cpu]     one JSON verdict on stdout; 0 pass, 1 fail, 2 no GPU
# Needs g++, cmake and Python with torch, transformers and numpy; nvcc (on the PATH or as NVCC), where it
# is there, compiles the kernels anew. No network, no Node. PYTHON or RING2_PYTHON names another python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-${RING2_PYTHON:-python3}}
if ! "$python" -c 'import numpy, torch, transformers' 2>/dev/null; then
  echo "check: $python cannot import torch, transformers and numpy; name one that can: PYTHON=…" >&2
  echo '{"verdict": "fail", "ran_on_gpu": false, "reason": "no torch, transformers and numpy"}'
  exit 1
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/ring2-cuda-check-XXXXXX")
trap 'rm -rf "$work"' EXIT

nvcc=${NVCC:-$(command -v nvcc || true)}
ptx=$here/kernels.ptx
if [ -n "$nvcc" ] && "$here/generate_ptx.sh" "$nvcc" "$work/kernels.ptx" >&2; then
  ptx=$work/kernels.ptx
else
  echo "check: no nvcc that works; the kernels are the compiled ones of this folder" >&2
fi
cmake -S "$here/../python" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DRING2_CUDA_PTX="$ptx" >&2
cmake --build "$work/build" -j "${JOBS:-2}" --target ring2_python >&2

export RING2_PYTHON_LIBRARY=$work/build/libring2_python.so
export PYTHONPATH=$here:$here/../python${PYTHONPATH:+:$PYTHONPATH}
export TORCHINDUCTOR_CACHE_DIR=$work/inductor
"$python" "$here/check.py" "$@"
