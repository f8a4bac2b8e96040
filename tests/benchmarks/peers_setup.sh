#!/bin/sh
# Makes the environment in which bench_finders.py runs the classical source finders.
# usage: sh tests/benchmarks/peers_setup.sh [FOLDER]      default: $SKYSIFT_PEERS, else the user's cache folder
# It stays apart from skysift's own: Aegean needs numpy below 2.4. SExtractor comes from the system's packages.
set -eu
here=${1:-${SKYSIFT_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/skysift/peers}}
python=${PYTHON:-python3}
if [ ! -x "$here/bin/python" ]; then
    "$python" -m venv "$here"
fi
"$here/bin/python" -m pip install --quiet "numpy<2.4" astropy scipy sep photutils AegeanTools bdsf scikit-image
if ! command -v source-extractor >/dev/null && ! command -v sex >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends source-extractor
    else
        echo "SExtractor is missing: install the package source-extractor; the benchmark leaves it out until then." >&2
    fi
fi
echo "peers ready in $here"
