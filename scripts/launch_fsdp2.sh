#!/usr/bin/env bash
# Run a verb (VERB, `unlearn` by default) in sharded processes (NUM_PROCESSES, 2 by default),
# with configuration files and overrides:
#   scripts/launch_fsdp2.sh configs/tofu/eupmu.yaml configs/tofu/models/phi-1.5.yaml --split forget05
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
exec accelerate launch --config_file "$here/../configs/accelerate/fsdp2.yaml" --num_processes "${NUM_PROCESSES:-2}" \
  -m unlearn_hf "${VERB:-unlearn}" --config "$@"
