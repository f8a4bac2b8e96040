"""Is a Prefect server configured, does it answer, and how to leave none behind. Does not import Prefect."""

from __future__ import annotations

import os
import signal
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

from survey_io.errors import OptionError

_HEALTH_SECONDS = 5.0


def configured_api_url() -> str | None:
    """Return the Prefect server's address from ``PREFECT_API_URL`` or the active profile, or None.

    Importing Prefect to ask costs a second, too much for a plain call: the profile file is read here.
    """
    url = os.environ.get("PREFECT_API_URL")
    if url is not None:
        return url or None
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE") or content.get("active")
    profile = content.get("profiles", {}).get(active, {})
    return profile.get("PREFECT_API_URL") or None if isinstance(profile, dict) else None


def require_server(url: str) -> None:
    """Raise `OptionError` when no Prefect server answers at ``url`` within a few seconds."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_HEALTH_SECONDS):
            return
    except urllib.error.HTTPError:
        # Something answers, if only to ask for a key: Prefect knows more about it than this check.
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise OptionError(
            f"no Prefect server answers at {url} ({reason}): "
            "start it with 'prefect server start' or unset PREFECT_API_URL"
        ) from None


def exit_on_sigterm() -> None:
    """Turn SIGTERM into an ordinary exit with status 143.

    A process that dies of the signal leaves Prefect's temporary server and Dask's workers running, and the
    server keeps the pipe of standard output open: a batch system then waits for its own time limit.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    # A second signal during the clean-up must not interrupt it.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
