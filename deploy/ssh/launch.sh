#!/usr/bin/env bash
# Starts, stops and shows the processes of a run on bare-metal hosts, over ssh. Hosts need no shared folder.
#
#   launch.sh COMMAND --hosts FILE --run-dir D [--run-file F] [--bin-dir B] [--env NAME=VALUE]… [--dry-run]
#
#   start     prepares the run folder on the coordinator's host, copies its run file and its secret to the others, and
#             starts the processes that do not run. To continue a run or restart dead processes, run the same command again
#   stop      stops learner ranks (which finish their step and write a checkpoint), then workers, then the coordinator
#   status    prints the state of every process and the progress of the run
#   logs      prints the last lines of every log
#
#   --hosts FILE       roles and hosts of the processes; see hosts.example
#   --run-dir D        the run folder on every host: an absolute path
#   --run-file F       the run file on the coordinator's host (for start)
#   --bin-dir B        folder of podium and the services on every host; default /opt/podium/bin
#   --env NAME=VALUE   environment of every process, for example NCCL_SOCKET_IFNAME=eth1; can be repeated. Also replaces
#                      the variables that launch.sh sets for GPUs (CUBLAS_WORKSPACE_CONFIG, PYTORCH_ALLOC_CONF)
#   --dry-run          print the commands without running them
#
# PODIUM_SSH replaces `ssh -o BatchMode=yes`: it is followed by HOST and one command for a POSIX shell.
set -euo pipefail
# No input is expanded as a file name pattern.
set -f

say() { printf 'launch.sh: %s\n' "$*" >&2; }
fail() {
    say "$1"
    exit 2
}

command="" hosts="" run_dir="" run_file="" bin_dir=/opt/podium/bin dry_run=""
environment=()
while [ $# -gt 0 ]; do
    case $1 in
        start | stop | status | logs)
            [ -z "$command" ] || fail "$command and $1: expected one command"
            command=$1
            shift
            ;;
        --dry-run)
            dry_run=yes
            shift
            ;;
        --hosts | --run-dir | --run-file | --bin-dir | --env)
            [ $# -ge 2 ] || fail "$1 has no value"
            case $1 in
                --hosts) hosts=$2 ;;
                --run-dir) run_dir=$2 ;;
                --run-file) run_file=$2 ;;
                --bin-dir) bin_dir=$2 ;;
                --env) environment+=("$2") ;;
            esac
            shift 2
            ;;
        -h | --help)
            sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "$0"
            exit 0
            ;;
        *) fail "$1 is neither a command nor an option; see --help" ;;
    esac
