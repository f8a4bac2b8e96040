"""Every column of a catalogue of spectral lines, once: writers and documents read them here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from astropy import units as u
from astropy.table import Table

from .columns import Column, Flag, fill_table

__all__ = ["LINE_COLUMNS", "LINE_FLAGS", "line_columns", "make_line_table"]

_POSITION, _WIDTH, _FLUX = "spect;spect.line", "spect.line.width", "spect.line.intensity"

# Of the flags of sources those that a line can have, in a spectrum's words.
LINE_FLAGS = {
    Flag.SPECTRAL_EDGE: "the line reaches the first or last channel, so part of its flux may be missing",
    Flag.FLAGGED_CHANNELS: "channels without a value lie within the line",
    Flag.BLENDED: "another line lies within the measured channels, which end halfway to it",
    Flag.FIT_FAILED: "the data did not settle centre and width; they are the detector's",
    Flag.UNRESOLVED: "not wider than two channels within the error",
}

# Units that depend on the file stand as "axis" (its spectral axis), "flux" and "flux axis".
LINE_COLUMNS: list[Column] = [
    Column("line_id", None, "meta.id", "int64", "number of the line in this catalogue, from 1"),
    Column("spectrum", None, "meta.id;meta.main", "U64", "name of the spectrum"),
    Column("row", None, "meta.record", "int32", "row of the file that holds the spectrum, from 0; -1 where it is one"),
    Column("kind", None, "meta.code.class;spect.line", "U10", "emission or absorption"),
    Column("centre", "axis", _POSITION, "float64", "centre of the line on the file's axis"),
    Column("centre_err", "axis", f"stat.error;{_POSITION}", "float32", "standard error of centre"),
    Column("channel", "pix", "pos.cartesian.z;spect.line", "float64",
           "centre in the spectrum's bins, counted from 0 along the ascending axis"),
    Column("channel_err", "pix", "stat.error;pos.cartesian.z", "float32", "standard error of channel"),
    Column("frequency", "Hz", "em.freq;spect.line", "float64", "frequency of the centre; NaN where it is not known"),
    Column("wavelength", "Angstrom", "em.wl;spect.line", "float64", "vacuum wavelength of the centre"),
    Column("velocity", "km/s", "spect.dopplerVeloc", "float64",
           "velocity of the centre, in the convention of the file, radio without one; NaN without a rest frequency"),
    Column("fwhm", "axis", _WIDTH, "float32", "width of the line at half its peak, as seen"),
    Column("fwhm_err", "axis", f"stat.error;{_WIDTH}", "float32", "standard error of fwhm"),
    Column("fwhm_channels", "pix", _WIDTH, "float32", "fwhm in channels"),
    Column("fwhm_kms", "km/s", _WIDTH, "float32", "fwhm as a velocity, c times the relative width"),
    Column("flux", "flux axis", _FLUX, "float32", "flux integrated over the line, less the continuum; negative: lost"),
    Column("flux_err", "flux axis", f"stat.error;{_FLUX}", "float32", "standard error of flux"),
    Column("peak", "flux", "phot.flux.density;stat.max", "float32", "highest channel (lowest in absorption), less it"),
    Column("local_rms", "flux", "instr.det.noise", "float32", "rms of a channel's noise around the line"),
    Column("continuum", "flux", "phot.flux.density;spect.continuum", "float32", "continuum at the centre"),
    Column("equivalent_width", "axis", "spect.line.eqWidth", "float32",
           "flux lost over the continuum's, positive in absorption; NaN where there is no continuum"),
    Column("equivalent_width_err", "axis", "stat.error;spect.line.eqWidth", "float32",
           "standard error of equivalent_width"),
    Column("snr", None, "stat.snr", "float32", "flux over flux_err, positive"),
    Column("first", "pix", "pos.cartesian.z;stat.min", "int32", "first channel that was summed"),
    Column("last", "pix", "pos.cartesian.z;stat.max", "int32", "last channel that was summed"),
    Column("flux_net", "flux axis", f"{_FLUX};meta.modelled", "float32", "flux as the detector says"),
    Column("flux_net_err", "flux axis", f"stat.error;{_FLUX}", "float32", "standard error of flux_net"),
    Column("fwhm_net", "axis", f"{_WIDTH};meta.modelled", "float32", "fwhm as the detector says"),
    Column("fwhm_net_err", "axis", f"stat.error;{_WIDTH}", "float32", "standard error of fwhm_net"),
    Column("score", None, "stat.value", "float32", "what the detector says of the line, in [0, 1]"),
    Column("p_real", None, "stat.probability", "float32", "calibrated probability that the line is real"),
    Column("flags", None, "meta.code.qual", "int32",
           "quality flags: " + ", ".join(f"{flag.value} {flag.name}" for flag in LINE_FLAGS)),
]  # fmt: skip


def line_columns(axis: u.UnitBase, flux: u.UnitBase) -> list[Column]:
    """The columns of a catalogue of lines in spectra of these units.

    Parameters
    ----------
    axis : astropy unit
        Of the spectral axis.
    flux : astropy unit
        Of the flux.
    """
    names = {name: unit.to_string() or None for name, unit in (("axis", axis), ("flux", flux))}
    names["flux axis"] = (flux * axis).to_string()
    kind = {"length": "em.wl;spect.line", "frequency": "em.freq;spect.line"}.get(str(axis.physical_type))
    position = kind or "spect.dopplerVeloc;spect.line"
    return [
        replace(column, unit=names.get(column.unit or "", column.unit), ucd=column.ucd.replace(_POSITION, position))
        for column in LINE_COLUMNS
    ]


def make_line_table(values: Mapping[str, Any], axis: u.UnitBase, flux: u.UnitBase) -> Table:
    """A catalogue of lines with all columns in their order from arrays by name.

    Parameters
    ----------
    values : mapping of str to array (N,)
        Columns that are missing are NaN, 0 or empty. Names that are not columns go to the end.
    axis, flux : astropy unit
        See `line_columns`.
    """
    return fill_table(line_columns(axis, flux), values)
