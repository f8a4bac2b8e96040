"""The exceptions that a caller is meant to catch: one line of text, the numbers as fields."""

from __future__ import annotations

import errno
from typing import Any

from .names import printable

__all__ = [
    "IncompleteError", "InputError", "OptionError", "OutputError", "SkysiftError", "WorkError", "machine_trouble",
]  # fmt: skip


class SkysiftError(Exception):
    """An expected failure that is explained to the user in one line.

    Parameters
    ----------
    message : str
        What was expected, what came and what to do. Line breaks are folded into spaces,
        and what does not print, as in the names of some files, stands as its escape.
    **fields
        The numbers behind the message (file, shape, unit, ...), for logs and flows.

    Attributes
    ----------
    message : str
    fields : dict
    exit_status : int
        What the command line returns for this error.
    """

    exit_status = 1

    def __init__(self, message: str, **fields: Any) -> None:
        self.message = printable(" ".join(str(message).split()))
        self.fields = fields
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception pickles only its positional arguments, and errors travel between Dask workers.
        return _rebuild, (type(self), self.message, self.fields)


class WorkError(SkysiftError):
    """Work that could not be done this time (workers died, or a scheduler) though the input is good.

    What was done is kept, and the same call goes on with it.
    """


class InputError(SkysiftError):
    """A file or header that cannot be used; the other files of the call can still be processed."""

    exit_status = 2


class IncompleteError(InputError):
    """A file that ends before its header says that it does: still on its way, or cut short."""


class OutputError(SkysiftError):
    """A result that cannot be written where it was asked for."""

    exit_status = 2


class OptionError(SkysiftError):
    """An option with a value that does not exist or does not fit."""

    exit_status = 2


# Of the machine and not of the file: what fails with them may succeed a moment later, or elsewhere.
_PASSING = {
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR,
}  # fmt: skip


def machine_trouble(error: BaseException) -> str | None:
    """Whether an error, or one that it arose from, is the machine's and says nothing of the input.

    Returns
    -------
    str or None
        "memory" or "system"; None where the machine did what it should.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        number = getattr(one, "errno", None)
        # The loader of libraries says it in words only.
        if isinstance(one, MemoryError) or number == errno.ENOMEM or "failed to map segment" in str(one):
            return "memory"
        if isinstance(one, OSError) and number in _PASSING:
            return "system"
        one = one.__cause__ or one.__context__
    return None


def _rebuild(kind: type[SkysiftError], message: str, fields: dict[str, Any]) -> SkysiftError:
    return kind(message, **fields)
