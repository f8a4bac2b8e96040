"""The tables of the survey's store as this version of skysift has them, for queries; `migrations` makes them.

Times are ISO 8601 text in UTC with milliseconds: they sort as they read, and are the same on every database.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Integer, MetaData, Table, Text, TypeDecorator

__all__ = ["COMMON", "STATES", "metadata", "observation", "run", "sky_object", "source", "unresolved"]

STATES = ("arrived", "running", "done", "failed", "quarantined")
"""What becomes of an observation."""

# A path that is not UTF-8 is kept by its bytes: no database takes it as text, and it must open the file again.
_BYTES = "file-bytes:"


def clean_text(value: str) -> str:
    """Text as a database takes it: bytes that are not UTF-8 and NUL as backslash escapes."""
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


class CleanText(TypeDecorator[str]):
    """Text of any origin; what no database takes is written as escapes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Escape what cannot be stored."""
        return None if value is None else clean_text(str(value))


class PathText(TypeDecorator[str]):
    """A path, given back exactly, whatever its bytes are."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Paths that are not UTF-8 become their bytes, percent-encoded."""
        if value is None:
            return None
        path = os.fspath(value)
        if path.startswith(_BYTES) or clean_text(path) != path:
            return _BYTES + quote_from_bytes(os.fsencode(path))
        return path

    def process_result_value(self, value: Any, dialect: Any) -> str | None:
        """The path as `os` takes it."""
        if value is None or not value.startswith(_BYTES):
            return value
        return os.fsdecode(unquote_to_bytes(value.removeprefix(_BYTES)))


_ID = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

observation = Table(
    "observation",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("sha256", CleanText, nullable=False, unique=True),
    Column("name", CleanText, nullable=False),
    Column("path", PathText, nullable=False),
    Column("bytes", BigInteger),
    Column("kind", CleanText),
    Column("arrived", CleanText, nullable=False),
    Column("state", CleanText, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", CleanText),
    Column("heartbeat", CleanText),
    # The heartbeat again on a clock that nobody sets: seconds, and the start of the machine that they count from.
    Column("beat", Double),
    Column("boot", CleanText),
    Column("error", CleanText),
    Column("priority", Integer, nullable=False),
)

run = Table(
    "run",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("uid", CleanText, nullable=False, unique=True),
    Column("observation_id", BigInteger, nullable=False),
    Column("key", CleanText, nullable=False, unique=True),
    Column("model", CleanText),
    Column("weights_sha256", CleanText),
    Column("options", JSON, nullable=False),
    Column("skysift_version", CleanText),
    Column("engine", CleanText),
    Column("started", CleanText),
    Column("finished", CleanText),
    Column("recorded", CleanText, nullable=False),
    Column("state", CleanText, nullable=False),
    Column("error", CleanText),
    Column("rows", BigInteger, nullable=False),
    Column("output", PathText),
    Column("flux_unit", CleanText),
    # Columns of the catalogue in their order, where each lies in `source`, and what belongs to the table as a whole.
    Column("catalogue", JSON, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("current", Boolean, nullable=False),
    # Arcsec within which a source of the run may have a partner; NULL until its sources were joined with others.
    Column("reach", Double),
)

source = Table(
    "source",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("run_id", BigInteger, nullable=False),
    Column("observation_id", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("name", CleanText),
    Column("ra", Double),
    Column("dec", Double),
    Column("hpx29", BigInteger),
    Column("kind", CleanText, nullable=False),
    Column("p_real", Double),
    Column("snr", Double),
    Column("flux", Double),
    Column("flux_err", Double),
    Column("maj", Double),
    Column("min", Double),
    Column("pa", Double),
    Column("flags", BigInteger),
    Column("freq", Double),
    Column("w20", Double),
    Column("current", Boolean, nullable=False),
    Column("object_id", BigInteger),
    Column("details", JSON, nullable=False),
)

sky_object = Table(
    "object",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("ra", Double),
    Column("dec", Double),
    Column("hpx29", BigInteger),
    Column("n_sources", Integer, nullable=False),
    Column("n_observations", Integer, nullable=False),
    Column("first_seen", CleanText),
    Column("last_seen", CleanText),
    Column("status", Text, nullable=False),
)

# Sources that lie close enough to be one and are not joined, with the reason.
unresolved = Table(
    "unresolved",
    metadata,
    Column("source_id", BigInteger, primary_key=True),
    Column("other_id", BigInteger, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("distance", Double, nullable=False),
)

COMMON = ("name", "ra", "dec", "p_real", "snr", "flux", "flux_err", "maj", "min", "pa", "flags", "freq", "w20")
"""Columns of `source` that hold values of a catalogue; the rest of a row is in ``details``."""
