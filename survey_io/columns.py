"""Every column of an image catalogue and every quality flag, once: writers and documents read them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Column as TableColumn
from astropy.table import Table

__all__ = ["Column", "Flag", "IMAGE_COLUMNS", "annotate", "fill_table", "flags_text", "image_columns", "make_table"]


class Flag(IntFlag):
    """Quality flags: a source's ``flags`` is the sum of those that hold. 0 is a source without remarks."""

    EDGE = 1
    BLENDED = 2
    BLANK = 4
    NEAR_BRIGHT = 8
    FIT_FAILED = 16
    UNRESOLVED = 32
    BEAM_ASSUMED = 64
    HIGH_RESIDUAL = 128
    LOW_PRIMARY_BEAM = 256
    MULTI_COMPONENT = 512
    FLAGGED_CHANNELS = 1024
    SPECTRAL_EDGE = 2048

    @property
    def meaning(self) -> str:
        """What the flag says about a source; several flags are joined."""
        return "; ".join(_MEANINGS[flag] for flag in Flag if flag in self)


_MEANINGS = {
    Flag.EDGE: "the source reaches the edge of the image, so part of its flux is missing",
    Flag.BLENDED: "another source lies within a beam; the two were measured together",
    Flag.BLANK: "pixels without a value lie within the measured area",
    Flag.NEAR_BRIGHT: "near a far brighter source, whose sidelobes may have made or changed this one",
    Flag.FIT_FAILED: "the fit did not converge; flux and size come from moments or from the network",
    Flag.UNRESOLVED: "not larger than the beam within the errors; the deconvolved size is 0",
    Flag.BEAM_ASSUMED: "the image names no beam; it was estimated from the image",
    Flag.HIGH_RESIDUAL: "the fitted Gaussian leaves more than noise behind: not a single Gaussian",
    Flag.LOW_PRIMARY_BEAM: "the primary beam is below a fifth of its peak here; its correction is large",
    Flag.MULTI_COMPONENT: "several detections of one physical source were joined into this row",
    Flag.FLAGGED_CHANNELS: "channels without usable noise (interference, blank) lie within the line",
    Flag.SPECTRAL_EDGE: "the line reaches the first or last channel of the cube, so part of its flux is missing",
}


@dataclass(frozen=True)
class Column:
    """One column of a catalogue.

    Attributes
    ----------
    name : str
    unit : str or None
        As astropy and FITS write it; None for numbers without unit.
    ucd : str
        IVOA UCD1+.
    dtype : str
        numpy type.
    meaning : str
        One sentence, which every format carries as the description of the column.
    """

    name: str
    unit: str | None
    ucd: str
    dtype: str
    meaning: str


_SIZE = ("phys.angSize.smajAxis", "phys.angSize.sminAxis")
_FLUX = "phot.flux.density"

IMAGE_COLUMNS: list[Column] = [
    Column("source_id", None, "meta.id", "int64", "number of the source in this catalogue, from 1"),
    Column("name", None, "meta.id;meta.main", "U23", "IAU style name, coordinates truncated"),
    Column("ra", "deg", "pos.eq.ra;meta.main", "float64", "right ascension, ICRS"),
    Column("dec", "deg", "pos.eq.dec;meta.main", "float64", "declination, ICRS"),
    Column("ra_err", "arcsec", "stat.error;pos.eq.ra", "float32", "standard error of ra, times cos(dec)"),
    Column("dec_err", "arcsec", "stat.error;pos.eq.dec", "float32", "standard error of dec"),
    Column(
        "x", "pix", "pos.cartesian.x;instr.det", "float64", "column of the image, first pixel centre is 0"
    ),
    Column("y", "pix", "pos.cartesian.y;instr.det", "float64", "row of the image, first pixel centre is 0"),
    Column("peak_flux", "Jy/beam", f"{_FLUX};stat.max", "float32", "peak of the fitted Gaussian"),
    Column(
        "peak_flux_err", "Jy/beam", f"stat.error;{_FLUX};stat.max", "float32", "standard error of peak_flux"
    ),
    Column("flux", "Jy", _FLUX, "float32", "integrated flux density of the fitted Gaussian"),
    Column("flux_err", "Jy", f"stat.error;{_FLUX}", "float32", "standard error of flux"),
    Column("maj", "arcsec", _SIZE[0], "float32", "fitted major axis, FWHM, as seen through the beam"),
    Column("min", "arcsec", _SIZE[1], "float32", "fitted minor axis, FWHM, as seen through the beam"),
    Column("pa", "deg", "pos.posAng", "float32", "position angle of maj, east of north, in [0, 180)"),
    Column("maj_err", "arcsec", f"stat.error;{_SIZE[0]}", "float32", "standard error of maj"),
    Column("min_err", "arcsec", f"stat.error;{_SIZE[1]}", "float32", "standard error of min"),
    Column(
        "pa_err", "deg", "stat.error;pos.posAng", "float32", "standard error of pa; 90 when it is not known"
    ),
    Column(
        "maj_deconv", "arcsec", _SIZE[0], "float32", "maj with the beam taken out, FWHM; 0 when unresolved"
    ),
    Column(
        "min_deconv", "arcsec", _SIZE[1], "float32", "min with the beam taken out, FWHM; 0 when unresolved"
    ),
    Column("pa_deconv", "deg", "pos.posAng", "float32", "position angle of maj_deconv; NaN when unresolved"),
    Column("snr", None, "stat.snr", "float32", "peak_flux over local_rms"),
    Column("local_rms", "Jy/beam", "instr.det.noise", "float32", "rms of the noise around the source"),
    Column("background", "Jy/beam", "instr.background", "float32", "background that was taken off"),
    Column(
        "pb_gain",
        None,
        "arith.factor;instr.beam",
        "float32",
        "primary beam response; all fluxes and local_rms were divided by it; 1 when none was given",
    ),
    Column("score", None, "stat.value", "float32", "what the detector says of the detection, in [0, 1]"),
    Column("p_real", None, "stat.probability", "float32", "calibrated probability that the source is real"),
    Column("flux_net", "Jy", _FLUX, "float32", "flux by the network; NaN when the detector gives none"),
    Column("flux_net_err", "Jy", f"stat.error;{_FLUX}", "float32", "standard error of flux_net"),
    Column("maj_net", "arcsec", _SIZE[0], "float32", "intrinsic major axis by the network, FWHM"),
    Column("min_net", "arcsec", _SIZE[1], "float32", "intrinsic minor axis by the network, FWHM"),
    Column("pa_net", "deg", "pos.posAng", "float32", "position angle of maj_net, east of north"),
    Column(
        "flux_best", "Jy", _FLUX, "float32", "recommended flux: of fit and network the one that scores better"
    ),
    Column("maj_best", "arcsec", _SIZE[0], "float32", "recommended intrinsic major axis, FWHM"),
    Column("min_best", "arcsec", _SIZE[1], "float32", "recommended intrinsic minor axis, FWHM"),
    Column("pa_best", "deg", "pos.posAng", "float32", "recommended position angle, east of north"),
    Column("n_blend", None, "meta.number", "int32", "other sources within one beam"),
    Column(
        "flags",
        None,
        "meta.code.qual",
        "int32",
        "quality flags: " + ", ".join(f"{flag.value} {flag.name}" for flag in Flag),
    ),
]


