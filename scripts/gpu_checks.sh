#!/usr/bin/env bash
# What can only be seen on a GPU, in parts of at most nine minutes; started again, it goes on with what is missing:
#   scripts/gpu_checks.sh --model_name_or_path SMOLLM2 --tofu_folder TOFU
#   scripts/gpu_checks.sh --device cpu        # every part on tiny shapes; what needs a GPU is named as skipped
set -euo pipefail
exec python "$(dirname "$0")/gpu_checks.py" "$@"
