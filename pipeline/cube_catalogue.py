"""From detections and measurements in voxels to a cube's catalogue on the sky, with units and physical quantities."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.table import Table

from models.detections import Detections
from pipeline.best_estimates import recommend
from survey_io.catalogue import iau_name
from survey_io.columns import Flag
from survey_io.cube import Cube
from survey_io.cube_columns import make_cube_table
from survey_io.errors import InputError
from survey_io.primary_beam import LOW_RESPONSE, line_beam_gain

LIGHT = 299792.458
# HI mass in solar masses of 1 Jy Hz at 1 Mpc (Meyer et al. 2017).
MASS_PER_FLUX = 49.8
# HI diameter in kpc at 1 solar mass per pc^2: log D = 0.51 log M - 3.29 (Wang et al. 2016).
SIZE_SLOPE, SIZE_ZERO = 0.51, -3.29
# Cosmology of the size relation where none is asked for; angular sizes hardly depend on it.
DEFAULT_COSMOLOGY = (67.0, 0.32)
# Thickness of discs; a disc is taken as resolved when its size is this many beams.
THICKNESS, RESOLVED_BEAMS = 0.2, 2.0
# log (w20 / sin i) = zero + slope log M(HI), of the galaxies that SDC2 was made from.
WIDTH_ZERO, WIDTH_SLOPE, WIDTH_SCATTER = 0.745, 0.186, 0.16
# Without a resolved shape and redshift: the median inclination of discs turned at random.
RANDOM_INCLINATION, RANDOM_INCLINATION_ERR = 60.0, 21.0


def build_cube_catalogue(
    cube: Cube,
    found: Detections,
    measured: dict[str, np.ndarray],
    *,
    p_real: np.ndarray,
    cosmology: tuple[float, float] | None = None,
    error_factors: dict[str, float] | None = None,
    primary_beam: Path | None = None,
) -> Table:
    """Assemble a cube's catalogue.

    Parameters
    ----------
    cube : Cube
    found : Detections
        Kept detections, (channel, y, x).
    measured : dict of ndarray
        `measure_lines` of the same rows.
    p_real : ndarray, shape (n,)
    cosmology : (H0, Omega_m), optional
        Of a flat universe; without it ``hi_mass`` is NaN.
    error_factors : dict of float, optional
        Factor of the measurement's error, by the column's name, where it is averaged with the network's estimate; from
        the card of the weights.
    primary_beam : Path, optional
        FITS image or cube of the response; fluxes and noise are divided by it.

    Returns
    -------
    Table
        All columns of `survey_io.cube_columns.CUBE_COLUMNS`, rows as given.
    """
    m, plane, spectral = measured, cube.plane, cube.spectral
    x, y, z = m["x"], m["y"], m["z"]
    ra, dec = plane.pixel_to_sky(x, y)
    try:
        unit, scale = "Jy/beam", plane.jansky_per_beam()
    except InputError:
        unit, scale = plane.unit, 1.0
    gain = np.ones(len(x))
    if primary_beam is not None:
        gain = line_beam_gain(primary_beam, ra, dec, spectral.frequency(z))
    scale = scale / gain
    jacobian = np.abs(plane.jacobian(x, y)).reshape(-1, 2, 2)
    frequency, channel = spectral.frequency(z), spectral.width(z)
    columns: dict[str, Any] = {
        "source_id": np.arange(1, len(x) + 1), "name": iau_name(ra, dec), "ra": ra, "dec": dec,
        "ra_err": np.hypot(jacobian[:, 0, 0] * m["x_err"], jacobian[:, 0, 1] * m["y_err"]),
        "dec_err": np.hypot(jacobian[:, 1, 0] * m["x_err"], jacobian[:, 1, 1] * m["y_err"]),
        "x": x, "y": y, "z": z, "frequency": frequency, "frequency_err": m["z_err"] * channel,
        "line_flux": m["flux"] * scale, "line_flux_err": m["flux_err"] * scale,
        "peak_flux": m["peak"] * scale, "local_rms": m["local_rms"] * scale, "snr": m["snr"],
        "peak_snr": found.params.get("peak_snr", np.full(len(x), np.nan)),
        "pb_gain": gain, "score": found.score, "p_real": p_real,
        "line_score": m.get("line_score", np.full(len(x), np.nan)), "n_blend": m["n_blend"], "n_voxels": m["n_voxels"],
        **{f"{axis}_{end}": m[f"{axis}_{end}"] for axis in "xyz" for end in ("min", "max")},
    }  # fmt: skip
    shape = [np.nan_to_num(m[name]) for name in ("major", "minor", "theta")]
    columns["maj"], columns["min"], columns["pa"] = plane.ellipse_to_sky(x, y, *shape)
    columns["kin_pa"] = _sky_angle(plane, x, y, m["kin_dx"], m["kin_dy"])
    columns["kin_pa_err"] = np.degrees(np.nan_to_num(m["kin_err"], nan=np.pi / 2))
    flags = m["flags"].astype(np.int32)
    if plane.beam is not None and plane.beam.origin == "estimated":
        flags = flags | Flag.BEAM_ASSUMED
    columns["flags"] = flags | np.where(gain < LOW_RESPONSE, int(Flag.LOW_PRIMARY_BEAM), 0)
    columns["inclination"], columns["inclination_err"] = _inclination(m)
    if spectral.rest_frequency is not None:
        _velocities(columns, m, spectral)
        _sizes(columns, m, cube, cosmology)
    _estimates(columns, found.params, cube)
    columns |= recommend(columns, error_factors or {})
    return make_cube_table(columns, unit)


def _estimates(columns: dict[str, Any], p: dict[str, np.ndarray], cube: Cube) -> None:
    """The network's own estimates, where there is a network; fluxes are corrected as ``local_rms`` is."""
    if "net_flux" not in p:
        return
    plane, spectral, z = cube.plane, cube.spectral, columns["z"]
    per_unit = columns["local_rms"] * spectral.width(z)
    columns["line_flux_net"], columns["line_flux_net_err"] = p["net_flux"] * per_unit, p["net_flux_error"] * per_unit
    columns["hi_size_net"] = p["net_size"] * plane.pixel_scale
    columns["hi_size_net_err"] = columns["hi_size_net"] * p["net_size_scale"]
    if spectral.rest_frequency is not None:
        columns["w20_net"] = p["net_w20"] * spectral.velocity_width(z, 1.0) * spectral.width(z)
        columns["w20_net_err"] = columns["w20_net"] * p["net_w20_scale"]
    columns["inclination_net"] = np.degrees(p["net_inclination"])
    columns["inclination_net_err"] = np.degrees(p["net_inclination_error"])
    # The network tells where the gas of low channels is; that recedes where channels rise in frequency.
    sign = 1.0 if spectral.frequency(1) > spectral.frequency(0) else -1.0
    theta = np.asarray(p["net_theta"], float)
    columns["kin_pa_net"] = _sky_angle(plane, columns["x"], columns["y"], sign * np.cos(theta), sign * np.sin(theta))
    columns["kin_pa_net_err"] = np.degrees(np.minimum(p["net_theta_error"], np.pi / 2))


