"""Spectra in text: ECSV, VOTable, IPAC and CDS tables through astropy, CSV and plain columns by themselves.

Plain columns come with every kind of head: names in a comment or without, units below or beside them, ``# name [unit]``
line by line, keywords; astropy's guessing tries a dozen formats on each and reads none of these heads.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from astropy.table import Table

from .quiet import quiet
from .spectra_columns import Columns, from_table, is_axis_name
from .spectra_headers import named
from .spectra_tables import table_spectra
from .spectral_units import AXIS_KINDS, axis_kind, axis_unit
from .spectrum_build import Given, Opened, Place

__all__ = ["text_spectra"]

# Julian dates of the years 1858 to 2132.
_JULIAN = (2.4e6, 2.5e6)

_COMMENT = re.compile(r"\s*(?:#|%|;|!|//|\\)+")
# Keywords of heads: the Indo-US library's "#K TEFF 6000", "KEY = value", "KEY: value".
_KEYS = (re.compile(r"K\s+([A-Z][A-Z0-9_-]*)\s+(.*)$"), re.compile(r"(?:\\|char\s+)?(\w[\w. -]{0,30}?)\s*[=:]\s*(.+)$"))
_LINE_PER_COLUMN = (
    re.compile(r"(\w+)\s*\[([^\]]*)\]$"),
    re.compile(r"col(?:umn)?[ ._]*\d+\s*[:=.-]?\s*([\w /]+?)\s*(?:[\[(]([^\])]*)[\])])?$", re.IGNORECASE),
)
_WORD = r"[^\s\[(,;]+(?:\s*[\[(][^\])]*[\])])?"
_BLANK = {"", "-", "--", "---", "null", "none", "indef", "n/a", "na", "masked", "..."}


def text_spectra(content: bytes, place: Place, given: Given) -> Opened:
    """All spectra of a table in text.

    Raises
    ------
    NotASpectrum
        When its columns are not those of spectra.
    InputError
        When it is no table, or holds no spectrum that can be used.
    """
    start = content[:4096].lstrip()
    try:
        if start.startswith(b"# %ECSV"):
            return _through_astropy(content, "ascii.ecsv", place, given)
        if start.startswith(b"<"):
            if b"<VOTABLE" not in content[:65536] and b":VOTABLE" not in content[:65536]:
                raise place.error("expected a table, this is XML or HTML without a VOTable; fetch the table itself")
            return _votable(content, place, given)
        if re.match(rb"(?:\\.*\r?\n)*\|", start):
            return _through_astropy(content, "ascii.ipac", place, given)
        if b"Byte-by-byte Description" in content[:65536]:
            return _through_astropy(content, "ascii.cds", place, given)
    except (ValueError, KeyError, IndexError, TypeError, OSError, EOFError) as error:
        words = " ".join(str(error).split())[:120] or type(error).__name__
        raise place.error(f"expected a complete table, it cannot be read ({words}); fetch it again") from error
    columns = _plain_columns(content, place, given)
    return table_spectra(columns, named(place, columns.meta), given)


def _through_astropy(content: bytes, form: str, place: Place, given: Given) -> Opened:
    with quiet():
        table = Table.read(io.BytesIO(content), format=form)
    meta = {str(key): getattr(value, "get", lambda _, value=value: value)("value") for key, value in table.meta.items()}
    if isinstance(table.meta.get("keywords"), dict):
        meta.update({key: entry.get("value") for key, entry in table.meta["keywords"].items()})
    return table_spectra(from_table(table, meta), named(place, meta), given)


def _votable(content: bytes, place: Place, given: Given) -> Opened:
    from astropy.io import votable

    with quiet():
        try:
            tree = votable.parse(io.BytesIO(content), verify="ignore")
            first = tree.get_first_table()
        except Exception as error:  # expat's errors and VOTable's own share no base class
            words = " ".join(str(error).split())[:120]
            raise place.error(f"expected a complete VOTable, it cannot be read ({words}); fetch it again") from error
        table = first.to_table(use_names_over_ids=True)
        meta = {str(one.name): one.value for one in tree.iter_fields_and_params() if hasattr(one, "value")}
    return table_spectra(from_table(table, meta), named(place, meta), given)


def _plain_columns(content: bytes, place: Place, given: Given) -> Columns:
    if b"\0" in content[:65536]:
        raise place.error(
            "expected a spectrum in FITS, VOTable, ECSV, CSV or plain columns, this is another kind of file; convert it"
        )
    lines = content.decode("utf-8", errors="replace").lstrip("\ufeff").splitlines()
    comments = [_COMMENT.match(line) for line in lines]
    # Words behind the numbers of a line.
    lines = [line if match else line.partition(" #")[0] for line, match in zip(lines, comments, strict=True)]
    numbers, split = _first_numbers(lines, comments, place)
    width = len(_words(lines[numbers], split))
    head = [line[match.end() :] if match else line for line, match in zip(lines[:numbers], comments, strict=False)]
    body = [line for line, match in zip(lines[numbers:], comments[numbers:], strict=True) if line.strip() and not match]
    values = _values(body, split, width, place, numbers)
    meta = {match[1].strip().upper(): match[2].strip() for line in head if (match := _keyword(line))}
    names, units, notes = _labelled(meta, width) or _heading(head, width, split)
    if names is None:
        names, units, notes = _unnamed(values, given)
    # Names may repeat, or be empty: only what is told apart is a column.
    table = Table()
    table.meta = meta
    for index, (name, unit) in enumerate(zip(names, units, strict=True)):
        name = name or f"column {index + 1}"
        if name not in table.colnames:
            table[name] = values[:, index]
            if unit:
                table[name].info.meta = {"unit text": unit}
    columns = from_table(table, meta, notes)
    columns.units = {name: (table[name].info.meta or {}).get("unit text", "") for name in table.colnames}
    return columns


def _first_numbers(lines: list[str], comments: list[Any], place: Place) -> tuple[int, str | None]:
    """Line at which the numbers begin, and what splits them (None: space)."""
    for index, (line, comment) in enumerate(zip(lines, comments, strict=True)):
        if comment or not line.strip():
            continue
        split = next((sign for sign in ("\t", ";", ",", "|") if sign in line), None)
        words = _words(line, split)
        if len(words) > 1 and _number(words[0]) is not None and sum(_number(word) is not None for word in words) > 1:
            return index, split
        if len(words) == 1 and _number(words[0]) is not None:
            raise place.error(
                f"expected {AXIS_KINDS} and a flux in each line, line {index + 1} has one number; add the axis"
            )
        if index > 2000:
            break
    if not any(line.strip() for line in lines):
        raise place.error("expected a spectrum, the file is empty; fetch it again")
    raise place.error(f"expected columns of numbers ({AXIS_KINDS}, and flux), there are none; is this a spectrum?")


def _words(line: str, split: str | None) -> list[str]:
    if split is None:
        return line.split()
    words = [word.strip().strip("\"'") for word in line.strip().split(split)]
    # Lines that close with the sign.
    return words[:-1] if len(words) > 1 and not words[-1] and split != "\t" else words


def _number(word: str) -> float | None:
    word = word.strip()
    if word.lower() in _BLANK:
        return np.nan
    try:
        return float(word)
    except ValueError:
        try:
            return float(re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", word))
        except ValueError:
            return None


def _values(body: list[str], split: str | None, width: int, place: Place, first: int) -> np.ndarray:
    try:
        values = np.loadtxt(body, delimiter=split, ndmin=2, comments=None)
        if values.shape[1] == width:
            return values
    except ValueError:
        pass
    values = np.full((len(body), width), np.nan)
    for index, line in enumerate(body):
        words = _words(line, split)
        if len(words) != width:
            raise place.error(
                f"expected {width} columns in every line, the {index + 1}. line of numbers has {len(words)}: "
                f"{line.strip()[:40]!r}; the file is cut short or damaged (numbers begin at line {first + 1})"
            )
        # Text (names, dates) has no number.
        values[index] = [np.nan if (number := _number(word)) is None else number for word in words]
    return values


def _keyword(line: str) -> re.Match[str] | None:
    return next((match for pattern in _KEYS if (match := pattern.match(line.strip()))), None)


def _labelled(meta: dict[str, str], width: int) -> tuple[list[str], list[str], list[str]] | None:
    """Names from the labels of a plot, as CARTA and CASA write profiles: "xLabel: Radio velocity (km/s)"."""
    match = re.search(r"[\[(]([^\])]*)[\])]", meta.get("XLABEL", ""))
    unit = None if match is None else axis_unit(match[1])[0]
    kind = None if unit is None else axis_kind(unit)
    if kind is None or width < 2:
        return None
    flux = re.search(r"[\[(]([^\])]*)[\])]", meta.get("YLABEL", ""))
    rest = [f"column {index + 1}" for index in range(2, width)]
    return [kind, "flux", *rest], [match[1], flux[1] if flux else "", *[""] * len(rest)], []


def _heading(head: list[str], width: int, split: str | None) -> tuple[list[str] | None, list[str], list[str]]:
    """Names and units of the columns, from the lines above the numbers."""
    for pattern in _LINE_PER_COLUMN:
        found = [match for line in head if (match := pattern.match(line.strip()))]
        if len(found) == width:
            return [match[1] for match in found], [(match[2] or "").strip() for match in found], []
    for index in range(len(head) - 1, -1, -1):
        names = _titles(head[index], width, split)
        if names is None or not any(is_axis_name(name) for name in names):
            continue
        below = head[index + 1] if index + 1 < len(head) else ""
        return names, _units_below(below, width, split), []
    # A head without a known axis still names its columns: they are listed in the refusal.
    last = _titles(head[-1], width, split) if head else None
    if last is not None and all(re.match(r"[A-Za-z_]", name) for name in last) and not _keyword(head[-1]):
        return last, [""] * width, []
    return None, [], []


def _units_below(line: str, width: int, split: str | None) -> list[str]:
    """Units from the line below the names; it may tell that of the axis alone."""
    words = _titles(line, width, split) or line.split()
    unit, _ = axis_unit(words[0]) if words and len(words) <= width else (None, False)
    if unit is None:
        return [""] * width
    return [*words, *[""] * (width - len(words))]


def _titles(line: str, width: int, split: str | None) -> list[str] | None:
    options = [re.findall(_WORD, line)]
    if split is not None or "," in line:
        options.insert(0, _words(line, split or ","))
    return next((words for words in options if len(words) == width and any(words)), None)


def _unnamed(values: np.ndarray, given: Given) -> tuple[list[str], list[str], list[str]]:
    """Columns without names: the axis, the flux and, where it can be one, its error."""
    width = values.shape[1]
    kind = "wavelength" if given.unit is None else (axis_kind(given.unit) or "wavelength")
    with quiet(RuntimeWarning):
        ends = np.nanmin(values[:, 0]), np.nanmax(values[:, 0])
    if given.unit is None and _JULIAN[0] < ends[0] and ends[1] < _JULIAN[1]:
        kind = "time"
    names = [kind if kind in ("wavelength", "frequency", "velocity", "time") else "wavelength", "flux"]
    notes = ["no names of the columns: the first is the axis, the second the flux"]
    if width > 2 and np.isfinite(values[:, 2]).any() and np.nanmin(values[:, 2]) >= 0:
        names.append("error")
        notes[0] += ", the third its error"
    names += [f"column {index + 1}" for index in range(len(names), width)]
    return names, [""] * width, notes

