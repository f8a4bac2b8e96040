"""SDC1 catalogues: the text files of the challenge and the conversion of other tables to their columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from survey_io.catalogue import SDC1_COLUMNS
from survey_io.errors import InputError
from survey_io.quiet import quiet

TRAINING_COLUMNS = (*SDC1_COLUMNS, "selection", "x", "y")
_INTEGERS = {"id", "size", "class", "selection"}


def read_sdc1(path: str | Path) -> np.ndarray:
    """Read a catalogue in the text format of SDC1.

    Headers of any length are skipped (none in the truth lists, one line in submissions, 18 in the training
    lists):
    the table starts at the first line that holds at least 12 numbers and nothing else. Rows with a NaN
    are dropped, as the official scorer does.

    Parameters
    ----------
    path : str or Path
        Text file, columns separated by blanks; further columns beyond the 15 of the training lists are
        ignored.

    Returns
    -------
    numpy.ndarray
        Structured array with `SDC1_COLUMNS`, and `selection`, `x`, `y` (pixels from 0) where the file has 15
        columns.
        Positions and `pa` in degrees, flux in Jy, sizes in arcsec. Position angles follow the challenge:
        clockwise
        from the direction of longitude, so that ``pa = 90 - (degrees east of north)``.

    Raises
    ------
    InputError
        The file cannot be read or holds no line with 12 numbers.
    """
    path = Path(path)
    try:
        skip, width = _find_table(path)
        with quiet(UserWarning):
            names = TRAINING_COLUMNS if width >= len(TRAINING_COLUMNS) else SDC1_COLUMNS
            values = np.loadtxt(path, skiprows=skip, usecols=range(len(names)), ndmin=2, dtype=np.float64)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as an SDC1 catalogue ({error}).") from error
    except ValueError as error:
        raise InputError(
            f"{path}: expected rows of {width} numbers as in line {skip + 1}, got: {error};"
            " repair or remove that row"
        ) from error
    return _to_structured(values[~np.isnan(values).any(axis=1)], names)


def _find_table(path: Path) -> tuple[int, int]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            tokens = line.split()
            if len(tokens) >= len(SDC1_COLUMNS) and all(_is_number(token) for token in tokens):
                return number, len(tokens)
    raise InputError(
        f"{path}: expected an SDC1 catalogue (rows of {len(SDC1_COLUMNS)} numbers: {' '.join(SDC1_COLUMNS)}),"
        " found no such row; is it another kind of table?"
    )


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def _to_structured(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    kinds = [(name, np.int64 if name in _INTEGERS else np.float64) for name in names]
    table = np.empty(len(values), dtype=kinds)
    for column, name in enumerate(names):
        table[name] = values[:, column]
    return table


def sdc1_columns(table: Any) -> dict[str, np.ndarray]:
    """The 12 SDC1 columns of a table as float64 arrays (n,), masked values as NaN.

    Parameters
    ----------
    table : structured array, astropy Table, mapping of arrays
        Anything that gives a column for ``table[name]``.

    Raises
    ------
    InputError
        A column is missing or not numeric, or lengths differ.
    """
    known = column_names(table)
    missing = [name for name in SDC1_COLUMNS if name not in known]
    if missing:
        raise InputError(
            f"expected the SDC1 columns, but {', '.join(missing)} is missing among {', '.join(known)};"
            " convert a skysift catalogue with as_sdc1 first."
        )
    columns = {name: float_column(table, name) for name in SDC1_COLUMNS}
    if len({len(values) for values in columns.values()}) > 1:
        raise InputError(
            f"expected columns of one length, got { ({k: len(v) for k, v in columns.items()}) }."
        )
    return columns


def column_names(table: Any) -> list[str]:
    """Names of the columns of a structured array, an astropy Table or a mapping."""
    if isinstance(table, np.ndarray):
        return list(table.dtype.names or ())
    if isinstance(table, Mapping):
        return list(table)
    return [str(name) for name in getattr(table, "colnames", getattr(table, "columns", ()))]


def float_column(table: Any, name: str) -> np.ndarray:
    """A column as a float64 array (n,), masked values as NaN, without its unit."""
    try:
        values = np.ma.asarray(
            np.ma.array(getattr(table[name], "value", table[name]), dtype=np.float64, copy=True)
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name}: expected numbers ({error}).") from error
    return np.atleast_1d(values.filled(np.nan))


def as_sdc1(
    table: Any,
    keys: Mapping[str, str] | None = None,
    *,
    size: int = 2,
    source_class: int = 3,
    core_fraction: float = 0.0375,
) -> np.ndarray:
    """A skysift catalogue as an SDC1 submission; a table that has the SDC1 columns already passes unchanged.

    Parameters
    ----------
    table : structured array, astropy Table, mapping of arrays
        With `ra`, `dec`, flux (Jy) and intrinsic sizes (arcsec FWHM) with `pa` (degrees east of north).
    keys : mapping, optional
        Names of the columns that give ``flux``, ``maj``, ``min`` and ``pa``. Default: `flux_best`,
        `maj_best`,
        `min_best`, `pa_best` where the table has them, else `flux`, `maj_deconv`, `min_deconv`, `pa_deconv`.
    size, source_class, core_fraction : constants of columns that an image alone does not tell
        2 (Gaussian FWHM), 3 (star-forming galaxy) and the mean core fraction: right for 97% of the
        sources that SDC1 images show.

    Returns
    -------
    numpy.ndarray
        Structured array (n,) with `SDC1_COLUMNS`; `pa` = 90 - pa in [-90, 90), the range of the truth's
        star-forming galaxies: the official scorer folds angles that differ by 180 degrees to different ones.
        Rows without a finite position or a positive flux are left out: one NaN or negative value changes the
        official score of all rows.
    """
    known = column_names(table)
    if all(name in known for name in SDC1_COLUMNS):
        return _to_structured(np.column_stack(list(sdc1_columns(table).values())), SDC1_COLUMNS)
    suffixes = ("_best", "_deconv", "")
    chosen = dict(keys or {})
    for name in ("flux", "maj", "min", "pa"):
        candidates = [name + suffix for suffix in suffixes if name + suffix in known]
        if name not in chosen and candidates:
            chosen[name] = candidates[0]
    needed = ["ra", "dec", *(chosen.get(name, name) for name in ("flux", "maj", "min", "pa"))]
    missing = [name for name in needed if name not in known]
    if missing:
        raise InputError(f"expected a catalogue with {', '.join(needed)}; {', '.join(missing)} is missing.")
    ra, dec, flux, major, minor, pa = (float_column(table, name) for name in needed)
    values = np.empty((len(ra), len(SDC1_COLUMNS)))
    values[:, 0] = np.arange(len(ra))
    values[:, 1] = values[:, 3] = np.where(ra > 180.0, ra - 360.0, ra)
    values[:, 2] = values[:, 4] = dec
    values[:, 5] = flux
    values[:, 6] = core_fraction
    values[:, 7] = np.nan_to_num(major)
    values[:, 8] = np.nan_to_num(minor)
    values[:, 9] = (np.nan_to_num(90.0 - pa) + 90.0) % 180.0 - 90.0
    values[:, 10] = size
    values[:, 11] = source_class
    usable = np.isfinite(values).all(axis=1) & (flux > 0.0)
    return _to_structured(values[usable], SDC1_COLUMNS)
