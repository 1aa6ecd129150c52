#!/usr/bin/env bash
# Builds the producer with its CUDA part in a temporary folder and checks it on this machine's GPU.
#   native/hookpoint/cuda/check.sh [--cpu]     one JSON verdict on stdout; 0 pass, 1 fail, 2 not run
# Needs g++, cmake and Python with torch, transformers and numpy; nvcc (on the PATH or as NVCC), where it
# is there, compiles the kernels anew. No network, no Node. PYTHON or RING2_PYTHON names another python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-${RING2_PYTHON:-python3}}

not_run() {
  echo "check: not run: $1" >&2
  printf '{"verdict": "not run", "reason": "%s", "ran_on_gpu": false, "checks": []}\n' "$1"
  exit 2
}

for tool in g++ cmake "$python"; do
  command -v "$tool" >/dev/null || not_run "no $tool on the PATH"
done
"$python" -c 'import numpy, torch, transformers' 2>/dev/null ||
  not_run "$python cannot import torch, transformers and numpy; PYTHON= names one that can"
# Asked before anything is built; check.py asks again.
finds_gpu='import sys, torch; sys.exit(not torch.cuda.is_available())'
if [ "${1:-}" != --cpu ] && ! "$python" -c "$finds_gpu" 2>/dev/null; then
  not_run "this PyTorch finds no GPU that it can use"
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
build() {
  cmake -S "$here/../python" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DRING2_CUDA_PTX="$ptx" &&
    cmake --build "$work/build" -j "${JOBS:-2}" --target ring2_python
}
if ! build >"$work/build.log" 2>&1; then
  cat "$work/build.log" >&2
  echo '{"verdict": "fail", "reason": "the producer does not build", "ran_on_gpu": false, "checks": []}'
  exit 1
fi

export RING2_PYTHON_LIBRARY=$work/build/libring2_python.so
export PYTHONPATH=$here:$here/../python${PYTHONPATH:+:$PYTHONPATH}
export TORCHINDUCTOR_CACHE_DIR=$work/inductor
status=0
"$python" "$here/check.py" "$@" >"$work/verdict.json" || status=$?
if [ ! -s "$work/verdict.json" ]; then
  echo "{\"verdict\": \"fail\", \"reason\": \"check.py ended with status $status\", \"ran_on_gpu\": false, \"checks\": []}"
  exit 1
fi
cat "$work/verdict.json"
exit "$status"
