#!/usr/bin/env bash
# Verifies the units with systemd; the programs that they start need not be installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v systemd-analyze >/dev/null || { echo "check.sh: systemd-analyze is missing" >&2; exit 1; }
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
for unit in "$here"/*.service; do
    sed 's#/opt/podium/bin/[a-z-]*#/bin/true#' "$unit" >"$units/$(basename "$unit")"
done
# It may succeed despite warnings.
said=$(systemd-analyze verify "$units"/*.service 2>&1) || { echo "$said" >&2; exit 1; }
[ -z "$said" ] || { echo "$said" >&2; exit 1; }
# Every variable of a unit has a value in the example, and each process can have a device of its own.
used=$(grep -oh '{PODIUM_[A-Z_]*}' "$here"/*.service | tr -d '{}' | sort -u)
for name in $used CUBLAS_WORKSPACE_CONFIG PYTORCH_ALLOC_CONF; do
    grep -q "^$name=" "$here/podium.env.example" || { echo "check.sh: podium.env.example does not set $name" >&2; exit 1; }
done
for role in learner worker; do
    grep -qx "EnvironmentFile=-/etc/podium/$role-%i.env" "$here/podium-$role@.service" ||
        { echo "check.sh: podium-$role@.service reads no settings of its own" >&2; exit 1; }
done
echo "$(find "$units" -name '*.service' | wc -l) units are valid"
