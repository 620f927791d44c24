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
"$bin/python" - <<'END'
import sys

import unlearn_hf
from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

assert unlearn_hf.__file__.startswith(sys.prefix), unlearn_hf.__file__
settings = DemoSettings()
tokenizer = train_tokenizer(unlearn_hf.load_tofu("forget10", "mini")["full"]["answer"][:], settings.vocabulary)
tokenizer.save_pretrained("model")
new_model(tokenizer, settings).save_pretrained("model")
END
"$bin/unlearn-hf" list
"$bin/unlearn-hf" unlearn --config configs/mini/npo.yaml --model_name_or_path model --retain_results null \
  --max_steps 2 --max_evaluation_rows 4 --use_cpu --disable_tqdm --output_dir runs/npo
grep -q "model-index:" runs/npo/README.md
echo "the wheel works"
