"""From detections and measurements in pixels to a catalogue on the sky, with units and recommended values."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import Table

from models.detections import Detections
from survey_io.catalogue import iau_name
from survey_io.columns import Flag, make_table
from survey_io.observation import Observation
from survey_io.primary_beam import LOW_RESPONSE

# Where the weights' card does not say: S/N from which the fit is recommended over the network for shapes, and the
# fit's share in the weighted geometric mean of both fluxes, by S/N.
FIT_FROM = {"major": 25.0, "minor": 25.0, "angle": 25.0}
FLUX_WEIGHT = {"snr": [5.0, 20.0], "weight": [0.0, 1.0]}
MEAN_ABSOLUTE_TO_SIGMA = 1.2533
SMALLEST_AXIS = 0.1
# What recommendations are made of, and what is recommended.
_READ = (
    "flux", "flux_net", "maj_deconv", "min_deconv", "pa_deconv", "pa", "maj_net", "min_net", "pa_net", "snr",
)  # fmt: skip
BEST = ("flux_best", "maj_best", "min_best", "pa_best")


def build_catalogue(
    observation: Observation,
    found: Detections,
    measured: dict[str, np.ndarray],
    *,
    factor: int,
    background: np.ndarray,
    p_real: np.ndarray,
    gain: np.ndarray | None,
    has_network: bool,
    calibration: dict[str, Any] | None = None,
) -> Table:
    """Assemble the catalogue.

    Parameters
    ----------
    observation : Observation
        With its beam set.
    found : Detections
        Kept detections, in pixels of the (binned) image.
    measured : dict of ndarray
        `measure_sources` of the same rows.
    factor : int
        Pixels of the full image per pixel of ``found`` and ``measured``, 1 unless binned.
    background : ndarray, shape (n,)
        Background at the sources, image unit.
    p_real : ndarray, shape (n,)
    gain : ndarray, shape (n,), or None
        Primary-beam response; fluxes and noise are divided by it.
    has_network : bool
        Whether the parameters of ``found`` come from a network.
    calibration : dict, optional
        Of the weights' card: ``fit_from``, the S/N per kind of column ("major", "minor", "angle") from which the fit is
        recommended, ``flux_weight`` (``snr``, ``weight``), the fit's share in the recommended flux, and ``scale``,
        factors by column that a survey's values were found to need before they are recommended.

    Returns
    -------
    Table
        All columns of `survey_io.columns.IMAGE_COLUMNS`, rows as given.
    """
    x = (measured["x"] + 0.5) * factor - 0.5
    y = (measured["y"] + 0.5) * factor - 0.5
    ra, dec = observation.pixel_to_sky(x, y)
    unit, scale = _unit(observation)
    response = np.ones(len(x)) if gain is None else gain
    to_flux = scale / response

    def on_sky(major: np.ndarray, minor: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, ...]:
        return observation.ellipse_to_sky(x, y, major * factor, minor * factor, theta)

    fitted = on_sky(measured["major"], measured["minor"], measured["theta"])
    angle = np.nan_to_num(measured["theta_deconv"])
    # A minor axis near 0 is the root of a rounding error: below a tenth of the beam it is not a size.
    beam_px = np.sqrt(np.prod(observation.beam_pixels()[:2])) / factor
    minor_deconv = np.where(measured["minor_deconv"] < SMALLEST_AXIS * beam_px, 0.0, measured["minor_deconv"])
    deconvolved = list(on_sky(measured["major_deconv"], minor_deconv, angle))
    deconvolved[1] = np.where(minor_deconv > 0, deconvolved[1], 0.0)
    pixel = observation.pixel_scale * factor
    jacobian = np.abs(observation.jacobian(x, y)) * factor
    x_err, y_err = measured["x_err"], measured["y_err"]
    p = found.params
    net = on_sky(p["major"], p["minor"], p["theta"])
    columns: dict[str, Any] = {
        "source_id": np.arange(1, len(x) + 1),
        "name": iau_name(ra, dec),
        "ra": ra, "dec": dec,
        "ra_err": np.hypot(jacobian[:, 0, 0] * x_err, jacobian[:, 0, 1] * y_err),
        "dec_err": np.hypot(jacobian[:, 1, 0] * x_err, jacobian[:, 1, 1] * y_err),
        "x": x, "y": y,
        "peak_flux": measured["peak"] * to_flux, "peak_flux_err": measured["peak_err"] * to_flux,
        "flux": measured["flux"] * to_flux, "flux_err": measured["flux_err"] * to_flux,
        "maj": fitted[0], "min": fitted[1], "pa": fitted[2],
        "maj_err": measured["major_err"] * pixel, "min_err": measured["minor_err"] * pixel,
        "pa_err": np.minimum(np.degrees(measured["theta_err"]), 90.0),
        "maj_deconv": deconvolved[0], "min_deconv": deconvolved[1],
        "pa_deconv": np.where(np.isfinite(measured["theta_deconv"]), deconvolved[2], np.nan),
        "snr": measured["snr"],
        "local_rms": measured["local_rms"] * to_flux,
        "background": background * scale,
        "pb_gain": response,
        "score": found.score,
        "p_real": p_real,
        "n_blend": measured["n_blend"],
    }  # fmt: skip
    flags = measured["flags"].astype(np.int32)
    if observation.beam is not None and observation.beam.origin == "estimated":
        flags = flags | Flag.BEAM_ASSUMED
    if gain is not None:
        flags = flags | np.where(response < LOW_RESPONSE, int(Flag.LOW_PRIMARY_BEAM), 0)
    columns["flags"] = flags
    if has_network:
        noise = columns["local_rms"]
        columns["flux_net"] = p["flux_snr"] * noise
        columns["flux_net_err"] = MEAN_ABSOLUTE_TO_SIGMA * p["flux_error"] * noise
        columns["maj_net"], columns["min_net"], columns["pa_net"] = net
    _recommend(columns, has_network, calibration or {})
    return make_table(columns, unit)


def _unit(observation: Observation) -> tuple[Any, float]:
    """Unit of the catalogue's pixel values and the factor to it: Jy/beam where the image can be converted."""
    from survey_io.errors import InputError

    try:
        return "Jy/beam", observation.jansky_per_beam()
    except InputError:
        return observation.unit, 1.0


