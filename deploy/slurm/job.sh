#!/usr/bin/env bash
# The batch script of submit.sh and workers.sh, which give its arguments. Every process of the run is a job step of its own,
# so that one that dies is started again alone.
#
# Slurm sends SIGUSR1 some time before the time limit, to this script: learner ranks then finish their step and write a
# checkpoint, workers and coordinator leave after them, and the job goes back into the queue. `scontrol requeue` and `scancel`
# send SIGTERM to everything at once, to which all processes answer the same way, in any order. In either case the next start
# continues with the step after the last one.
set -euo pipefail

run_file="" run_dir="" bin_dir="" ranks=0 workers=0 gpus=0 cpus=1
while [ $# -gt 0 ]; do
    case $1 in
        --run-file) run_file=$2 ;;
        --run-dir) run_dir=$2 ;;
        --bin-dir) bin_dir=$2 ;;
        --ranks) ranks=$2 ;;
        --workers) workers=$2 ;;
        --gpus-per-node) gpus=$2 ;;
        --cpus-per-process) cpus=$2 ;;
        *)
            printf 'job.sh: %s is no argument\n' "$1" >&2
            exit 2
            ;;
    esac
    shift 2
done

# Exit code of a process that was asked to leave before the run was over.
STOPPED=75
# A process that dies so often within a minute is given up.
MOST_DEATHS=5
# How long workers of a job of their own wait for the run to be prepared.
PREPARED_WITHIN_SECONDS=1800
# How long workers and ranks may take to leave once the coordinator has.
FAREWELL_SECONDS=60

say() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"; }
finished() { [ -e "$run_dir/finished.json" ]; }

# What steps inherit of the job's own request: each says itself what it takes.
unset SLURM_GPUS_PER_NODE SLURM_NTASKS_PER_NODE SLURM_CPUS_PER_TASK SLURM_NTASKS SLURM_NPROCS

stopping="" hopeless=""
# Ends the stages before GRPO, while they are made: they know no early warning.
prepare=""
trap 'stopping=${stopping:-early}; [ -z "$prepare" ] || kill -TERM "$prepare" 2>/dev/null || true' USR1
trap 'stopping=now' TERM
# From `keep`: a step without which the run cannot go on was given up.
trap 'hopeless=yes' USR2

# Waits until process $1 has ended, signals or not, and returns its exit code.
await() {
    local code
    while :; do
        code=0
        wait "$1" || code=$?
        if ! kill -0 "$1" 2>/dev/null; then
            # A signal may have come just before the end: the second wait tells how the process ended.
            [ "$code" -le 128 ] || { code=0; wait "$1" 2>/dev/null || code=$?; }
            return "$code"
        fi
    done
}

# Runs step $1 on the job's node $2 (from 0), and again when it dies. $3: options of srun, separated by spaces. Then the command.
# SIGUSR1 reaches the command. SIGTERM does so without this, from Slurm itself.
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
            say "$name left ($code)"
            return "$code"
        fi
        [ $((SECONDS - began)) -lt 60 ] || deaths=0
        deaths=$((deaths + 1))
        if [ "$deaths" -ge "$MOST_DEATHS" ]; then
            say "$name died $deaths times in a row ($code) and is given up; its log is $run_dir/logs/$name.log"
            [[ $name == worker-* ]] || kill -USR2 $$
            return "$code"
        fi
        say "$name died ($code) and is started again; its log is $run_dir/logs/$name.log"
        sleep "$deaths" &
        await $! || true
    done
    return "$STOPPED"
}

# The node of the $1th process (from 0): with GPUs each node is filled in turn, without they are dealt out.
node_of() {
    if [ "$gpus" -gt 0 ]; then echo $(($1 / gpus)); else echo $(($1 % SLURM_JOB_NUM_NODES)); fi
}

# Waits for the processes $2…, at most $1 seconds, and says whether they have ended.
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

# Passes the early warning on to the processes and waits until they have left. Slurm ends what does not.
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
    own_step+=" --gpus-per-task=1"
    shared_step+=" --gres=none"
    whole_node+=" --gpus-per-node=$gpus"
fi
learners=() samplers=() coordinator=""
mkdir -p "$run_dir/logs"

if [ "$ranks" -gt 0 ]; then
    say "job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}: nodes $SLURM_JOB_NODELIST"
    # Stages before GRPO that the run file names are part of it, and may need GPUs.
    # shellcheck disable=SC2086 # several options
    srun $whole_node --nodes=1 --ntasks=1 --mem=0 --job-name=prepare --input=none \
        "$bin_dir/podium" train "$run_file" --out "$run_dir" --prepare-only &
    prepare=$! code=0
    await "$prepare" || code=$?
    if [ "$stopping" = early ] && [ "$code" -ne 0 ]; then
        say "the time is nearly up in the stages before GRPO: the job goes back into the queue, and the stage begins anew"
        scontrol requeue "$SLURM_JOB_ID" || say "it could not be requeued: submit.sh with the same --run-dir continues it"
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
            say "$run_dir/run.toml did not appear within $PREPARED_WITHIN_SECONDS s: is the run's own job running?"
            exit 1
        fi
        sleep 1
    done
fi
process=0
for ((rank = 0; rank < ranks; rank++)); do
    keep "learner-$rank" "$(node_of "$process")" "$own_step" "$bin_dir/podium-learner" train \
        --run-file "$run_dir/run.toml" --coordinator-from "$run_dir" --state "$run_dir/learner" \
        --rank "$rank" --world-size "$ranks" --collective-listen 0.0.0.0:0 --metrics-listen 0.0.0.0:0 &
    learners+=($!)
    process=$((process + 1))
done
for ((worker = 1; worker <= workers; worker++)); do
    name=worker-$SLURM_JOB_ID-$worker
    keep "$name" "$(node_of "$process")" "$own_step" "$bin_dir/podium-rollout-worker" \
        --run-file "$run_dir/run.toml" --coordinator-from "$run_dir" --metrics-listen 0.0.0.0:0 \
        --cache "${PODIUM_SCRATCH:-$run_dir/cache}/$name" &
    samplers+=($!)
    process=$((process + 1))
done

# Whether there is nothing left to wait for: the coordinator has left or, where there is none, every worker has.
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
    # They hear of the end from the coordinator.
    gone_within "$FAREWELL_SECONDS" "${learners[@]}" "${samplers[@]}" $coordinator || true
fi
stop "${learners[@]}"
stop "${samplers[@]}"
# shellcheck disable=SC2086 # it may be none
stop $coordinator
[ "$ranks" -gt 0 ] || exit 0
if finished; then
    say "the run is finished: $run_dir"
    exit 0
fi
case $stopping in
    early)
        say "the time is nearly up: the run is checkpointed and goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID" || say "it could not be requeued: submit.sh with the same --run-dir continues it"
        ;;
    now) say "stopped: submit.sh with the same --run-dir, or a requeue, continues the run" ;;
    *)
        say "the run cannot go on; the logs are in $run_dir/logs"
        exit 1
        ;;
esac
exit "$STOPPED"
