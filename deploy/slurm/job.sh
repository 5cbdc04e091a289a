#!/usr/bin/env bash
# The batch script of submit.sh and workers.sh, which pass its arguments. Every process of the run is a separate job
# step, so that a dead process is restarted alone.
#
# Slurm sends SIGUSR1 to this script some time before the time limit: learner ranks then finish their step and write a
# checkpoint, workers and coordinator shut down after them, and the job is requeued. `scontrol requeue` and `scancel`
# send SIGTERM to all processes at once, which they handle the same way, in any order. In both cases the next start
# continues with the step after the last one.
set -euo pipefail

run_file="" run_dir="" bin_dir="" ranks=0 workers=0 gpus=0 cpus=1
# submit.sh and workers.sh read and check the options: here they are NAME=VALUE. Slurm runs a copy of this file alone, so that
# it cannot source options.sh.
for argument; do
    printf -v "${argument%%=*}" '%s' "${argument#*=}"
done

# Exit code of a process that shut down before the end of the run.
STOPPED=75
# Maximum number of consecutive deaths within a minute.
MOST_DEATHS=5
# Timeout of a separate workers' job for the preparation of the run.
PREPARED_WITHIN_SECONDS=1800
# Time limit for the shutdown of workers and ranks after the coordinator's.
SHUTDOWN_SECONDS=60

say() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"; }
finished() { [ -e "$run_dir/finished.json" ]; }

# Steps do not inherit the job's own request: each sets its resources.
unset SLURM_GPUS_PER_NODE SLURM_NTASKS_PER_NODE SLURM_CPUS_PER_TASK SLURM_NTASKS SLURM_NPROCS

stopping="" hopeless=""
# Terminates the stages before GRPO, which do not handle SIGUSR1.
prepare=""
trap 'stopping=${stopping:-early}; [ -z "$prepare" ] || kill -TERM "$prepare" 2>/dev/null || true' USR1
trap 'stopping=now' TERM
# From `keep`: a required step failed permanently.
trap 'hopeless=yes' USR2

# Waits until process $1 has ended, despite signals, and returns its exit code.
await() {
    local code
    while :; do
        code=0
        wait "$1" || code=$?
        if ! kill -0 "$1" 2>/dev/null; then
            # A signal may have arrived just before the end: the second wait returns the exit code.
            [ "$code" -le 128 ] || { code=0; wait "$1" 2>/dev/null || code=$?; }
            return "$code"
        fi
    done
}

# Runs step $1 on the job's node $2 (from 0), and restarts it when it dies. $3: options of srun, separated by spaces.
# Then the command. SIGUSR1 is forwarded to the command. Slurm itself sends SIGTERM to it.
keep() {
    local name=$1 node=$2 code deaths=0 began child=""
    local -a options
    read -ra options <<<"$3"
    shift 3
    trap 'stopping=${stopping:-early}; [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null' USR1
    trap 'stopping=now' TERM
    while [ -z "$stopping" ]; do
        began=$SECONDS
        srun --nodes=1 --ntasks=1 --relative="$node" --mem=0 --job-name="$name" --kill-on-bad-exit=0 \
            --output="$run_dir/logs/$name.log" --open-mode=append --input=none "${options[@]}" "$@" &
        child=$!
        [ -z "$stopping" ] || kill -USR1 "$child" 2>/dev/null || true
        code=0
        await "$child" || code=$?
        child=""
        if [ "$code" -eq 0 ] || [ "$code" -eq "$STOPPED" ] || [ -n "$stopping" ] || finished; then
            say "$name exited ($code)"
            return "$code"
        fi
        [ $((SECONDS - began)) -lt 60 ] || deaths=0
        deaths=$((deaths + 1))
        if [ "$deaths" -ge "$MOST_DEATHS" ]; then
            say "$name died $deaths times in a row ($code) and is not restarted; its log is $run_dir/logs/$name.log"
            [[ $name == worker-* ]] || kill -USR2 $$
            return "$code"
        fi
        say "$name died ($code) and is restarted; its log is $run_dir/logs/$name.log"
        sleep "$deaths" &
        await $! || true
    done
    return "$STOPPED"
}

# Prints the node of the $1th process (from 0): nodes with GPUs are filled in turn, others round robin.
node_of() {
    if [ "$gpus" -gt 0 ]; then echo $(($1 / gpus)); else echo $(($1 % SLURM_JOB_NUM_NODES)); fi
}

# Prints the device of the $1th process (from 0). Not SLURM_LOCALID, which is 0 in every step: each process is a step.
device_of() {
    if [ "$gpus" -gt 0 ]; then echo "cuda:$(($1 % gpus))"; else echo cpu; fi
}

# Waits for the processes $2…, at most $1 seconds; succeeds if they have ended.
gone_within() {
    local until=$((SECONDS + $1)) process
    shift
    for process in "$@"; do
        while kill -0 "$process" 2>/dev/null; do
            [ "$SECONDS" -lt "$until" ] || return 1
            sleep 0.2
        done
    done
}

