#!/usr/bin/env bash
# Creates .venv-oracle, the Python environment with the reference programs (Transformers, PEFT, TRL) for `make
# parity`. Safe to run again at any time: a complete environment is unchanged.
#
#   PODIUM_SHARED=DIR   the folder with oracle/requirements.txt, seen from the repository; ../shared unless set
#   PODIUM_PYTHON=F     the Python that creates the environment
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=deploy/setup/versions.env
. deploy/setup/versions.env
requirements=${PODIUM_SHARED:-../shared}/oracle/requirements.txt
venv=.venv-oracle
stamp=$venv/.podium-requirements

say() { printf 'oracle: %s\n' "$*" >&2; }
fail() {
    printf 'oracle: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '        %s\n' "$@" >&2
    exit 1
}

# The content of .venv-oracle's stamp, written last, so that an interrupted installation is resumed.
wanted() {
    printf 'python %s\n' "$("$venv/bin/python" -c 'import platform; print(platform.python_version())')"
    cat "$requirements"
}

[ -f "$requirements" ] ||
    fail "$requirements is missing (seen from $PWD)." \
        "Set PODIUM_SHARED=DIR to the folder with oracle/requirements.txt."
grep -qx "torch==$TORCH" "$requirements" ||
    fail "$requirements does not require torch==$TORCH, which Podium is built with."

if [ -x "$venv/bin/python" ] && wanted 2>/dev/null | cmp -s - "$stamp"; then
    exit 0
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=${PODIUM_PYTHON:-python3}
    "$python" -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, ${PYTHON_MINIMUM#3.}))" 2>/dev/null ||
        fail "$python is not Python $PYTHON_MINIMUM or newer with the venv module." \
            "Debian, Ubuntu: apt-get install python3 python3-venv" \
            "or name another with PODIUM_PYTHON=/path/to/python3"
    say "creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
say "installing the reference programs into $venv: 2.9 GB to download, 5.2 GB on disk"
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet --progress-bar on -r "$requirements" ||
    fail "the installation failed (see pip's error above). Fix the cause and run this again."
"$venv/bin/python" -c 'import peft, transformers, trl' ||
    fail "the installed packages cannot be imported (see Python's error above)." "Remove $PWD/$venv and run this again."
wanted >"$stamp"
