"""Which bins of a spectrum or light curve its file says must not be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u

if TYPE_CHECKING:
    from .spectra_columns import Columns

__all__ = ["SDSS_BAD", "bad_bins", "covered", "mask_bits", "quality_bits"]

# SDSS' spectral masks that say nothing usable came through in any exposure: FULLREJECT, NOSKY, BRIGHTSKY, NODATA.
# Others (LOWFLAT, BADFLAT, NEARBADPIXEL) mark whole fibres whose flux is good.
SDSS_BAD = 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24
# Attitude tweak, safe mode, coarse point, earth point, argabrightening, desaturation, manual exclude, impulsive outlier
# and stray light: what the TESS archive's manual leaves out.
_TESS_BAD = sum(1 << (bit - 1) for bit in (1, 2, 3, 4, 5, 6, 8, 10, 12))
# The like of Kepler: attitude tweak, safe mode, coarse point, earth point, desaturation, manual exclude, detector
# anomaly, no data, thruster firing.
_KEPLER_BAD = sum(1 << bit for bit in (0, 1, 2, 3, 5, 8, 14, 16, 20))


def mask_bits(meta: Mapping[str, Any]) -> int | None:
    """Bits of a survey's own mask that matter; None for all."""
    telescope = _word(meta, "TELESCOP", "MISSION")
    if telescope.startswith("TESS"):
        return _TESS_BAD
    if telescope.startswith(("KEPLER", "K2")):
        return _KEPLER_BAD
    return None if telescope.startswith("LAMOST") else SDSS_BAD


def quality_bits(meta: Mapping[str, Any]) -> int | None:
    """Bits of DQ that matter; None for all."""
    telescope = _word(meta, "TELESCOP")
    if telescope == "JWST":
        # DO_NOT_USE; others say how a value came about.
        return 1
    if telescope == "HST" and str(meta.get("SDQFLAGS", "")).isdigit():
        return int(meta["SDQFLAGS"])
    return None


def bad_bins(
    columns: Columns, axis: np.ndarray, unit: u.UnitBase, read: Callable[[str | None], np.ndarray | None]
) -> np.ndarray:
    """Bins that a mask column, or the coverage that a header tells, leaves out."""
    names = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in columns.names}
    bad = ~covered(columns.meta, axis, unit)
    meta = columns.meta
    space = _word(meta, "TELESCOP", "MISSION").startswith(("TESS", "KEPLER", "K2"))
    for candidates, bits in (
        (("andmask",), mask_bits(meta)),
        (("mask", "pixmask", "qual"), None),
        (("dq", "dqflags"), quality_bits(meta)),
        (("quality", "sapquality") if space else (), mask_bits(meta)),
    ):
        name = next((names[one] for one in candidates if one in names), None)
        values = None if name is None else read(name)
        if values is None or values.shape != axis.shape:
            continue
        flags = np.nan_to_num(values).astype(np.int64)
        bad |= (flags != 0) if bits is None else (flags & bits != 0)
    return bad


def covered(meta: Mapping[str, Any], axis: np.ndarray, unit: u.UnitBase) -> np.ndarray:
    """Where the header says that there are observations.

    The Indo-US library (Valdes et al. 2004) writes a filler where nothing was observed; COVERAGE and GAPS tell where.
    """
    inside = np.ones(axis.shape, bool)
    if unit != u.Angstrom:
        return inside
    ranges = {key: _ranges(str(meta.get(key, ""))) for key in ("COVERAGE", "GAPS")}
    if ranges["COVERAGE"]:
        inside = _within(axis, ranges["COVERAGE"])
    return inside & ~_within(axis, ranges["GAPS"])


def _ranges(text: str) -> list[tuple[float, float]]:
    return [(float(low), float(high)) for low, high in re.findall(r"(\d+(?:\.\d*)?)\s*-\s*(\d+(?:\.\d*)?)", text)]


def _within(axis: np.ndarray, ranges: list[tuple[float, float]]) -> np.ndarray:
    inside = np.zeros(axis.shape, bool)
    for low, high in ranges:
        # Ends belong to it; they are rounded to one digit.
        inside |= (axis >= low - 0.05) & (axis <= high + 0.05)
    return inside


def _word(meta: Mapping[str, Any], *keys: str) -> str:
    return next((str(meta[key]).strip().upper() for key in keys if meta.get(key)), "")
