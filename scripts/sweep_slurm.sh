#!/usr/bin/env bash
# Workers on one study, as a SLURM array: each task runs trials until the budget of the study is spent.
#   sbatch --array=1-8 --gres=gpu:1 --time=12:00:00 scripts/sweep_slurm.sh --config configs/tofu/eupmu.yaml \
#     --space learning_rate=1e-6:1e-4:log epsilon=0,0.02 --trials 64 --output_dir runs/sweep
# The study is a file in output_dir, which must lie where all machines see it, or a database (--study URL). A task that
# is killed or runs out of time loses its trial only, and another task repeats it. The task that ends last writes the
# report; the same words after `bash scripts/sweep_slurm.sh` do so again, and run what is left, without SLURM.
#SBATCH --job-name=unlearn-sweep
#SBATCH --output=sweep-%A_%a.log
#SBATCH --requeue
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "error: no options; give those of unlearn-hf sweep" >&2
  exit 2
fi
# `exec`, so that SLURM's SIGTERM before the end of the time reaches the worker, which gives its trial back.
exec "${PYTHON:-python3}" -m unlearn_hf sweep "$@"