# Forwards SIGUSR1 to the processes and waits until they have shut down. Slurm kills the rest.
stop() {
    [ $# -gt 0 ] || return 0
    kill -USR1 "$@" 2>/dev/null || true
    local process
    for process in "$@"; do
        await "$process" || true
    done
}

own_step="--exact --cpus-per-task=$cpus" shared_step="--overlap" whole_node="--overlap"
if [ "$gpus" -gt 0 ]; then
    # Each step sees all GPUs of its node, so that NCCL can connect peers over NVLink, and computes on the one that
    # --device names. Steps that share GPUs also share cores, which therefore are not bound.
    whole_node+=" --gpus-per-node=$gpus --gpu-bind=none"
    own_step="$whole_node --cpu-bind=none"
    shared_step+=" --gres=none"
    # Variables of the caller take precedence. PCI order: an index names the same GPU for CUDA and nvidia-smi.
    export CUDA_DEVICE_ORDER=${CUDA_DEVICE_ORDER-PCI_BUS_ID}
    export CUBLAS_WORKSPACE_CONFIG=${CUBLAS_WORKSPACE_CONFIG-:4096:8}
    [ -n "${PYTORCH_CUDA_ALLOC_CONF+set}" ] || export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF-expandable_segments:True}
fi
learners=() samplers=() coordinator=""
mkdir -p "$run_dir/logs"

if [ "$ranks" -gt 0 ]; then
    say "job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}: nodes $SLURM_JOB_NODELIST"
    # Stages before GRPO in the run file belong to the preparation and may require GPUs.
    # shellcheck disable=SC2086 # several options
    srun $whole_node --nodes=1 --ntasks=1 --mem=0 --job-name=prepare --input=none \
        "$bin_dir/podium" train "$run_file" --out "$run_dir" --prepare-only &
    prepare=$! code=0
    await "$prepare" || code=$?
    if [ "$stopping" = early ] && [ "$code" -ne 0 ]; then
        say "the time limit is near in the stages before GRPO: the job is requeued, and the stage restarts"
        scontrol requeue "$SLURM_JOB_ID" || say "the job could not be requeued: to continue, run submit.sh with the same --run-dir"
        exit "$STOPPED"
    fi
    [ "$code" -eq 0 ] || exit "$code"
    prepare=""
    if finished; then
        say "the run is finished"
        exit 0
    fi
    keep coordinator 0 "$shared_step" "$bin_dir/podium-coordinator" --run-file "$run_dir/run.toml" --out "$run_dir" \
        --listen 0.0.0.0:0 --metrics-listen "${PODIUM_METRICS_LISTEN:-0.0.0.0:0}" &
    coordinator=$!
else
    until=$((SECONDS + PREPARED_WITHIN_SECONDS))
    while [ ! -e "$run_dir/run.toml" ]; do
        [ -z "$stopping" ] || exit 0
        if [ "$SECONDS" -ge "$until" ]; then
            say "$run_dir/run.toml did not appear within $PREPARED_WITHIN_SECONDS s: check that the run's main job is running"
            exit 1
        fi
        sleep 1
    done
fi
process=0
for ((rank = 0; rank < ranks; rank++)); do
    keep "learner-$rank" "$(node_of "$process")" "$own_step" "$bin_dir/podium-learner" train \
        --run-file "$run_dir/run.toml" --coordinator-from "$run_dir" --state "$run_dir/learner" \
        --rank "$rank" --world-size "$ranks" --device "$(device_of "$process")" --collective-listen 0.0.0.0:0 --metrics-listen 0.0.0.0:0 &
    learners+=($!)
    process=$((process + 1))
done
for ((worker = 1; worker <= workers; worker++)); do
    name=worker-$SLURM_JOB_ID-$worker
    keep "$name" "$(node_of "$process")" "$own_step" "$bin_dir/podium-rollout-worker" \
        --run-file "$run_dir/run.toml" --coordinator-from "$run_dir" --metrics-listen 0.0.0.0:0 \
        --device "$(device_of "$process")" --cache "${PODIUM_SCRATCH:-$run_dir/cache}/$name" &
    samplers+=($!)
    process=$((process + 1))
done

# Succeeds if there is nothing left to wait for: the coordinator has exited or, without one, every worker has.
over() {
    [ -z "$hopeless" ] || return 0
    local one
    for one in ${coordinator:-"${samplers[@]}"}; do
        ! kill -0 "$one" 2>/dev/null || return 1
    done
}
while [ -z "$stopping" ] && ! over; do
    sleep 1 &
    await $! || true
done

if [ -z "$stopping" ] && finished; then
    # The coordinator notifies them of the end.
    gone_within "$SHUTDOWN_SECONDS" "${learners[@]}" "${samplers[@]}" $coordinator || true
fi
stop "${learners[@]}"
stop "${samplers[@]}"
# shellcheck disable=SC2086 # it may be empty
stop $coordinator
[ "$ranks" -gt 0 ] || exit 0
if finished; then
    say "the run is finished: $run_dir"
    exit 0
fi
case $stopping in
    early)
        say "the time limit is near: the run is checkpointed and requeued"
        scontrol requeue "$SLURM_JOB_ID" || say "the job could not be requeued: to continue, run submit.sh with the same --run-dir"
        ;;
    now) say "stopped: to continue the run, run submit.sh with the same --run-dir, or requeue the job" ;;
    *)
        say "the run cannot continue; see the logs in $run_dir/logs"
        exit 1
        ;;
esac
exit "$STOPPED"
