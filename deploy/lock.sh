#!/bin/sh
# Write the container's lock files: every package with its version and the hashes of its files, for Python 3.11 on x86-64.
# Usage: sh deploy/lock.sh [--upgrade]      needs uv (pip install uv); what is locked stays, unless --upgrade is given
#
# requirements.lock  what pyproject.toml asks for, with the extras of a service, but for torch and what only torch needs
# torch-cuda.lock    torch from PyPI, whose Linux build is one for CUDA, with the libraries that it needs
# tensorrt.lock      TensorRT, for the GPU image
# build.lock         what builds skysift itself
# torch-cpu.lock is written by hand: builds for processors alone are on an index of their own, which the build names.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd "$here"
torch=$(sed -n 's/^    "\(torch==[0-9.]*\)",$/\1/p' ../pyproject.toml)
[ -n "$torch" ] || { echo "lock.sh: expected a line with torch==VERSION in pyproject.toml" >&2; exit 1; }

compile() {
    target=$1
    shift
    echo "lock.sh: $target" >&2
    # Neither the index nor this machine's paths belong into the file.
    uv pip compile --quiet --generate-hashes --no-annotate --no-emit-index-url --python-version 3.11 \
        --python-platform x86_64-manylinux_2_28 --custom-compile-command "sh deploy/lock.sh" \
        --output-file "$target" "$@"
}

# Torch's own needs are found first: what is in both lists is left to requirements.lock.
printf '%s\n' "$torch" | compile torch-cuda.lock "$@" -
skip=$(sed -n 's/^\(torch\|triton\|nvidia-[a-z0-9-]*\|cuda-[a-z0-9-]*\)==.*/--no-emit-package \1/p' torch-cuda.lock)
# shellcheck disable=SC2086  # words
compile requirements.lock "$@" --extra postgres $skip ../pyproject.toml
printf '%s\n' "$torch" | compile torch-cuda.lock "$@" --constraint requirements.lock -
printf '%s\n' "tensorrt>=10" | compile tensorrt.lock "$@" --constraint requirements.lock -
printf '%s\n' "setuptools>=77" | compile build.lock "$@" --constraint requirements.lock -
