#!/usr/bin/env bash
# Submits a run as one Slurm job with coordinator, learner ranks and rollout workers as job steps.
#
#   submit.sh --run-file F --nodes N --gpus-per-node G --workers W --ranks R [--run-dir D] [--time T]
#             [--cpus-per-process C] [--warn-seconds S] [--bin-dir B] [-- options of sbatch]
#
#   --run-file F          the run file
#   --nodes N             nodes of the job
#   --gpus-per-node G     GPUs of each node; 0 for a run on CPUs. Each rank and worker uses one, whatever
#                         device the run file names
#   --workers W           rollout workers in this job; workers.sh adds more at any time
#   --ranks R             learner ranks
#   --run-dir D           the run folder, visible to all nodes under this path; default: runs/NAME, NAME from F
#   --time T              time limit in sbatch's format. Before it the run is checkpointed and the job requeued
#   --cpus-per-process C  cores of each rank and worker, default 1
#   --warn-seconds S      time of the shutdown before the time limit, default 180; must exceed the time of a step
#   --bin-dir B           folder of podium and the services, default target/release of this repository
#
# The same command with the same --run-dir continues a run. Prints the job's id.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/slurm/options.sh
. "$here/options.sh"

run_file="" nodes="" gpus="" workers="" ranks="" run_dir="" time="" cpus=1 warn=180
bin_dir=$here/../../target/release
read_options "--run-file run_file
--nodes nodes
--gpus-per-node gpus
--workers workers
--ranks ranks
--run-dir run_dir
--time time
--cpus-per-process cpus
--warn-seconds warn
--bin-dir bin_dir" "$@"

[ -n "$run_file" ] || fail "--run-file is missing"
[ -f "$run_file" ] || fail "--run-file is $run_file: expected an existing file"
require_number --nodes "$nodes" 1
require_number --gpus-per-node "$gpus" 0
require_number --workers "$workers" 0
require_number --ranks "$ranks" 1
require_number --cpus-per-process "$cpus" 1
require_number --warn-seconds "$warn" 1
[ "$gpus" -eq 0 ] || [ $((ranks + workers)) -le $((nodes * gpus)) ] ||
    fail "$ranks ranks and $workers workers require a GPU each: $nodes nodes of $gpus GPUs have $((nodes * gpus))"
require_programs "$bin_dir" podium podium-coordinator podium-learner podium-rollout-worker
require_command sbatch
"$bin_dir/podium" check-config "$run_file" >&2

name=$(basename "$run_file" .toml)
run_dir=$(absolute "${run_dir:-runs/$name}")
mkdir -p "$run_dir/logs"

options=(
    --parsable --job-name="podium-$name" --requeue --open-mode=append --signal="B:USR1@$warn"
    --output="$run_dir/logs/slurm-%j.log"
)
resources "$nodes" "$gpus" $((ranks + workers)) "$cpus"
[ -z "$time" ] || options+=(--time="$time")
job=$(sbatch "${options[@]}" "${sbatch_options[@]}" "$here/job.sh" \
    run_file="$(absolute "$run_file")" run_dir="$run_dir" bin_dir="$(absolute "$bin_dir")" \
    ranks="$ranks" workers="$workers" gpus="$gpus" cpus="$cpus")
say "job ${job%%;*}: $ranks ranks and $workers workers on $nodes nodes; logs in $run_dir/logs"
printf '%s\n' "${job%%;*}"
