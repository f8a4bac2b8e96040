#!/bin/sh
# All the set-up, then the main job on a small simulated sky. Arguments go to 'skysift demo'.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
venv=$(sh "$here/setup.sh")
exec "$venv/bin/skysift" demo "$@"
