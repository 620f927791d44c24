#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment, and runs it from an empty folder (make test-wheel).
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT

"${PYTHON:-python3}" -m pip wheel --quiet --no-deps --wheel-dir "$place/dist" "$root"
"${PYTHON:-python3}" -m venv "$place/environment"
bin="$place/environment/bin"
"$bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "$place"/dist/*.whl

mkdir "$place/work"
cd "$place/work"
unset PYTHONPATH
export HF_HUB_OFFLINE=1
"$bin/python" -c 'import sys, unlearn_hf; sys.exit(not unlearn_hf.__file__.startswith(sys.prefix))'
"$bin/unlearn-hf" list
"$bin/unlearn-hf" demo
"$bin/unlearn-hf" unlearn --config configs/mini/npo.yaml --max_steps 2 --use_cpu --output_dir runs/npo
grep -q "model-index:" runs/npo/README.md
echo "the wheel works"