def image_columns(unit: str | u.UnitBase | None = "Jy/beam") -> list[Column]:
    """The columns of a catalogue whose image has this unit.

    Parameters
    ----------
    unit : str, astropy unit or None
        Unit of the image values as they were measured. With "Jy/beam" integrated fluxes are in Jy; with any
        other they are in that unit times beam, and with None peak fluxes have no unit.
    """
    pixel = u.dimensionless_unscaled if unit is None else u.Unit(unit)
    if pixel == u.Jy / u.beam:
        return list(IMAGE_COLUMNS)
    names = {"Jy/beam": pixel.to_string() or None, "Jy": (pixel * u.beam).to_string()}
    return [replace(column, unit=names.get(column.unit or "", column.unit)) for column in IMAGE_COLUMNS]


def annotate(table: Table, unit: str | u.UnitBase | None = "Jy/beam") -> Table:
    """Give every known column of a table its unit, type, description and UCD, in place.

    Parameters
    ----------
    table : Table
        Columns with other names are left as they are.
    unit : str, astropy unit or None
        Unit of the image, see ``image_columns``.

    Returns
    -------
    Table
        The same table.
    """
    for column in image_columns(unit):
        if column.name not in table.colnames:
            continue
        data = table[column.name]
        if column.dtype[0] != "U" and data.dtype != np.dtype(column.dtype):
            table[column.name] = TableColumn(np.asarray(data).astype(column.dtype), name=column.name)
        data = table[column.name]
        data.unit, data.description, data.meta["ucd"] = column.unit, column.meaning, column.ucd
    return table


def fill_table(columns: Sequence[Column], values: Mapping[str, Any]) -> Table:
    """A table with the given columns in their order, each with unit, description and UCD.

    Parameters
    ----------
    columns : sequence of Column
    values : mapping of str to array (N,)
        Columns that are missing are NaN, 0 or empty. Names that are not columns go to the end.
    """
    length = max((len(value) for value in values.values()), default=0)
    table = Table()
    for column in columns:
        empty = np.nan if column.dtype.startswith("float") else "" if column.dtype[0] == "U" else 0
        table[column.name] = np.asarray(values.get(column.name, np.full(length, empty)), dtype=column.dtype)
        data = table[column.name]
        data.unit, data.description, data.meta["ucd"] = column.unit, column.meaning, column.ucd
    for name, value in values.items():
        if name not in table.colnames:
            table[name] = value
    return table


def make_table(values: Mapping[str, Any], unit: str | u.UnitBase | None = "Jy/beam") -> Table:
    """A catalogue with all columns in their order from arrays by name.

    Parameters
    ----------
    values : mapping of str to array (N,)
        Columns that are missing are NaN, 0 or empty. Names that are not columns of a catalogue go to the end.
    unit : str, astropy unit or None
        Unit of the image, see ``image_columns``.

    Returns
    -------
    Table
        N rows.
    """
    return fill_table(image_columns(unit), values)


def flags_text(flags: Any) -> Any:
    """Names of the flags that are set, as "EDGE|BLENDED"; empty for 0.

    Parameters
    ----------
    flags : int or array_like of int

    Returns
    -------
    str or ndarray of str
        The shape of the input.

    Raises
    ------
    ValueError
        When a bit is set that no flag has.
    """
    flags = np.asarray(flags, dtype=np.int64)
    unknown = np.bitwise_or.reduce(flags.ravel(), initial=0) & ~sum(Flag)
    if unknown:
        raise ValueError(f"expected flags between 0 and {sum(Flag)}, got the unknown bits {unknown}")
    distinct, where = np.unique(flags, return_inverse=True)
    texts = ["|".join(flag.name for flag in Flag if value & flag) for value in distinct.tolist()]
    if flags.ndim == 0:
        return texts[0]
    return np.array(texts, dtype=str).reshape(-1)[where].reshape(flags.shape) if texts else flags.astype(str)
