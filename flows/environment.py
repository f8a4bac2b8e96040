"""Quiet, private defaults for Prefect and Dask: import this module before either of them."""

from __future__ import annotations

import os

# Prefect reads its settings once, at import. Each of these can be overruled by the caller's environment.
DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A temporary server's shutdown logs errors that say nothing about the run.
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    # A machine that trains on all its cores starts the temporary server slowly.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "skysift,flows,pipeline,models,survey_io",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DASK_LOGGING__DISTRIBUTED": "warning",
    # A piece whose second worker dies is tried alone, and given up if it kills that one too: Dask's own three more
    # tries would kill as many workers.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
}

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
