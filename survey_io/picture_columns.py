"""Every column of a table of classified pictures, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from .columns import Column

__all__ = ["PICTURE_COLUMNS", "Share", "make_picture_table"]

PICTURE_COLUMNS = [
    Column("picture_id", None, "meta.id;meta.main", "int64", "number of the picture in this table, from 1"),
    Column("name", None, "meta.id", "U", "name of the file without its ending"),
    Column("file", None, "meta.dataset", "U", "file it was read from"),
    Column("class", None, "src.class", "U", "likeliest class; of votes the most frequent answer to the first question"),
    Column("p_class", None, "stat.probability;src.class", "float32", "calibrated probability, or fraction, of that"),
    Column("entropy", None, "stat.value", "float32", "of these probabilities, in bits: 0 is certain"),
]

# Name of a column, its values (N,), and what they mean.
Share = tuple[str, np.ndarray, str]


def make_picture_table(values: Mapping[str, Any], shares: Sequence[Share]) -> Table:
    """A table with all columns in their order.

    Parameters
    ----------
    values : mapping of str to array (N,)
        By the names of `PICTURE_COLUMNS`.
    shares : sequence of Share
        Probabilities of classes, or fractions of votes; they follow ``p_class``.
    """
    table = Table()
    for column in PICTURE_COLUMNS:
        table[column.name] = np.asarray(values[column.name], dtype=None if column.dtype == "U" else column.dtype)
        table[column.name].description, table[column.name].meta["ucd"] = column.meaning, column.ucd
        if column.name == "p_class":
            for name, share, meaning in shares:
                table[name] = np.asarray(share, np.float32)
                table[name].description, table[name].meta["ucd"] = meaning, "stat.probability"
    return table
