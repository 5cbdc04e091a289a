#!/usr/bin/env bash
# Submits additional rollout workers of a run as a separate Slurm job, which can be submitted and cancelled (scancel)
# at any time and any number of times. The number of workers changes the speed of the run and, in synchronous mode,
# nothing else.
#
#   workers.sh --run-dir D --workers W [--nodes N] [--gpus-per-node G] [--time T] [--cpus-per-process C] [--bin-dir B]
#              [-- options of sbatch]
#
#   --run-dir D           the run folder, visible to all nodes under this path
#   --workers W           rollout workers in this job
#   --nodes N             nodes of the job, default 1
#   --gpus-per-node G     GPUs of each node, default 0; each worker uses one, whatever
#                         device the run file names
#   --time T              time limit in sbatch's format
#   --cpus-per-process C  cores of each worker, default 1
#   --bin-dir B           folder of the services, default target/release of this repository
#
# Prints the job's id.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/slurm/options.sh
. "$here/options.sh"

run_dir="" workers="" nodes=1 gpus=0 time="" cpus=1
bin_dir=$here/../../target/release
read_options "--run-dir run_dir
--workers workers
--nodes nodes
--gpus-per-node gpus
--time time
--cpus-per-process cpus
--bin-dir bin_dir" "$@"

[ -n "$run_dir" ] || fail "--run-dir is missing"
[ -d "$run_dir" ] || fail "--run-dir is $run_dir: expected an existing folder; submit.sh creates it"
require_number --workers "$workers" 1
require_number --nodes "$nodes" 1
require_number --gpus-per-node "$gpus" 0
require_number --cpus-per-process "$cpus" 1
[ "$gpus" -eq 0 ] || [ "$workers" -le $((nodes * gpus)) ] ||
    fail "$workers workers require a GPU each: $nodes nodes of $gpus GPUs have $((nodes * gpus))"
require_programs "$bin_dir" podium-rollout-worker
require_command sbatch

run_dir=$(absolute "$run_dir")
mkdir -p "$run_dir/logs"
options=(
    --parsable --job-name="podium-workers-$(basename "$run_dir")" --requeue --open-mode=append
    --output="$run_dir/logs/slurm-%j.log"
)
resources "$nodes" "$gpus" "$workers" "$cpus"
[ -z "$time" ] || options+=(--time="$time")
job=$(sbatch "${options[@]}" "${sbatch_options[@]}" "$here/job.sh" \
    run_dir="$run_dir" bin_dir="$(absolute "$bin_dir")" \
    workers="$workers" gpus="$gpus" cpus="$cpus")
say "job ${job%%;*}: $workers workers on $nodes nodes; logs in $run_dir/logs"
printf '%s\n' "${job%%;*}"
