#!/usr/bin/env bash
# Builds a container image of Podium, with the versions that deploy/setup/versions.env pins.
#
#   build.sh cpu|cuda [TAG]       TAG: default podium:cpu or podium:cuda
#
# PODIUM_CONTAINER_TOOL sets the program; default: docker or podman, whichever is installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/setup/versions.env
. "$here/../setup/versions.env"
case ${1:-} in
    cpu | cuda) flavour=$1 ;;
    *)
        echo "build.sh: the kind of image is ${1:-missing}: expected cpu or cuda" >&2
        exit 2
        ;;
esac
tool=${PODIUM_CONTAINER_TOOL:-}
for candidate in docker podman; do
    [ -n "$tool" ] || ! command -v "$candidate" >/dev/null || tool=$candidate
done
[ -n "$tool" ] || { echo "build.sh: neither docker nor podman is installed" >&2; exit 1; }
exec "$tool" build --file "$here/Containerfile.$flavour" --build-arg "RUST=$RUST" --build-arg "DEBIAN=$DEBIAN" \
    --tag "${2:-podium:$flavour}" "$here/../.."