def recommend(table: Table, calibration: dict[str, Any]) -> Table:
    """A copy of a catalogue with the recommended columns as another calibration has them."""
    table = table.copy()
    columns = {name: np.ma.filled(np.ma.asarray(table[name]), np.nan) for name in _READ if name in table.colnames}
    columns["flags"] = np.asarray(table["flags"])
    _recommend(columns, "flux_net" in columns, calibration)
    for name in BEST:
        table[name][:] = columns[name]
    return table


def _recommend(columns: dict[str, Any], has_network: bool, calibration: dict[str, Any]) -> None:
    """Fill flux_best, maj_best, min_best, pa_best: the network's values at low S/N, the fit's at high S/N.

    A source whose fit failed keeps the network's values at any S/N; where there is no network the fit is all.
    """
    columns, given = _scaled(columns, calibration.get("scale", {})), columns
    _choose(columns, has_network, calibration)
    given |= {name: columns[name] for name in BEST}


def _scaled(columns: dict[str, Any], scale: dict[str, float]) -> dict[str, Any]:
    """Columns with a survey's factors in them; what was measured stays as it was."""
    return {name: value * scale[name] if name in scale else value for name, value in columns.items()}


def _choose(columns: dict[str, Any], has_network: bool, calibration: dict[str, Any]) -> None:
    resolved = columns["maj_deconv"] > 0
    fitted_pa = np.where(resolved, columns["pa_deconv"], columns["pa"])
    if not has_network:
        columns["flux_best"] = columns["flux"]
        columns["maj_best"], columns["min_best"] = columns["maj_deconv"], columns["min_deconv"]
        columns["pa_best"] = fitted_pa
        return
    fit_from = {**FIT_FROM, **calibration.get("fit_from", {})}
    snr = np.nan_to_num(columns["snr"])
    good = (columns["flags"] & (Flag.FIT_FAILED | Flag.BLANK)) == 0

    def choose(kind: str, fit: np.ndarray, network: np.ndarray, usable: np.ndarray = good) -> np.ndarray:
        return np.where(usable & (snr >= fit_from[kind]), fit, network)

    curve = calibration.get("flux_weight", FLUX_WEIGHT)
    weight = np.interp(np.log(np.maximum(snr, 1.0)), np.log(curve["snr"]), curve["weight"])
    fitted_flux = np.where(good & (columns["flux"] > 0), columns["flux"], columns["flux_net"])
    fit, network = (np.log(np.maximum(flux, 1e-30)) for flux in (fitted_flux, columns["flux_net"]))
    columns["flux_best"] = np.exp(weight * fit + (1 - weight) * network)
    columns["maj_best"] = choose("major", columns["maj_deconv"], columns["maj_net"], good & resolved)
    # A minor axis at 0 is a limit, not a size: the network's guess stands, within the fitted major axis.
    both = good & resolved & (columns["min_deconv"] > 0)
    columns["min_best"] = np.minimum(
        choose("minor", columns["min_deconv"], columns["min_net"], both), columns["maj_best"]
    )
    columns["pa_best"] = choose("angle", fitted_pa, columns["pa_net"], good & resolved)