done
[ -n "$command" ] || fail "a command is missing: expected start, stop, status or logs"
[ -f "$hosts" ] || fail "--hosts is ${hosts:-missing}: expected a file; see hosts.example"
[[ $run_dir == /* ]] || fail "--run-dir is ${run_dir:-missing}: expected an absolute path"
for setting in ${environment[@]+"${environment[@]}"}; do
    [[ $setting =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail "--env is $setting: expected NAME=VALUE"
done
# For processes on GPUs. Settings of --env follow, and the last one counts. PCI order: an index names the same GPU for
# CUDA and nvidia-smi.
defaults=(CUDA_DEVICE_ORDER=PCI_BUS_ID CUBLAS_WORKSPACE_CONFIG=:4096:8)
[[ " ${environment[*]-}" == *" PYTORCH_CUDA_ALLOC_CONF="* ]] || defaults+=(PYTORCH_ALLOC_CONF=expandable_segments:True)
environment=("${defaults[@]}" ${environment[@]+"${environment[@]}"})
read -ra ssh <<<"${PODIUM_SSH:-ssh -o BatchMode=yes}"

# One entry per process, in the order of the file.
names=() roles=() destinations=() devices=() coordinator="" port="" metrics=0 ranks=0 workers=0

# Adds a process of role $1 on host $2 with device $3.
add() {
    roles+=("$1") destinations+=("$2") devices+=("$3")
    case $1 in
        coordinator) names+=(coordinator) ;;
        learner)
            names+=("learner-$ranks")
            ranks=$((ranks + 1))
            ;;
        worker)
            workers=$((workers + 1))
            names+=("worker-$workers")
            ;;
    esac
}

read_hosts() {
    local number=0 line role host settings setting count device i
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        read -r role host settings <<<"${line%%#*}" || true
        [ -n "$role" ] || continue
        [[ $host =~ ^[A-Za-z0-9_][A-Za-z0-9_.:@%-]*$ ]] ||
            fail "$hosts, line $number: the host is ${host:-missing}: expected a name, an alias or user@host"
        count=1 device=auto
        for setting in $settings; do
            case $role:$setting in
                coordinator:port=*) port=${setting#*=} ;;
                coordinator:metrics=*) metrics=${setting#*=} ;;
                learner:device=* | worker:device=*) device=${setting#*=} ;;
                worker:count=*) count=${setting#*=} ;;
                *) fail "$hosts, line $number: unknown setting $setting of a $role" ;;
            esac
        done
        [[ $device =~ ^(cpu|cuda|auto|cuda:[0-9]+)$ ]] ||
            fail "$hosts, line $number: device is $device: expected cpu, cuda, cuda:INDEX or auto"
        [[ $count =~ ^[1-9][0-9]*$ ]] || fail "$hosts, line $number: count is $count: expected a whole number, at least 1"
        case $role in
            coordinator)
                [ -z "$coordinator" ] || fail "$hosts, line $number: a second coordinator"
                coordinator=$host
                ;;
            learner | worker) ;;
            *) fail "$hosts, line $number: the role is $role: expected coordinator, learner or worker" ;;
        esac
        for ((i = 0; i < count; i++)); do add "$role" "$host" "$device"; done
    done <"$hosts"
    [ -n "$coordinator" ] || fail "$hosts: the coordinator is missing"
    if ! [[ $port =~ ^[0-9]+$ ]] || [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
        fail "$hosts: the coordinator's port is ${port:-missing}: expected port=1 to port=65535"
    fi
    if ! [[ $metrics =~ ^[0-9]+$ ]] || [ "$metrics" -gt 65535 ]; then
        fail "$hosts: the coordinator's metrics is $metrics: expected metrics=0 (any port) to metrics=65535"
    fi
}

# Chooses a GPU for each process with device=cuda or device=auto: the first one of its host that no other process uses.
# A named GPU is used as named, also by several processes.
choose_gpus() {
    local i index
    local -A used=()
    for i in "${!names[@]}"; do
        used["${destinations[$i]} ${devices[$i]}"]=yes
    done
    for i in "${!names[@]}"; do
        [[ ${roles[$i]} != coordinator && ${devices[$i]} =~ ^(cuda|auto)$ ]] || continue
        index=0
        while [ -n "${used["${destinations[$i]} cuda:$index"]-}" ]; do index=$((index + 1)); done
        used["${destinations[$i]} cuda:$index"]=yes
        devices[i]=${devices[$i]}:$index
    done
}

# Prints shell code that sets the variable `device` to that of process $1. auto: a GPU if the host has a driver.
device_of() {
    case ${devices[$1]} in
        auto:*)
            printf '%s' "if [ -e /proc/driver/nvidia/version ] || [ -e /usr/lib/wsl/lib/libcuda.so.1 ];" \
                " then device=cuda:${devices[$1]#auto:}; else device=cpu; fi"
            ;;
        *) printf 'device=%s' "${devices[$1]}" ;;
    esac
}

# Quotes the words as one command of a POSIX shell.
quoted() {
    local word text=""
    for word in "$@"; do text+=" '${word//\'/\'\\\'\'}'"; done
    printf '%s' "${text# }"
}

# Runs the shell command $2 on host $1, with this script's standard input.
on() {
    if [ -n "$dry_run" ]; then
        printf '%s$ %s\n' "$1" "$2"
    else
        "${ssh[@]}" "$1" "$2"
    fi
}

# Prints the address of a host for other hosts: the name without a user.
reached_by() { printf '%s' "${1##*@}"; }

# Prints the command of process $1 (its index), in which the shell's variable `device` is the device.
program() {
    local host
    host=$(reached_by "${destinations[$1]}")
    local common=(--run-file "$run_dir/run.toml" --coordinator "$(reached_by "$coordinator"):$port")
    case ${roles[$1]} in
        coordinator)
            quoted "$bin_dir/podium-coordinator" --run-file "$run_dir/run.toml" --out "$run_dir" \
                --listen "0.0.0.0:$port" --advertise "$host" --metrics-listen "0.0.0.0:$metrics"
            ;;
        learner)
            quoted "$bin_dir/podium-learner" train "${common[@]}" --state "$run_dir/learner" \
                --rank "${names[$1]#learner-}" --world-size "$ranks" \
                --collective-listen 0.0.0.0:0 --collective-advertise "$host" --metrics-listen 0.0.0.0:0
            # shellcheck disable=SC2016 # a variable of the host's shell
            printf ' --device "$device"'
            ;;
        worker)
            quoted "$bin_dir/podium-rollout-worker" "${common[@]}" --cache "$run_dir/cache/${names[$1]}" \
                --metrics-listen 0.0.0.0:0
            # shellcheck disable=SC2016 # a variable of the host's shell
            printf ' --device "$device"'
            ;;
    esac
}

# Prints shell code that succeeds if the process of file $1 runs: its id may belong to another process by now.
runs() {
    printf '%s' "pid=\$(cat $(quoted "$1") 2>/dev/null) && grep -qaF -- $(quoted "$run_dir/run.toml") \"/proc/\$pid/cmdline\" 2>/dev/null"
}

start_process() {
    local name=${names[$1]} pid_file log
    pid_file=$run_dir/pids/$name log=$(quoted "$run_dir/logs/$name.log")
    local line
    line="if $(runs "$pid_file"); then echo $name already runs; else $(device_of "$1");"
    line+=" env $(quoted "${environment[@]}")"
    line+=" setsid nohup $(program "$1") </dev/null >>$log 2>&1 & echo \$! >$(quoted "$pid_file"); echo started $name; fi"
    on "${destinations[$1]}" "$line"
}

# Sends SIGTERM to the processes of role $1 and waits for them.
stop_role() {
    local i pid_file
    for i in "${!names[@]}"; do
        [ "${roles[$i]}" = "$1" ] || continue
        pid_file=$run_dir/pids/${names[$i]}
        on "${destinations[$i]}" "if $(runs "$pid_file"); then kill -TERM \"\$pid\"; fi"
    done
    for i in "${!names[@]}"; do
        [ "${roles[$i]}" = "$1" ] || continue
        pid_file=$run_dir/pids/${names[$i]}
        on "${destinations[$i]}" "n=0; while $(runs "$pid_file") && [ \$n -lt 3000 ]; do sleep 0.2; n=\$((n + 1)); done;
if $(runs "$pid_file"); then echo ${names[$i]} did not stop; exit 1; else echo ${names[$i]} stopped; fi"
    done
}

# Copies the secret of the run from the coordinator's host to host $1, where only the user can read it. It passes through
# standard input and output, and never is an argument.
copy_secret() {
    local secret=$run_dir/run.secret
    local receive
    # An interrupted copy leaves the secret of before.
    receive="umask 077 && $(quoted tee "$secret.new") >/dev/null && $(quoted test -s "$secret.new") && $(quoted mv -f "$secret.new" "$secret")"
    if [ -n "$dry_run" ]; then
        on "$1" "$receive"
    elif on "$coordinator" "$(quoted test -e "$secret")" </dev/null; then
        on "$coordinator" "$(quoted cat "$secret")" </dev/null | on "$1" "$receive"
    fi
}

# Prints every host once.
each_host() { printf '%s\n' "${destinations[@]}" | sort -u; }

start() {
    [ -n "$run_file" ] || fail "--run-file is missing: a path on $coordinator"
    local folders host i text="the run file"
    folders=$(quoted mkdir -p "$run_dir/logs" "$run_dir/pids")
    on "$coordinator" "$(quoted "$bin_dir/podium" check-config "$run_file")"
    # The folder of a running run is in use, and ready.
    on "$coordinator" "$folders && if ! { $(runs "$run_dir/pids/coordinator"); }; then $(quoted "$bin_dir/podium" train \
        "$run_file" --out "$run_dir" --prepare-only); fi"
    [ -n "$dry_run" ] || text=$(on "$coordinator" "$(quoted cat "$run_dir/run.toml")")
    while read -r host; do
        [ "$host" != "$coordinator" ] || continue
        on "$host" "$folders && $(quoted tee "$run_dir/run.toml") >/dev/null" <<<"$text"
        copy_secret "$host"
    done < <(each_host)
    for i in "${!names[@]}"; do
        [ "${roles[$i]}" != coordinator ] || start_process "$i"
    done
    for i in "${!names[@]}"; do
        [ "${roles[$i]}" = coordinator ] || start_process "$i"
    done
}

status() {
    local i pid_file name
    for i in "${!names[@]}"; do
        pid_file=$run_dir/pids/${names[$i]} name="${names[$i]} on ${destinations[$i]}"
        on "${destinations[$i]}" "if $(runs "$pid_file"); then echo $name runs with pid \$pid; else echo $name does not run; fi"
    done
    on "$coordinator" "$(quoted "$bin_dir/podium" status --out "$run_dir")"
}

logs() {
    local i
    for i in "${!names[@]}"; do
        printf '==> %s on %s\n' "${names[$i]}" "${destinations[$i]}"
        on "${destinations[$i]}" "$(quoted tail -n 5 "$run_dir/logs/${names[$i]}.log") || true"
    done
}

read_hosts
choose_gpus
case $command in
    start) start ;;
    stop)
        stop_role learner
        stop_role worker
        stop_role coordinator
        ;;
    status) status ;;
    logs) logs ;;
esac
