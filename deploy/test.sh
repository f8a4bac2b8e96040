#!/bin/sh
# All the set-up, then the linter and the tests. Arguments go to pytest: sh deploy/test.sh -m "not slow".
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
venv=$(sh "$here/setup.sh" test)
# A real PostgreSQL server for the survey's store; where it cannot be installed those tests are skipped and say so.
if [ -z "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends postgresql-common >&2
    # The tests make their own server: none of the system's is to start.
    sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    apt-get install -y -qq --no-install-recommends postgresql >&2
    export SKYSIFT_TEST_POSTGRES=1
fi
# A browser for the pages, without a window; where it cannot be installed those tests are skipped and say so.
if ! command -v chromedriver >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core >&2
    export SKYSIFT_TEST_BROWSER=1
fi
cd "$here/.."
"$venv/bin/python" -m ruff check .
# Files of tests side by side in two to four processes: much of a test is waiting, and threads of two would get in each
# other's way. A plain 'python -m pytest' runs them one after the other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$venv/bin/python" -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
