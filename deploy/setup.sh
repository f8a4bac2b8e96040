#!/bin/sh
# Make or refresh the virtual environment of this checkout and print its folder on standard output.
# Usage: sh deploy/setup.sh [EXTRA]      EXTRA: a pip extra such as "test"
#
# SKYSIFT_VENV    the environment's folder (default: under the user's cache, one per checkout)
# SKYSIFT_PYTHON  the interpreter to use (default: the first of python3.11 ... python3.14, python3 that is new enough)
# PIP_* variables are honoured: PIP_INDEX_URL and PIP_EXTRA_INDEX_URL choose the package index.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
extra=${1:-}

say() { printf 'skysift set-up: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

usable() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${SKYSIFT_PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do
        if usable "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Debian packages are installed only when something is missing and only by root; elsewhere the user is told.
install_python() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "no usable Python found; installing Debian's python3 and python3-venv"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            python3 python3-venv python3-pip ca-certificates >&2
    fi
}

python=$(find_python) || {
    install_python
    python=$(find_python) || fail "needs Python 3.11 to 3.14 with venv (Debian: apt-get install python3 python3-venv)"
}

# One environment per checkout: an editable install points at one folder only.
name=$(printf '%s' "$root" | cksum | cut -d' ' -f1)
venv=${SKYSIFT_VENV:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/skysift/venv-$name}
stamp=$venv/.skysift-$(cat "$root/pyproject.toml" "$root/deploy/setup.sh" | cksum | cut -d' ' -f1)-${extra:-plain}

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' >/dev/null 2>&1; then
    say "making $venv with $python"
    mkdir -p "$(dirname -- "$venv")"
    "$python" -m venv --clear "$venv" >&2
fi
if [ ! -e "$stamp" ]; then
    say "installing skysift and what it needs (about 2 GB, some minutes)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$root${extra:+[$extra]}" >&2
    : > "$stamp"
fi
printf '%s\n' "$venv"
