"""The tables of the survey's store as this version of skysift has them, for queries; `migrations` makes them.

Times are ISO 8601 text in UTC with milliseconds: they sort as they read, and are the same on every database.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
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


def mark_text(text: str) -> str:
    """Text for JSON that every database reads: what PostgreSQL does not take in it (NUL, halves of surrogate pairs) as
    hexadecimal digits of UTF-16 behind a mark, and a mark before text that begins like one.
    """
    if clean_text(text) != text:
        return f"\\x{text.encode('utf-16-be', 'surrogatepass').hex()}"
    return f"\\={text}" if text.startswith("\\") else text


def unmark_text(text: str) -> str:
    """The text that `mark_text` took."""
    if not text.startswith("\\"):
        return text
    return text[2:] if text[1] == "=" else bytes.fromhex(text[2:]).decode("utf-16-be", "surrogatepass")


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _each_text(one, change) for key, one in value.items()}
    return [_each_text(one, change) for one in value] if isinstance(value, list) else value


class PlainJSON(TypeDecorator[Any]):
    """Plain values as JSON that every database reads in its queries, given back as they were."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Values as JSON has them, with all text marked where it has to be."""
        return _each_text(plain(value), mark_text)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """The values again."""
        return _each_text(value, unmark_text)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Paths into the JSON are not JSON themselves."""
        return self.impl_instance.coerce_compared_value(op, value)


def plain(value: Any) -> Any:
    """Values as JSON has them; NaN as None, infinity as text, numpy scalars as numbers, anything else as text."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


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
    Column("options", PlainJSON, nullable=False),
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
    Column("catalogue", PlainJSON, nullable=False),
    Column("manifest", PlainJSON, nullable=False),
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
