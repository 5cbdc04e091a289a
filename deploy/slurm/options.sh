# Functions shared by submit.sh and workers.sh: messages, options, checks of options, resources. Sourced, not run.
# shellcheck shell=bash disable=SC2034

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
fail() {
    say "$1; see --help"
    exit 2
}

# Prints the comment at the top of the calling script.
usage() {
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
}

# Reads options into variables. $1: pairs of option and variable, "--nodes nodes", one per line; the rest: the
# arguments. The arguments after -- are stored in the array `sbatch_options`.
read_options() {
    local known=$1 variable
    shift
    sbatch_options=()
    while [ $# -gt 0 ]; do
        case $1 in
            --)
                shift
                sbatch_options=("$@")
                return
                ;;
            -h | --help) usage ;;
        esac
        variable=$(awk -v option="$1" '$1 == option { print $2 }' <<<"$known")
        [ -n "$variable" ] || fail "$1 is no option of this script; options of sbatch come after --"
        [ $# -ge 2 ] || fail "$1 has no value"
        printf -v "$variable" '%s' "$2"
        shift 2
    done
}

# Fails unless $2, the value of option $1, is a whole number of at least $3.
require_number() {
    [ -n "$2" ] || fail "$1 is missing"
    if ! [[ $2 =~ ^[0-9]+$ ]] || [ "$2" -lt "$3" ]; then
        fail "$1 is $2: expected a whole number, at least $3"
    fi
}

require_programs() {
    local folder=$1 program
    shift
    for program in "$@"; do
        [ -x "$folder/$program" ] || fail "$folder/$program is missing: run \`make build\`, or name another folder with --bin-dir"
    done
}

require_command() {
    command -v "$1" >/dev/null || fail "$1 is missing: run this script on a submit host of the cluster"
}

absolute() { realpath -m -- "$1"; }

# Adds the resources of $3 processes of $4 cores on $1 nodes of $2 GPUs to the options of sbatch. One additional
# task per node is for the coordinator, which needs little CPU.
resources() {
    # Nodes with GPUs are filled in turn, so that the first has the most processes.
    local most=$((($3 + $1 - 1) / $1))
    [ "$2" -eq 0 ] || most=$(($3 < $2 ? $3 : $2))
    options+=(--nodes="$1" --ntasks-per-node=$((most + 1)) --cpus-per-task="$4")
    [ "$2" -eq 0 ] || options+=(--gpus-per-node="$2")
}
