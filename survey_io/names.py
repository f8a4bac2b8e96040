"""What the results of a file are called, and how its name is shown."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["file_stem", "printable"]

# Compression first, then what lies within.
_ENDINGS = (
    (".gz", ".bz2", ".xz", ".fz"),
    (".fits", ".fit", ".fts", ".csv", ".ecsv", ".txt", ".dat", ".tbl", ".ascii", ".vot", ".votable", ".xml"),
)


def file_stem(path: str | os.PathLike[str]) -> str:
    """File name without the endings of its format and compression: the start of every output's name."""
    stem = Path(path).name
    for group in _ENDINGS:
        for ending in group:
            if stem.lower().endswith(ending) and len(stem) > len(ending):
                stem = stem[: -len(ending)]
                break
    return stem


def printable(text: str) -> str:
    """A text that cannot end its line or steer a terminal: what does not print stands as its escape.

    Names of files and values of headers come from others: line breaks would forge lines, escape codes and marks of
    direction would change what is read, and bytes that are not UTF-8 cannot be written at all.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
