#!/usr/bin/env bash
# MovieLens-100K from its raw files to an evaluated policy, on two cores: import, baselines, fine-tuning, GRPO,
# evaluation. Finished parts are skipped. docs/design/reproducing.md has the results.
#
#   deploy/reproduce/movielens-100k.sh FOLDER-WITH-u.data-AND-u.item
#
# Interactions of one user at the same time are in random order, the importer's default. A data folder that an earlier
# version imported in the order of item numbers is refused, since its metrics are not comparable.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ $# -ne 1 ] || [ ! -f "$1/u.data" ] || [ ! -f "$1/u.item" ]; then
    echo "usage: $0 FOLDER: expected the folder of MovieLens-100K, with u.data and u.item in it" >&2
    exit 2
fi
raw=$1
programs=${CARGO_TARGET_DIR:-target}/release
run_file=deploy/configs/movielens-100k.toml
data=data/movielens-100k
policy=data/movielens-100k-policy
out=runs/movielens-100k

# Prints the next part and the elapsed time.
part() { printf '\n=== %s (%d s so far)\n' "$1" "$SECONDS"; }

part "Import"
if [ -f "$data/stats.json" ]; then
    if ! grep -q '"same_time_order": "random"' "$data/stats.json"; then
        echo "$data was imported with another order of interactions at the same time than \`random\`: move it and" \
            "$out away, then run this script again" >&2
        exit 1
    fi
    echo "skipped: already imported to $data"
else
    "$programs/podium-curator" import movielens --ratings "$raw/u.data" --items "$raw/u.item" \
        --same-time random --seed 0 --out "$data"
fi

part "Baselines without a policy"
"$programs/podium-curator" baselines --data "$data" --negatives 9,99 --draws 5 --json "$data/baselines.json"

part "Tokenizer and configuration of the policy"
"$programs/podium-curator" vocabulary --run-file "$run_file" --out "$policy" --hidden-size 64 --layers 2 --heads 2

part "Fine-tuning and GRPO"
"$programs/podium" train "$run_file" --out "$out"

part "Evaluation of the policies before and after GRPO"
"$programs/podium" evaluate "$run_file" --policy "$out/policy/1000" --against "$out/stages/sft" \
    --negatives 9,99 --draws 5 --out runs/movielens-100k-evaluation

part "Done"
