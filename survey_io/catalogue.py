"""Catalogues on disk: tables in five formats, DS9/CARTA regions, SDC1 submissions; and names of sources."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.table import Table

from .errors import InputError, OptionError, OutputError
from .table_formats import READERS, SUFFIXES, WRITERS

__all__ = [
    "SDC1_COLUMNS",
    "iau_name",
    "read_catalogue",
    "read_sdc1",
    "write_catalogue",
    "write_regions",
    "write_sdc1",
]

PathLike = str | os.PathLike[str]

SDC1_COLUMNS = (
    "id",
    "ra_core",
    "dec_core",
    "ra_cent",
    "dec_cent",
    "flux",
    "core_frac",
    "b_maj",
    "b_min",
    "pa",
    "size",
    "class",
)
SDC1_SMALLEST_SIZE = 0.01
"""arcsec; the challenge's scorer drops every source whose size is not above 0."""
_SDC1_CORE_FRACTION, _SDC1_SIZE, _SDC1_CLASS = 0.0375, 2, 3


def write_catalogue(
    table: Table,
    path: PathLike,
    *,
    format: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    inputs: Iterable[PathLike] = (),
) -> Path:
    """Write a catalogue: complete or not at all, and never over an input.

    Parameters
    ----------
    table : Table
        Columns with unit, description and ``meta["ucd"]`` (see ``columns.annotate``). No rows are fine.
    path : path-like
        Missing folders are made. An earlier catalogue there is replaced.
    format : {"fits", "votable", "parquet", "ecsv", "csv", "sdc1"}, optional
        Default: by the ending of the path.
    parameters : mapping, optional
        The options and versions of the run; every format but csv and sdc1 carries them.
    inputs : iterable of path-like
        Files that must not be overwritten.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    OptionError
        When the format is not known.
    OutputError
        When the file cannot be written, or is an input.
    """
    path = Path(path)
    if (format or _format_of(path)) == "sdc1":
        return write_sdc1(table, path, inputs=inputs)
    writer = WRITERS.get(format or _format_of(path))
    if writer is None:
        raise OptionError(
            f"expected a format among {', '.join([*WRITERS, 'sdc1'])}, got {format or path.suffix!r}"
        )
    with _replacing(path, inputs) as file:
        writer(table, parameters or {}, file)
    return path


def read_catalogue(path: PathLike, *, format: str | None = None) -> Table:
    """Read a catalogue with units, descriptions and UCDs (``column.meta["ucd"]``).

    Parameters
    ----------
    path : path-like
    format : str, optional
        As in ``write_catalogue``; default: by the ending of the path.

    Returns
    -------
    Table
        The run's parameters are in ``meta["parameters"]``, where the format carries them.

    Raises
    ------
    InputError
        When there is no such file or it is not a table of that format.
    """
    path = Path(path)
    kind = format or _format_of(path)
    reader = read_sdc1 if kind == "sdc1" else READERS.get(kind)
    if reader is None:
        raise InputError(
            f"{path}: expected a catalogue as {', '.join([*READERS, 'sdc1'])}, got {kind!r}; name its format",
            path=str(path),
        )
    if not path.is_file():
        raise InputError(
            f"{path}: expected a catalogue, there is no such file; check the path", path=str(path)
        )
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:  # every reader below has its own errors for damaged files
        raise InputError(
            f"{path}: expected a catalogue in {kind}, it cannot be read "
            f"({' '.join(str(error).split())[:160]}); fetch or write it again",
            path=str(path),
        ) from error


def _format_of(path: Path) -> str:
    return {**SUFFIXES, ".txt": "sdc1", ".dat": "sdc1"}.get(path.suffix.lower(), path.suffix)


