#!/usr/bin/env bash
# Checks which devices and variables launch.sh gives to the processes of a hosts file, without any host.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
    printf 'check.sh: %s\n' "$1" >&2
    exit 1
}

# Starts the processes of hosts file $1 without running the commands. The rest: further options.
dry() {
    local hosts=$1
    shift
    "$here/launch.sh" start --hosts "$hosts" --run-dir /run-dir --run-file /run.toml --dry-run "$@"
}

# Prints name and device of every process of hosts file $1.
devices() {
    dry "$1" | sed -n 's/.* already runs; else \(.*\); env .*started \(.*\); fi$/\2 \1/p'
}

# Fails unless the processes of hosts file $1 have the devices on standard input.
expect() {
    local expected found
    expected=$(cat)
    found=$(devices "$1" | grep -v '^coordinator')
    [ "$found" = "$expected" ] || fail "$1: expected these devices:
$expected
and found:
$found"
}

expect "$here/hosts.example" <<'END'
learner-0 device=cuda:0
learner-1 device=cuda:0
worker-1 device=cuda:1
worker-2 device=cuda:2
worker-3 device=cuda:3
worker-4 device=cuda:1
worker-5 device=cpu
worker-6 device=cpu
worker-7 device=cpu
worker-8 device=cpu
END

# A named GPU is not given to others; several processes may name the same.
cat >"$folder/named" <<'END'
coordinator a port=1
learner a device=cuda
worker a device=cuda:0
worker a device=cuda:2 count=2
worker a device=cuda count=2
END
expect "$folder/named" <<'END'
learner-0 device=cuda:1
worker-1 device=cuda:0
worker-2 device=cuda:2
worker-3 device=cuda:2
worker-4 device=cuda:3
worker-5 device=cuda:4
END

# With auto the host decides; its second process takes the second GPU.
printf 'coordinator a port=1\nlearner a\nworker a\n' >"$folder/auto"
driver="[ -e /proc/driver/nvidia/version ] || [ -e /usr/lib/wsl/lib/libcuda.so.1 ]"
expect "$folder/auto" <<END
learner-0 if $driver; then device=cuda:0; else device=cpu; fi
worker-1 if $driver; then device=cuda:1; else device=cpu; fi
END

printf 'coordinator a port=1\nlearner a device=gpu\n' >"$folder/wrong"
if said=$(dry "$folder/wrong" 2>&1); then fail "device=gpu is accepted"; fi
[[ $said == *"line 2: device is gpu: expected cpu, cuda, cuda:INDEX or auto"* ]] || fail "device=gpu: $said"

# Variables of --env replace those of launch.sh.
env_of() { dry "$folder/auto" "$@" | grep 'started learner-0'; }
[[ $(env_of) == *"'CUBLAS_WORKSPACE_CONFIG=:4096:8' 'PYTORCH_ALLOC_CONF=expandable_segments:True'"* ]] ||
    fail "the variables for GPUs are missing: $(env_of)"
[[ $(env_of --env PYTORCH_CUDA_ALLOC_CONF=x) != *PYTORCH_ALLOC_CONF* ]] || fail "PYTORCH_CUDA_ALLOC_CONF is overridden"
[[ $(env_of --env CUBLAS_WORKSPACE_CONFIG=:16:8) == *":4096:8' "*" 'CUBLAS_WORKSPACE_CONFIG=:16:8'"* ]] ||
    fail "the value of --env must come last"

# With hosts that are folders of this machine, every host receives the secret, readable by its owner alone, and no
# argument contains it.
secret=5ec2e7000000000000000000000000000000000000000000000000000000cafe
mkdir "$folder/bin"
cat >"$folder/bin/program" <<'END'
#!/bin/sh
# Stands for podium and the services.
[ "$1" != train ] || [ "$5" != --prepare-only ] || { mkdir -p "$4" && cd "$4" && touch run.toml && umask 077 && echo "$SECRET" >run.secret; }
END
chmod +x "$folder/bin/program"
for name in podium podium-coordinator podium-learner podium-rollout-worker; do ln -s program "$folder/bin/$name"; done
cat >"$folder/on-host" <<'END'
#!/bin/bash
# Stands for ssh: HOST and a command, in which the run folder is one for each host.
printf '%s\n' "$*" >>"$ROOT/commands"
exec bash -c "${2//\/run-dir/$ROOT/$1}"
END
chmod +x "$folder/on-host"
printf 'coordinator a port=1\nlearner a device=cpu\nworker b device=cpu\n' >"$folder/two"
SECRET=$secret ROOT=$folder PODIUM_SSH=$folder/on-host "$here/launch.sh" start --hosts "$folder/two" --run-dir /run-dir \
    --run-file /run.toml --bin-dir "$folder/bin" >/dev/null
[ "$(cat "$folder/b/run.secret")" = "$secret" ] || fail "the secret is not copied"
[ "$(stat --format %a "$folder/b/run.secret")" = 600 ] || fail "others can read the copied secret"
! grep -q "$secret" "$folder/commands" || fail "a command contains the secret"
echo "devices, variables and the secret of ssh hosts are correct"
