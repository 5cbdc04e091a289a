#!/usr/bin/env bash
# Stands for every program of a run: records its arguments and environment in seen/NODE-PID of the run folder, under its
# own name. The coordinator ends the run when all processes of PODIUM_TEST_PROCESSES run at the same time.
set -euo pipefail

name=$(basename "$0")
[ "$1" != check-config ] || exit 0
# The run folder is the value of --out or --coordinator-from.
run_dir=""
previous=""
for argument; do
    case $previous in --out | --coordinator-from) run_dir=$argument ;; esac
    previous=$argument
done
mkdir -p "$run_dir/seen"
record=$run_dir/seen/$SLURMD_NODENAME-$$
{
    printf 'PROGRAM=%s\nARGUMENTS=%s\n' "$name" "$*"
    env
} >"$record.part"
mv "$record.part" "$record.$name"
# Processes that wait for the end of the run.
finished() { [ -e "$run_dir/finished.json" ]; }
case $name in
    podium) touch "$run_dir/run.toml" ;;
    podium-coordinator)
        until [ "$(find "$run_dir/seen" -name '*.podium-learner' -o -name '*.podium-rollout-worker' | wc -l)" -ge \
            "$PODIUM_TEST_PROCESSES" ]; do
            sleep 0.1
        done
        touch "$run_dir/finished.json"
        ;;
    *) until finished; do sleep 0.1; done ;;
esac