def write_regions(
    table: Table,
    path: PathLike,
    *,
    label: str | None = None,
    colour: str = "green",
    inputs: Iterable[PathLike] = (),
) -> Path:
    """Write the sources as ellipses for DS9 and CARTA.

    The drawn ellipse is the half-maximum contour: its axes are ``maj`` and ``min``, with the major axis on
    ``pa`` east of north. Sources without a size are drawn as points.

    Parameters
    ----------
    table : Table
        With ra, dec (deg), maj, min (arcsec, FWHM) and pa (deg).
    path : path-like
    label : str, optional
        Column whose value is written beside each ellipse.
    colour : str
        A colour of DS9.
    inputs : iterable of path-like
        Files that must not be overwritten.
    """
    path = Path(path)
    ra, dec, major, minor, pa = (
        np.asarray(table[name], dtype=float) for name in ("ra", "dec", "maj", "min", "pa")
    )
    sized = np.isfinite(major) & np.isfinite(minor) & (minor > 0)
    # DS9 takes half axes and counts from the longitude axis: with the major axis first, that is pa + 90 deg.
    angle = np.where(np.isfinite(pa), pa, 0.0) % 180.0 + 90.0
    lines = ["# Region file format: DS9 version 4.1", f"global color={colour}", "icrs"]
    texts = (
        [f" # text={{{text}}}" for text in np.asarray(table[label]).tolist()] if label else [""] * len(table)
    )
    for a, d, size, big, small, turn, text in zip(
        ra.tolist(),
        dec.tolist(),
        sized.tolist(),
        (major / 2).tolist(),
        (minor / 2).tolist(),
        angle.tolist(),
        texts,
        strict=True,
    ):
        if size:
            lines.append(f'ellipse({a:.8f},{d:.8f},{big:.4f}",{small:.4f}",{turn:.3f}){text}')
        else:
            lines.append(f"point({a:.8f},{d:.8f}){text}")
    with _replacing(path, inputs) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


def write_sdc1(table: Table, path: PathLike, *, inputs: Iterable[PathLike] = ()) -> Path:
    """Write a submission to SKA Science Data Challenge 1: 12 columns under one line of names.

    ``flux_best`` (Jy, without the primary beam) and the intrinsic sizes ``maj_best`` and ``min_best`` are
    handed in. The challenge's position angle is 90 degrees minus the one east of north. Its scorer folds angles so
    that those 180 degrees apart differ, and its truth has star-forming galaxies in [-90, 90]: so are ours. Core
    fraction, size type (2: Gaussian) and class (3: star-forming galaxy) are those of 97% of the challenge's
    sources, unless the table has columns ``core_frac``, ``size_class`` and ``source_class``.

    Parameters
    ----------
    table : Table
        Rows without a flux above 0 are left out: the scorer would refuse or drop them.
    path : path-like
    inputs : iterable of path-like
        Files that must not be overwritten.

    Raises
    ------
    OutputError
        When source ids repeat (the scorer would drop sources), fluxes are not in Jy, or the place cannot be
        written.
    """
    path = Path(path)
    unit = table["flux_best"].unit
    if unit is not None and unit.to_string() != "Jy":
        try:
            factor = unit.to("Jy")
        except ValueError as error:
            raise OutputError(
                f"{path}: a SDC1 submission holds fluxes in Jy, got {unit}; leave out this format "
                f"or open an image in Jy/beam",
                path=str(path),
            ) from error
    else:
        factor = 1.0
    flux = np.asarray(table["flux_best"], dtype=float) * factor
    ids = np.asarray(table["source_id"], dtype=np.int64)
    if len(np.unique(ids)) != len(ids):
        raise OutputError(
            f"{path}: a SDC1 submission needs ids that differ, got {len(ids) - len(np.unique(ids))} "
            f"repeated ones; number the rows again",
            path=str(path),
        )
    ra = (np.asarray(table["ra"], dtype=float) + 180.0) % 360.0 - 180.0
    dec = np.asarray(table["dec"], dtype=float)
    major, minor = (_at_least(table[name], SDC1_SMALLEST_SIZE) for name in ("maj_best", "min_best"))
    pa = np.asarray(table["pa_best"], dtype=float)
    pa = 90.0 - np.where(np.isfinite(pa), pa, 0.0)
    # Rounded as printed, or 89.9996 would read 90.000.
    pa = (np.round(pa, 3) + 90.0) % 180.0 - 90.0
    constants = (
        ("core_frac", _SDC1_CORE_FRACTION),
        ("size_class", _SDC1_SIZE),
        ("source_class", _SDC1_CLASS),
    )
    core, size, kind = (
        np.asarray(table[name]) if name in table.colnames else np.full(len(table), value)
        for name, value in constants
    )
    kept = np.isfinite(flux) & (flux > 0) & np.isfinite(ra) & np.isfinite(dec)
    columns = (ids, ra, dec, ra, dec, flux, core, major, minor, pa, size, kind)
    form = "{:d} {:.8f} {:.8f} {:.8f} {:.8f} {:.8e} {:.6f} {:.4f} {:.4f} {:.3f} {:.0f} {:.0f}"
    lines = [" ".join(SDC1_COLUMNS)]
    lines += [form.format(*row) for row in zip(*(column[kept].tolist() for column in columns), strict=True)]
    with _replacing(path, inputs) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


