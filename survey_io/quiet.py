"""Keeps warnings away from one thread's work while other threads do theirs.

Headers of other people's files make astropy warn about much that we repair, note or refuse ourselves. The usual
``with warnings.catch_warnings(): warnings.simplefilter("ignore")`` is not fit for that here: it swaps the filters of
the whole process and puts the former ones back at its end, so that, of two threads whose blocks overlap, the first to
leave takes the other's filter away (and the second may bring a filter back for good). Our stages open files and draw
tiles in several threads, and the libraries that they call use it too.

Instead one entry stays in ``warnings.filters`` that ignores what is said in a thread that is inside `quiet`, and
nothing else. A `catch_warnings` of another thread or library works on a copy of the list and puts the former list
back: the entry is in both, and nothing is taken out that another thread may need.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["quiet"]


class _Inside(threading.local):
    """Stands in a filter where a message's pattern would: matches every message in the threads that are inside.

    What `warnings` calls as its ``match`` must be written in C, as a compiled pattern's is: CPython 3.11 walks through
    a list that it does not hold (``get_filter`` in _warnings.c), and a function in Python would let another thread
    free that list on the way, at the end of a `catch_warnings`. Hence two comparisons with the empty text, one true of
    every text, one of none; the first is set only in the threads that are inside.
    """

    match = "".__gt__

    def come(self) -> None:
        """This thread is inside from here."""
        self.match = "".__le__

    def leave(self) -> None:
        """This thread is outside from here."""
        del self.match


class _Entry:
    """A filter of a category, and how many blocks each thread that is inside has entered."""

    def __init__(self, category: type[Warning]):
        self.inside = _Inside()
        # As `warnings` lays out a filter: action, message, category, module, line.
        self.filter: Any = ("ignore", self.inside, category, None, 0)
        self.blocks: Counter[int] = Counter()

    def come(self, thread: int) -> None:
        self.blocks[thread] += 1
        self.inside.come()

    def leave(self, thread: int) -> None:
        self.blocks[thread] -= 1
        if not self.blocks[thread]:
            del self.blocks[thread]
            self.inside.leave()


# An entry for every category that was ever asked for.
_shared: dict[type[Warning], _Entry] = {}
# Reentrant, because the collector may run a finaliser that opens or closes a file while it is held.
_lock = threading.RLock()


@contextmanager
def quiet(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore the warnings of this thread in a block, or in a function that bears it as its decorator.

    Threads that are started inside are not: what they call has to be quiet itself. An ignored warning is not remembered
    as shown, and entering and leaving makes nothing be shown again that was, as `catch_warnings` does.

    Parameters
    ----------
    category : type
        Of the warnings to ignore, with those derived from it.
    """
    me = threading.get_ident()
    own = None
    with _lock:
        shared = _shared.setdefault(category, _Entry(category))
        if not _leads(shared.filter):
            if shared.blocks.keys() <= {me} or shared.filter not in warnings.filters:
                _put_first(shared.filter)
            else:
                # Another thread may have called what sets a filter of its own, as astropy's units do to make errors of
                # warnings: the entry that it shares with this thread may not pass that filter.
                own = _Entry(category)
                own.come(me)
                _put_first(own.filter)
        shared.come(me)
    try:
        yield
    finally:
        with _lock:
            shared.leave(me)
            if own is not None:
                own.leave(me)
                _take_out(own.filter)


def _leads(mine: Any) -> bool:
    """Whether only filters of this module stand before it in the list in use now."""
    for one in warnings.filters:
        if one is mine:
            return True
        if not isinstance(one[1], _Inside):
            return False
    return False


def _put_first(mine: Any) -> None:
    # The list is changed in place, without the private call that makes `warnings` forget what it has shown: to ignore
    # more, or no longer, needs none, because only what was shown is remembered.
    _take_out(mine)
    warnings.filters.insert(0, mine)


def _take_out(mine: Any) -> None:
    with suppress(ValueError):
        warnings.filters.remove(mine)
