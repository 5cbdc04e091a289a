#!/usr/bin/env bash
# Reduces a Python environment to the libraries that Podium's programs load: libtorch's and NVIDIA's, at their
# original locations.
#
#   keep-libraries.sh .venv
set -euo pipefail

venv=${1:?expected the folder of a Python environment}
torch=$(cd -P "$venv/libtorch" && pwd)
packages=$(dirname "$torch")
[ -e "$torch/lib/libtorch_cpu.so" ] || { echo "$venv/libtorch contains no libtorch" >&2; exit 1; }
find "$packages" -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia -exec rm -rf {} +
find "$torch" -mindepth 1 -maxdepth 1 ! -name lib -exec rm -rf {} +
find "$packages" -type f ! -name '*.so' ! -name '*.so.*' -delete
find "$venv" -mindepth 1 -maxdepth 1 ! -name lib ! -name libtorch -exec rm -rf {} +
find "$venv" -depth -type d -empty -delete