def _at_least(column: Any, smallest: float) -> np.ndarray:
    values = np.asarray(column, dtype=float)
    return np.where(np.isfinite(values), np.maximum(values, smallest), smallest)


def read_sdc1(path: PathLike) -> Table:
    """Read a truth list, training list or submission of SDC1: 12 columns or more under a header of any length.

    Training lists have a thirteenth, ``selection``: 1 for sources that the image holds.
    """
    path = Path(path)
    with open(path) as file:
        lines = [line for line in file if line.strip()]
    # Submissions have a line of names, the challenge's training lists 18 lines of text.
    first = next((number for number, line in enumerate(lines) if _is_row(line)), None)
    lines = [line for line in lines if _is_number(line.split()[0])] if first is None else lines[first:]
    rows = np.loadtxt(lines, ndmin=2) if lines else np.empty((0, len(SDC1_COLUMNS)))
    if rows.shape[1] < len(SDC1_COLUMNS):
        raise InputError(
            f"{path}: expected the {len(SDC1_COLUMNS)} columns of SDC1 ({' '.join(SDC1_COLUMNS)}), got "
            f"{rows.shape[1]}; check that this is a SDC1 list",
            path=str(path),
        )
    table = Table({name: rows[:, index] for index, name in enumerate(SDC1_COLUMNS)})
    if rows.shape[1] >= len(SDC1_COLUMNS) + 3:
        table["selection"] = rows[:, len(SDC1_COLUMNS)]
    for name in ("id", "size", "class", "selection"):
        if name in table.colnames:
            table[name] = table[name].astype(np.int64)
    for name, unit in (
        ("ra_core", "deg"),
        ("dec_core", "deg"),
        ("ra_cent", "deg"),
        ("dec_cent", "deg"),
        ("flux", "Jy"),
        ("b_maj", "arcsec"),
        ("b_min", "arcsec"),
        ("pa", "deg"),
    ):
        table[name].unit = unit
    return table


def _is_row(line: str) -> bool:
    """Whether a line holds numbers only, as many as a SDC1 list has columns."""
    words = line.split()
    return len(words) >= len(SDC1_COLUMNS) and all(_is_number(word) for word in words)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def iau_name(ra: Any, dec: Any, *, prefix: str = "SKS") -> Any:
    """IAU style names from ICRS positions: "SKS J003012.34-294512.3".

    Coordinates are truncated, not rounded, as the IAU asks: a name says in which cell of the sky it lies.

    Parameters
    ----------
    ra, dec : float or array_like
        Degrees.
    prefix : str
        Acronym of the survey.

    Returns
    -------
    str or ndarray of str
        Empty where a position is not finite.
    """
    ra, dec = np.broadcast_arrays(np.asarray(ra, dtype=float), np.asarray(dec, dtype=float))
    finite = np.isfinite(ra) & np.isfinite(dec)
    # A millionth of the last digit makes up for decimal values that binary fractions miss from below.
    seconds = np.floor(np.where(finite, ra, 0.0) % 360.0 / 15 * 360_000 + 1e-6).astype(np.int64) % 8_640_000
    arcsec = np.floor(np.abs(np.where(finite, dec, 0.0)) * 36_000 + 1e-6).astype(np.int64)
    names = [
        f"{prefix} J{s // 360_000:02d}{s // 6000 % 60:02d}{s // 100 % 60:02d}.{s % 100:02d}"
        f"{'-' if south else '+'}{a // 36_000:02d}{a // 600 % 60:02d}{a // 10 % 60:02d}.{a % 10}"
        if good
        else ""
        for s, a, south, good in zip(
            seconds.ravel().tolist(),
            arcsec.ravel().tolist(),
            np.signbit(dec).ravel().tolist(),
            finite.ravel().tolist(),
            strict=True,
        )
    ]
    return names[0] if ra.ndim == 0 else np.array(names, dtype=str).reshape(ra.shape)


@contextmanager
def _replacing(path: Path, inputs: Iterable[PathLike]) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends well, and vanishes otherwise."""
    for given in inputs:
        if path.resolve() == Path(given).resolve() or (
            path.exists() and Path(given).exists() and path.samefile(given)
        ):
            raise OutputError(
                f"{path}: expected a new file, this is an input of the run; choose another folder with -o",
                path=str(path),
            )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(
            f"{path}: expected a place that can be written, got {error.strerror or error}; choose "
            f"another folder with -o, or free space",
            path=str(path),
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
