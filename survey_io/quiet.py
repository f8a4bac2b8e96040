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


class _Inside:
    """Stands in a filter where a message's pattern would: matches every message in the threads that are inside."""

    def __init__(self, category: type[Warning]):
        # As `warnings` lays out a filter: action, message, category, module, line.
        self.entry: Any = ("ignore", self, category, None, 0)
        self.threads: Counter[int] = Counter()

    def match(self, text: str) -> bool:
        """Whether the thread that warns is inside: `warnings` asks it as it would ask a compiled pattern."""
        return threading.get_ident() in self.threads


# An entry for every category that was ever asked for.
_shared: dict[type[Warning], _Inside] = {}
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
        inside = _shared.setdefault(category, _Inside(category))
        if not _leads(inside.entry):
            if inside.threads.keys() <= {me} or inside.entry not in warnings.filters:
                _put_first(inside.entry)
            else:
                # Another thread may have called what sets a filter of its own, as astropy's units do to make errors of
                # warnings: the entry that it shares with this thread may not pass that filter.
                own = _Inside(category)
                own.threads[me] = 1
                _put_first(own.entry)
        inside.threads[me] += 1
    try:
        yield
    finally:
        with _lock:
            inside.threads[me] -= 1
            if not inside.threads[me]:
                del inside.threads[me]
            if own is not None:
                own.threads.clear()
                _take_out(own.entry)


def _leads(entry: Any) -> bool:
    """Whether only entries of this module stand before it in the list in use now."""
    for one in warnings.filters:
        if one is entry:
            return True
        if not isinstance(one[1], _Inside):
            return False
    return False


def _put_first(entry: Any) -> None:
    # The list is changed in place, without the private call that makes `warnings` forget what it has shown: to ignore
    # more, or no longer, needs none, because only what was shown is remembered.
    _take_out(entry)
    warnings.filters.insert(0, entry)


def _take_out(entry: Any) -> None:
    with suppress(ValueError):
        warnings.filters.remove(entry)
