#!/usr/bin/env bash
# Renders base and overlays and validates them against the schemas of Kubernetes, without a cluster. Requires kubectl;
# the schemas are part of a Python package, installed in .venv-kubernetes: a download of 12 MB the first time only.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=deploy/setup/versions.env
. "$root/deploy/setup/versions.env"
venv=$root/.venv-kubernetes

fail() {
    echo "check.sh: $1" >&2
    exit 1
}
command -v kubectl >/dev/null || { echo "check.sh: kubectl is missing" >&2; exit 1; }
if [ "$(cat "$venv/.version" 2>/dev/null)" != "$KUBERNETES_VALIDATE" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "kubernetes-validate==$KUBERNETES_VALIDATE"
    printf '%s\n' "$KUBERNETES_VALIDATE" >"$venv/.version"
fi
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for folder in base cpu autoscaled; do
    kubectl kustomize "$root/deploy/kubernetes/$folder" >"$rendered/$folder.yaml"
    for version in $KUBERNETES_VERSIONS; do
        "$venv/bin/kubernetes-validate" --quiet --strict --kubernetes-version "$version" "$rendered/$folder.yaml"
    done
    # One GPU for each learner and worker (none in cpu), the variables for GPUs, and shared memory for NCCL.
    requests=4
    [ "$folder" != cpu ] || requests=0
    gpus=$(grep -c '^ *nvidia.com/gpu: "1"$' "$rendered/$folder.yaml" || true)
    [ "$gpus" -eq "$requests" ] || fail "$folder: $gpus requests and limits of one GPU, expected $requests"
    [ "$(grep -c '^ *name: podium-gpu-' "$rendered/$folder.yaml")" -eq 3 ] ||
        fail "$folder: learner and workers do not both use podium-gpu"
    # The coordinator, its preparation, learner and workers have the run's secret.
    for line in 'mountPath: /etc/podium-secret' 'value: /etc/podium-secret/run.secret'; do
        [ "$(grep -c "$line\$" "$rendered/$folder.yaml")" -eq 4 ] || fail "$folder: expected 4 containers with $line"
    done
    [ "$(grep -c 'secretName: podium-secret$' "$rendered/$folder.yaml")" -eq 3 ] || fail "$folder: expected 3 pods with podium-secret"
    grep -A 3 '^      - emptyDir:$' "$rendered/$folder.yaml" | grep -q 'medium: Memory' || fail "$folder: no volume in memory"
    grep -q '^ *- mountPath: /dev/shm$' "$rendered/$folder.yaml" || fail "$folder: nothing is mounted at /dev/shm"
    echo "$folder: $(grep -c '^kind:' "$rendered/$folder.yaml") objects are valid for Kubernetes $KUBERNETES_VERSIONS"
done
