#!/bin/sh
# All the set-up, then the linter and the tests. Arguments go to pytest: sh deploy/test.sh -m "not slow".
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
venv=$(sh "$here/setup.sh" test)
cd "$here/.."
"$venv/bin/python" -m ruff check .
exec "$venv/bin/python" -m pytest -q "$@"