def _sky_angle(plane: Any, x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Position angle, east of north in [0, 360), of a direction in pixels; NaN where there is none."""
    jacobian = plane.jacobian(x, y).reshape(-1, 2, 2)
    east = jacobian[:, 0, 0] * dx + jacobian[:, 0, 1] * dy
    north = jacobian[:, 1, 0] * dx + jacobian[:, 1, 1] * dy
    with np.errstate(invalid="ignore"):
        return np.degrees(np.arctan2(east, north)) % 360.0


def _velocities(columns: dict[str, Any], m: dict[str, np.ndarray], spectral: Any) -> None:
    z = m["z"]
    columns["redshift"] = spectral.redshift(z)
    columns["v_opt"], columns["v_rad"] = spectral.velocity_optical(z), spectral.velocity_radio(z)
    per_hz = spectral.velocity_width(z, 1.0)
    columns["line_flux_kms"] = columns["line_flux"] * per_hz
    columns["line_flux_kms_err"] = columns["line_flux_err"] * per_hz
    per_channel = per_hz * spectral.width(z)
    for name in ("w20", "w20_err", "w50", "w50_err"):
        columns[name] = m[name] * per_channel


def _inclination(m: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Inclination in degrees of a disc of finite thickness, from its axes without the beam."""
    major, minor = np.nan_to_num(m["major_deconv"]), np.nan_to_num(m["minor_deconv"])
    resolved = major > 0
    ratio = np.where(resolved, minor / np.where(resolved, major, 1.0), 0.5)
    cosine = np.sqrt(np.clip((ratio**2 - THICKNESS**2) / (1 - THICKNESS**2), 0, 1))
    error = np.clip(np.degrees(1.5 / np.maximum(m["snr"], 1.0)) * 2, 5, RANDOM_INCLINATION_ERR)
    return (
        np.where(resolved, np.degrees(np.arccos(cosine)), RANDOM_INCLINATION),
        np.where(resolved, error, RANDOM_INCLINATION_ERR),
    )


def _sizes(
    columns: dict[str, Any], m: dict[str, np.ndarray], cube: Cube, cosmology: tuple[float, float] | None
) -> None:
    """HI diameter, from the isophote where it is well resolved, else from the mass; HI mass when asked for."""
    redshift = np.clip(np.nan_to_num(columns["redshift"]), 3e-4, None)
    flux = np.clip(np.nan_to_num(np.asarray(columns["line_flux"], float)), 1e-9, None)
    model = _cosmology(*(cosmology or DEFAULT_COSMOLOGY))
    luminosity = model.luminosity_distance(redshift).value
    mass = MASS_PER_FLUX * luminosity**2 * flux
    kpc = 10 ** (SIZE_SLOPE * np.log10(mass) + SIZE_ZERO)
    angular = luminosity / (1 + redshift) ** 2
    by_mass = kpc / (1e3 * angular) * 206264.806
    pixel, beam = cube.plane.pixel_scale, cube.plane.beam
    isophote = np.nan_to_num(m["isophote"]) * pixel
    use = isophote > RESOLVED_BEAMS * np.sqrt(beam.major * beam.minor)
    columns["hi_size"] = np.where(use, isophote, by_mass)
    # The relation's scatter is 0.06 dex; half of the flux's error comes on top.
    relative = np.hypot(0.14, 0.5 / np.maximum(columns["snr"], 1.0))
    _inclination_by_width(columns, m, mass)
    columns["hi_size_err"] = np.where(use, 0.5 * beam.major / np.maximum(columns["snr"] / 10, 1), relative * by_mass)
    if cosmology is not None:
        columns["hi_mass"] = np.where(columns["redshift"] > 0, mass, np.nan)


def _inclination_by_width(columns: dict[str, Any], m: dict[str, np.ndarray], mass: np.ndarray) -> None:
    """Where no shape is resolved: the inclination at which a disc of that HI mass has the width seen."""
    intrinsic, scatter = WIDTH_ZERO + WIDTH_SLOPE * np.log10(mass), WIDTH_SCATTER
    with np.errstate(invalid="ignore"):
        sine = np.clip(np.nan_to_num(columns["w20"]) / 10**intrinsic, 0.17, 0.98)
    unresolved = ~(np.nan_to_num(m["major_deconv"]) > 0)
    angle = np.degrees(np.arcsin(sine))
    error = np.degrees(sine / np.sqrt(1 - sine**2)) * scatter * np.log(10)
    columns["inclination"] = np.where(unresolved, angle, columns["inclination"])
    columns["inclination_err"] = np.where(unresolved, np.minimum(error, 25.0), columns["inclination_err"])


@lru_cache(maxsize=4)
def _cosmology(h0: float, matter: float) -> FlatLambdaCDM:
    return FlatLambdaCDM(H0=h0, Om0=matter)
