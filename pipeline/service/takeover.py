"""What the workers of a service that was killed had taken goes back to the queue as soon as the next one starts.

The lease does it for workers of other machines, whose processes cannot be seen, after a minute.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

logger = logging.getLogger("skysift")
# The first namespace of process ids, which a machine's own processes are in.
_MACHINE = 4026531836


def machine_name() -> str:
    """Name of this machine, with the namespace of its process ids where a container has its own."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        space = _MACHINE
    return socket.gethostname() + (f"+{space}" if space != _MACHINE else "")


def worker_name(number: int) -> str:
    """Name of one of this process's workers, unique among those alive."""
    return f"{machine_name()}:{os.getpid()}:{number}"


def take_back(store: Any) -> int:
    """Give back what workers on this machine had taken whose processes are gone; returns how many.

    To be called before this process claims anything: what was taken in its own name, it was not (a container that is
    started again has the same ids).
    """
    count = 0
    for observation in store.observations(state="running"):
        machine, _, rest = (observation["worker"] or "").rpartition(":")[0].rpartition(":")
        if machine != machine_name() or not rest.isdigit() or _alive(int(rest)):
            continue
        if store.fail(observation["id"], observation["worker"], "its service ended", retry=True):
            logger.info("%s: its service ended; queued again", observation["name"])
            count += 1
    return count


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
