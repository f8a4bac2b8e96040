"""What the results of a file are called."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["file_stem"]

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
