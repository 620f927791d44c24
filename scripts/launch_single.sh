#!/usr/bin/env bash
# Run a verb (VERB, `unlearn` by default) in one process,
# with configuration files and overrides:
#   scripts/launch_single.sh configs/tofu/eupmu.yaml configs/tofu/models/phi-1.5.yaml --split forget05
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
exec accelerate launch --config_file "$here/../configs/accelerate/single.yaml" \
  -m unlearn_hf "${VERB:-unlearn}" --config "$@"
