"""Gives a thread back the stack on which its signals are handled, after a library has put its own in the place.

OpenVINO's plugin for processors sets an alternate signal stack of its own in every thread that computes (for the large
registers of AMX) and frees it with the graph. Python's handlers ask for the alternate stack; from then on the first
signal, a child that ends or a SIGTERM, would find it gone, and the kernel ends the process with a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Flag of <bits/ss_flags.h>: the thread is on its alternate stack now, which may then not be changed.
_USED = 1


class _Stack(ctypes.Structure):
    """``stack_t`` of <signal.h>."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """The alternate signal stack of this thread is at the end what it was at the beginning; only on Linux."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        after = signal_stack()
        if (after.pointer, after.size) != (before.pointer, before.size) and not after.flags & _USED:
            _libc.sigaltstack(ctypes.byref(before), None)


def signal_stack() -> _Stack:
    """This thread's alternate signal stack; its flags hold 2 where there is none."""
    found = _Stack()
    _libc.sigaltstack(None, ctypes.byref(found))
    return found


_libc = ctypes.CDLL(None)
