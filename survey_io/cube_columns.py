"""Every column of a cube's catalogue, once: writers and documents read them here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from astropy import units as u
from astropy.table import Table

from .columns import IMAGE_COLUMNS, Column, fill_table

__all__ = ["CUBE_COLUMNS", "cube_columns", "make_cube_table"]

_IMAGE = {column.name: column for column in IMAGE_COLUMNS}
_LINE, _WIDTH = "phot.flux;spect.line", "spect.line.width"
_SIZE = "phys.angSize"

# What a network estimates beside its measurement.
_ESTIMATED = (
    ("line_flux", "Jy Hz", _LINE, "flux density integrated over the line"),
    ("w20", "km/s", _WIDTH, "width of the line at 20% of its peaks, observed frame"),
    ("hi_size", "arcsec", f"{_SIZE}.smajAxis", "HI diameter at 1 solar mass per square parsec, without the beam"),
    ("kin_pa", "deg", "pos.posAng;phys.veloc.rotat", "position angle of the receding side, east of north, in [0, 360)"),
    ("inclination", "deg", "src.orbital.inclination", "inclination of the disc, 0 is face on"),
)

CUBE_COLUMNS: list[Column] = [
    *(_IMAGE[name] for name in ("source_id", "name", "ra", "dec", "ra_err", "dec_err", "x", "y")),
    Column("z", "pix", "pos.cartesian.z;instr.det", "float64", "channel of the cube, the first channel's centre is 0"),
    Column("frequency", "Hz", "em.freq;spect.line", "float64", "frequency of the line's flux-weighted centre"),
    Column("frequency_err", "Hz", "stat.error;em.freq", "float32", "standard error of frequency"),
    Column("redshift", None, "src.redshift", "float64", "rest frequency over frequency, less 1"),
    Column("v_opt", "km/s", "spect.dopplerVeloc.opt", "float64", "optical velocity, c times redshift"),
    Column("v_rad", "km/s", "spect.dopplerVeloc.radio", "float64", "radio velocity, c (1 - frequency / rest)"),
    Column("line_flux", "Jy Hz", _LINE, "float32", "flux density integrated over the line"),
    Column("line_flux_err", "Jy Hz", f"stat.error;{_LINE}", "float32", "standard error of line_flux"),
    Column("line_flux_kms", "Jy km/s", _LINE, "float32", "line_flux in velocity, optical convention"),
    Column("line_flux_kms_err", "Jy km/s", f"stat.error;{_LINE}", "float32", "standard error of line_flux_kms"),
    Column("peak_flux", "Jy/beam", "phot.flux.density;stat.max", "float32", "highest voxel of the source"),
    replace(_IMAGE["local_rms"], meaning="rms of a voxel's noise around the source, at its channel"),
    Column("snr", None, "stat.snr", "float32", "line_flux over line_flux_err"),
    Column("peak_snr", None, "stat.snr;stat.max", "float32", "S/N of the best filter, or of the detection"),
    Column("w20", "km/s", _WIDTH, "float32", "width of the line at 20% of its peaks, observed frame"),
    Column("w20_err", "km/s", f"stat.error;{_WIDTH}", "float32", "standard error of w20"),
    Column("w50", "km/s", _WIDTH, "float32", "width of the line at 50% of its peaks, observed frame"),
    Column("w50_err", "km/s", f"stat.error;{_WIDTH}", "float32", "standard error of w50"),
    Column("hi_size", "arcsec", f"{_SIZE}.smajAxis", "float32",
           "HI diameter at 1 solar mass per square parsec, without the beam; from the flux where unresolved"),
    Column("hi_size_err", "arcsec", f"stat.error;{_SIZE}.smajAxis", "float32", "standard error of hi_size"),
    Column("maj", "arcsec", f"{_SIZE}.smajAxis", "float32", "major axis of the moment-0 map, FWHM, through the beam"),
    Column("min", "arcsec", f"{_SIZE}.sminAxis", "float32", "minor axis of the moment-0 map, FWHM, through the beam"),
    Column("pa", "deg", "pos.posAng", "float32", "position angle of maj, east of north, in [0, 180)"),
    Column("kin_pa", "deg", "pos.posAng;phys.veloc.rotat", "float32",
           "position angle of the receding side, east of north, in [0, 360)"),
    Column("kin_pa_err", "deg", "stat.error;pos.posAng", "float32", "standard error of kin_pa; 90 when not known"),
    Column("inclination", "deg", "src.orbital.inclination", "float32", "inclination of the disc, 0 is face on"),
    Column("inclination_err", "deg", "stat.error;src.orbital.inclination", "float32", "standard error of inclination"),
    *(
        Column(f"{name}_net", unit, f"{ucd};meta.modelled", "float32", f"{meaning}, as the network says; NaN without")
        for name, unit, ucd, meaning in _ESTIMATED
    ),
    *(
        Column(f"{name}_net_err", unit, f"stat.error;{ucd.split(';')[0]}", "float32", f"standard error of {name}_net")
        for name, unit, ucd, meaning in _ESTIMATED
    ),
    *(
        Column(f"{name}_best", unit, ucd, "float32", f"{meaning}: mean of measurement and network's estimate")
        for name, unit, ucd, meaning in _ESTIMATED
    ),
    Column("n_voxels", None, "meta.number;instr.pixel", "int32", "voxels that were summed"),
    *(
        Column(f"{axis}_{end}", "pix", f"pos.cartesian.{axis};stat.{end}", "int32", f"{word} {name} of the source")
        for axis, name in (("x", "column"), ("y", "row"), ("z", "channel"))
        for end, word in (("min", "first"), ("max", "last"))
    ),
    Column("hi_mass", "solMass", "phys.mass", "float32", "HI mass, with the cosmology of the run; NaN when none"),
    *(_IMAGE[name] for name in ("pb_gain", "score", "p_real")),
    Column("line_score", None, "stat.probability;spect.line", "float32",
           "probability, by the network for spectra, that the spectrum over the source holds its line"),
    *(_IMAGE[name] for name in ("n_blend", "flags")),
]  # fmt: skip


def cube_columns(unit: str | u.UnitBase | None = "Jy/beam") -> list[Column]:
    """The columns of a catalogue whose cube has this unit.

    Parameters
    ----------
    unit : str, astropy unit or None
        Unit of the voxels as measured. With any other than "Jy/beam" line fluxes are in that unit times beam times Hz.
    """
    voxel = u.dimensionless_unscaled if unit is None else u.Unit(unit)
    if voxel == u.Jy / u.beam:
        return list(CUBE_COLUMNS)
    summed = voxel * u.beam
    names = {
        "Jy/beam": voxel.to_string() or None,
        "Jy Hz": (summed * u.Hz).to_string(),
        "Jy km/s": (summed * u.km / u.s).to_string(),
    }
    return [replace(column, unit=names.get(column.unit or "", column.unit)) for column in CUBE_COLUMNS]


def make_cube_table(values: Mapping[str, Any], unit: str | u.UnitBase | None = "Jy/beam") -> Table:
    """A cube's catalogue with all columns in their order from arrays by name.

    Parameters
    ----------
    values : mapping of str to array (N,)
        Columns that are missing are NaN, 0 or empty. Names that are not columns go to the end.
    unit : str, astropy unit or None
        Of the cube's voxels, see `cube_columns`.
    """
    return fill_table(cube_columns(unit), values)
