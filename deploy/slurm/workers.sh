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
#   --gpus-per-node G     GPUs of each node, default 0; each worker uses one
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
while [ $# -gt 0 ]; do
    case $1 in
        --run-dir | --workers | --nodes | --gpus-per-node | --time | --cpus-per-process | --bin-dir)
            [ $# -ge 2 ] || fail "$1 has no value"
            case $1 in
                --run-dir) run_dir=$2 ;;
                --workers) workers=$2 ;;
                --nodes) nodes=$2 ;;
                --gpus-per-node) gpus=$2 ;;
                --time) time=$2 ;;
                --cpus-per-process) cpus=$2 ;;
                --bin-dir) bin_dir=$2 ;;
            esac
            shift 2
            ;;
        --)
            shift
            break
            ;;
        -h | --help) usage ;;
        *) fail "unknown option $1; put options of sbatch after --" ;;
    esac
done

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
job=$(sbatch "${options[@]}" "$@" "$here/job.sh" \
    --run-dir "$run_dir" --bin-dir "$(absolute "$bin_dir")" \
    --ranks 0 --workers "$workers" --gpus-per-node "$gpus" --cpus-per-process "$cpus")
say "job ${job%%;*}: $workers workers on $nodes nodes; logs in $run_dir/logs"
printf '%s\n' "${job%%;*}"
