#!/usr/bin/env bash
# A real model on real TOFU: SmolLM2-135M-Instruct memorises forget01 and a slice of the retain set (the target), and the
# slice alone (the retain-only model); four methods unlearn forget01 from the target, as a whole and with an adapter;
# every model is judged on the real evaluation files; a table ends it.
#
#   scripts/tofu_smollm2.sh                                         # from the Hub
#   MODEL=models/SmolLM2-135M-Instruct TOFU=data/tofu scripts/tofu_smollm2.sh      # from folders, without a network
#   RETAIN_ROWS=3960 EVALUATION_ROWS=400 SINGLE=configs/accelerate/single.yaml scripts/tofu_smollm2.sh   # all of it: a GPU
#
# Finished runs are kept: when the script is started again, it goes on with what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
TOFU="${TOFU:-hub}"                        # hub, or a folder of the official files
RUNS="${RUNS:-runs/tofu_smollm2}"
RETAIN_ROWS="${RETAIN_ROWS:-40}"           # of 3960 rows to keep
EVALUATION_ROWS="${EVALUATION_ROWS:-20}"   # of each evaluation set; forget01 has 40
EPOCHS="${EPOCHS:-6}"
UNLEARNING_EPOCHS="${UNLEARNING_EPOCHS:-2}"
SINGLE="${SINGLE:-configs/accelerate/single.yaml}"
VARIANTS="${VARIANTS:-full lora}"           # the whole model, an adapter
SPLIT="${SPLIT:-forget01}"
UNLEARNING_METHODS="${UNLEARNING_METHODS:-graddiff npo ngdiff eupmu}"

run() { # run NAME VERB ARGUMENTS...
  local name="$1" verb="$2"
  shift 2
  if [ -f "$RUNS/$name/evaluation.json" ]; then
    echo "$name: finished before"
    return
  fi
  rm -rf "${RUNS:?}/$name"
  echo "== $name"
  accelerate launch --config_file "$SINGLE" -m unlearn_hf "$verb" --output_dir "$RUNS/$name" \
    --benchmark tofu --split "$SPLIT" --source "$TOFU" --max_retain_rows "$RETAIN_ROWS" \
    --max_evaluation_rows "$EVALUATION_ROWS" --max_new_tokens 40 --evaluation_batch_size 40 \
    --per_device_train_batch_size 4 --lr_scheduler_type constant_with_warmup --warmup_steps 5 \
    --save_strategy no --seed 42 "$@"
}

run target finetune --model_name_or_path "$MODEL" --subset full --num_train_epochs "$EPOCHS" --learning_rate 1e-4
run retain_only finetune --model_name_or_path "$MODEL" --subset retain --num_train_epochs "$EPOCHS" --learning_rate 1e-4

unlearn() { # unlearn METHOD RATE RATE_WITH_ADAPTER ARGUMENTS...
  local method="$1" rate="$2" adapter_rate="$3"
  shift 3
  [[ " $UNLEARNING_METHODS " == *" $method "* ]] || return 0
  for variant in $VARIANTS; do
    local options=(--learning_rate "$rate")
    [ "$variant" = full ] || options=(--use_lora true --lora_r 16 --learning_rate "$adapter_rate")
    run "${method}_$variant" unlearn --method "$method" --model_name_or_path "$RUNS/target" \
      --retain_results "$RUNS/retain_only/evaluation.json" --reference_cache "$RUNS/reference" \
      --num_train_epochs "$UNLEARNING_EPOCHS" "${options[@]}" "$@"
  done
}
unlearn graddiff 2e-5 2e-4
unlearn npo 5e-5 5e-4
unlearn ngdiff 5e-5 5e-4
unlearn eupmu 5e-5 5e-4

finished=()
for name in target retain_only {graddiff,npo,ngdiff,eupmu}_{full,lora}; do
  [ ! -f "$RUNS/$name/evaluation.json" ] || finished+=("$RUNS/$name")
done
python scripts/summarize_runs.py --reference "$RUNS/retain_only" --output_file "$RUNS/table.md" "${finished[@]}"
