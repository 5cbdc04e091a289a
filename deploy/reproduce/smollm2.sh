#!/usr/bin/env bash
# SmolLM2-135M-Instruct on MovieLens-100K, from raw files to an evaluated policy: import, baselines, rows of fine-tuning,
# fine-tuning with an adapter, GRPO, evaluation. Finished parts are skipped, and an interrupted part continues from its last
# checkpoint: run the same command again.
#
#   deploy/reproduce/smollm2.sh FOLDER-WITH-u.data-AND-u.item MODEL-FOLDER [first-look]
#
# `first-look` has few steps and few users.
set -euo pipefail

usage() {
    echo "usage: $0 FOLDER MODEL [first-look]: expected the folder of MovieLens-100K, with u.data and u.item in it, and the" \
        "folder of SmolLM2-135M-Instruct or another model in Hugging Face layout" >&2
    exit 2
}
if [ $# -lt 2 ] || [ ! -f "$1/u.data" ] || [ ! -f "$1/u.item" ] || [ ! -f "$2/config.json" ]; then usage; fi
raw=$(realpath "$1") model=$(realpath "$2") length=${3:-whole}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs=${CARGO_TARGET_DIR:-target}/release
run_file=deploy/configs/smollm2.toml
data=data/movielens-100k
case $length in
    whole) out=runs/smollm2-whole steps=60 users=0 more=() ;;
    first-look)
        out=runs/smollm2-first-look steps=12 users=60
        more=(--set "run.steps=$steps" --set sft.steps=40 --set evaluation.every_steps=0 --set evaluation.users=60) ;;
    *) usage ;;
esac
dtype=float32
if grep -q amx_bf16 /proc/cpuinfo; then dtype=bfloat16; fi
settings=(--set "model.path=\"$model\"" --set "model.dtype=\"$dtype\"" "${more[@]}")

# Prints the next part and the elapsed time.
part() { printf '\n=== %s (%d s so far)\n' "$1" "$SECONDS"; }

part "Import"
if [ -f "$data/stats.json" ]; then
    if ! grep -q '"same_time_order": "random"' "$data/stats.json"; then
        echo "$data was imported with another order of interactions at the same time than \`random\`: move it away, then" \
            "run this script again" >&2
        exit 1
    fi
    echo "skipped: already imported to $data"
else
    "$programs/podium-curator" import movielens --ratings "$raw/u.data" --items "$raw/u.item" --out "$data"
fi

part "Trained baselines"
"$programs/podium-curator" baselines --data "$data" --train "$data/baselines" --models sasrec,ease --epochs 24 --negatives 9 --draws 5

part "Rows of fine-tuning"
if [ -f "$data/smollm2_rows.jsonl" ]; then
    echo "skipped: $data/smollm2_rows.jsonl exists"
else
    "$programs/podium-curator" mix --run-file "$run_file" "${settings[@]}" --share 0 --epochs 4 --out "$data/smollm2_mixed.jsonl"
    python3 deploy/reproduce/movielens_rows.py --rows "$data/smollm2_mixed.jsonl" --items "$raw/u.item" \
        --count 3000 --share 0.5 --out "$data/smollm2_rows.jsonl"
fi

part "Fine-tuning and GRPO, in $dtype"
"$programs/podium" train "$run_file" "${settings[@]}" --out "$out"

part "Evaluation of the policies before and after GRPO on test"
"$programs/podium" evaluate "$run_file" "${settings[@]}" --set "evaluation.users=$users" --policy "$out/policy/$steps" \
    --against "$out/stages/merged" --baselines "$data/baselines" --negatives 9 --draws 1 --out "$out-evaluation"

part "Done"
