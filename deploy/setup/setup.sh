#!/usr/bin/env bash
# Installs libtorch for cargo (.venv/libtorch) and downloads the crates. Safe to run again at any time: existing files
# are unchanged, and nothing is downloaded twice.
#
#   LIBTORCH=DIR      use this libtorch; nothing is installed
#   PODIUM_CUDA=1|0   install torch with or without its CUDA libraries, instead of looking for an NVIDIA driver
#   PODIUM_PYTHON=F   the Python that creates .venv
#
# An active virtual or conda environment that has torch is used instead of .venv's own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=deploy/setup/versions.env
. "$root/deploy/setup/versions.env"
venv=$root/.venv
link=$venv/libtorch
stamp=$venv/.podium-torch

say() { printf 'set-up: %s\n' "$*" >&2; }
fail() {
    printf 'set-up: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '        %s\n' "$@" >&2
    exit 1
}

# Prints the version of the libtorch in folder $1; nothing if libtorch is missing.
torch_version() {
    if [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ = '\([^']*\)'.*/\1/p" "$1/version.py"
    elif [ -f "$1/build-version" ]; then
        cat "$1/build-version"
    fi
}

# Fails unless folder $1, which $2 names, is a libtorch of the pinned version.
require_torch() {
    local version
    version=$(torch_version "$1")
    if [ -z "$version" ] || [ ! -e "$1/lib/libtorch_cpu.so" ]; then
        fail "$2 contains no libtorch: expected $1/lib/libtorch_cpu.so and $1/version.py."
    fi
    [ "${version%%+*}" = "$TORCH" ] ||
        fail "$2 contains torch $version: Podium requires torch $TORCH." \
            "To install Podium's own, run deactivate and unset LIBTORCH, or install torch==$TORCH there."
}

# Prints the torch folder of the Python environment $1; nothing if it has none.
torch_of() {
    local folder
    for folder in "$1"/lib/python3*/site-packages/torch; do
        if [ -f "$folder/version.py" ]; then
            printf '%s\n' "$folder"
            return
        fi
    done
}

require_tools() {
    [ "$(uname -s)" = Linux ] || fail "Podium runs on Linux; this is $(uname -s)."
    command -v cargo >/dev/null ||
        fail "cargo is missing. Install Rust:" \
            "Debian 13, Ubuntu 24.04: apt-get install rustup && rustup default stable" \
            "Fedora: dnf install rustup && rustup-init" \
            "elsewhere: https://rustup.rs"
    local compiler
    for compiler in "${CXX:-}" c++ g++ clang++; do
        if [ -n "$compiler" ] && command -v "${compiler%% *}" >/dev/null; then
            return
        fi
    done
    fail "a C++ compiler is missing. Install one:" \
        "Debian, Ubuntu: apt-get install g++" \
        "Fedora: dnf install gcc-c++"
}

# Prints a Python for the installation of torch.
find_python() {
    local minor=${PYTHON_MINIMUM#3.} candidate seen=""
    for candidate in "${PODIUM_PYTHON:-}" python3 python3.{14,13,12,11,10} python; do
        if [ -z "$candidate" ] || ! command -v "$candidate" >/dev/null; then
            continue
        fi
        if "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $minor))" 2>/dev/null; then
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null ||
                fail "$candidate has no venv module. Install it:" \
                    "Debian, Ubuntu: apt-get install python3-venv" \
                    "Fedora: dnf install python3"
            printf '%s\n' "$candidate"
            return
        fi
        seen="$seen $("$candidate" --version 2>&1 || true)"
    done
    fail "Python $PYTHON_MINIMUM or newer is missing${seen:+ (found:$seen)}. Install it:" \
        "Debian, Ubuntu: apt-get install python3 python3-venv" \
        "Fedora: dnf install python3" \
        "or name one with PODIUM_PYTHON=/path/to/python3"
}

wants_cuda() {
    case ${PODIUM_CUDA:-} in
        1) return 0 ;;
        0) return 1 ;;
        "") [ -e /proc/driver/nvidia/version ] || [ -e /usr/lib/wsl/lib/libcuda.so.1 ] ;;
        *) fail "PODIUM_CUDA is $PODIUM_CUDA: expected 1 (with CUDA) or 0 (without)." ;;
    esac
}

# Installs torch in .venv, with or without CUDA. The stamp is written last, so that an interrupted installation is
# resumed.
install_torch() {
    local flavour=$1 python
    case $(cat "$stamp" 2>/dev/null) in
        "$TORCH $flavour" | "$TORCH cuda")
            [ -z "$(torch_of "$venv")" ] || return 0 ;;
    esac
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        say "creating .venv with $("$python" --version)"
        "$python" -m venv --clear "$venv"
    fi
    local packages size
    if [ "$flavour" = cuda ]; then
        size="2.7 GB to download, 4.7 GB on disk"
        packages=("torch==$TORCH")
    else
        size="0.6 GB to download, 1.3 GB on disk"
        packages=(--no-deps "torch==$TORCH" "nvidia-cuda-runtime==$CUDA_RUNTIME" "nvidia-cuda-cupti==$CUDA_CUPTI")
    fi
    say "installing torch $TORCH ($flavour) into .venv: $size unless cached"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --progress-bar on "${packages[@]}" ||
        fail "the installation of torch $TORCH failed (see pip's error above)." \
            "Fix the cause and run this again, or set LIBTORCH to an installed torch $TORCH."
    printf '%s %s\n' "$TORCH" "$flavour" >"$stamp"
}

# NCCL is loaded as libnccl.so, which its package does not contain. $1: a torch folder.
link_nccl() {
    local folder=${1%/torch}/nvidia/nccl/lib
    if [ -e "$folder/libnccl.so.2" ] && [ ! -e "$folder/libnccl.so" ]; then
        ln -s libnccl.so.2 "$folder/libnccl.so" || say "$folder/libnccl.so could not be created; NCCL will not be found"
    fi
}

# Links a libtorch to .venv/libtorch, unless LIBTORCH is set.
provide_torch() {
    if [ -n "${LIBTORCH:-}" ]; then
        require_torch "$LIBTORCH" "LIBTORCH ($LIBTORCH)"
        return
    fi
    local active folder=""
    for active in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        if [ -n "$active" ] && [ -z "$folder" ] && ! [ "$active" -ef "$venv" ]; then
            folder=$(torch_of "$active")
            [ -z "$folder" ] || require_torch "$folder" "the active environment ($active)"
        fi
    done
    if [ -z "$folder" ]; then
        if wants_cuda; then install_torch cuda; else install_torch cpu; fi
        folder=$(torch_of "$venv")
        require_torch "$folder" ".venv"
        folder=${folder#"$venv/"}
    fi
    mkdir -p "$venv"
    if [ "$(readlink "$link" 2>/dev/null)" != "$folder" ]; then
        ln -sfn "$folder" "$link"
    fi
    link_nccl "$(cd -P "$link" && pwd)"
}

# Downloads every crate for building and testing, which then require no network.
fetch_crates() {
    local lock_stamp=$venv/.podium-crates
    mkdir -p "$venv"
    if cmp -s "$root/Cargo.lock" "$lock_stamp"; then
        return
    fi
    (cd "$root" && cargo fetch --quiet --target "$(rustc -vV | sed -n 's/^host: //p')")
    cp "$root/Cargo.lock" "$lock_stamp"
}

require_tools
provide_torch
fetch_crates
