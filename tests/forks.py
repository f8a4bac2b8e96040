"""Forked children for tests: they do one piece of work and leave at once."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any


def fork(work: Callable[..., Any], *args: Any) -> int:
    """
    Do a piece of work in a forked child.

    A child that leaves through Python's own shutdown runs what libraries of the parent asked for at its end, about
    threads that a child does not have: after a Prefect flow in the same process such a child leaves with status 1
    whatever it did. So these leave by `os._exit`.

    Returns
    -------
    int
        The child's process number, for `wait`.
    """
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        work(*args)
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def wait(children: list[int]) -> list[int]:
    """Wait for children and return their exit statuses (0: the work was done)."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
