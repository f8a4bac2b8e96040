"""Measurement on the pixels: positions, fluxes, sizes and angles of detected sources, with errors and flags.

Every source is an elliptical Gaussian fitted to a cut-out from which its neighbours' models are subtracted,
first as guessed, then as fitted. What a source gets depends on its own pixels and on what lies within `reach`
of it, never on the window or the batch it is measured in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.cutouts import LADDER, Sky
from pipeline.fit_errors import fit_errors
from pipeline.gaussians import FWHM_PER_SIGMA, Array, BeamFrame, deconvolve
from pipeline.moments import SEMI_AXIS
from pipeline.source_fits import MeasureOptions, SourceFits
from survey_io.columns import Flag

__all__ = ["COLUMNS", "MeasureOptions", "measure_sources", "reach"]

COLUMNS = (
    "x",
    "y",
    "x_err",
    "y_err",
    "peak",
    "peak_err",
    "flux",
    "flux_err",
    "major",
    "minor",
    "theta",
    "major_err",
    "minor_err",
    "theta_err",
    "major_deconv",
    "minor_deconv",
    "theta_deconv",
    "snr",
    "local_rms",
    "chi2",
    "n_blend",
    "flags",
)
_GUESSES = ("x", "y", "flux", "major", "minor", "theta")
# Weight of a shape that was held, not fitted: its errors become those of the guess.
_HELD = 1e12


def reach(beam: tuple[float, float, float], *, options: MeasureOptions | None = None) -> int:
    """How far from a source pixels and other sources can change its measurement.

    Parameters
    ----------
    beam : (major, minor, theta)
        FWHM in pixels, radians.
    options : MeasureOptions, optional

    Returns
    -------
    int
        Pixels. Read windows with this margin, and hand over all sources in it, for results that do not depend
        on the windows.
    """
    options = options or MeasureOptions()
    fitted = options.aperture * LADDER[-1]
    return int(np.ceil((2 * options.neighbours + fitted) * beam[0])) + 2


def measure_sources(
    image: NDArray[np.floating],
    rms: NDArray[np.floating],
    sources: Mapping[str, ArrayLike],
    *,
    origin: tuple[int, int],
    beam: tuple[float, float, float],
    neighbours: Mapping[str, ArrayLike] | None = None,
    options: MeasureOptions | None = None,
    shape: tuple[int, int] | None = None,
) -> dict[str, NDArray]:
    """Measure the sources of a window.

    Parameters
    ----------
    image, rms : ndarray (h, w)
        Background-subtracted pixels and the noise at each, same unit; NaN = blank.
    sources : mapping of arrays (n,)
        First guesses: `x`, `y` (pixels of the full image), `flux` (integrated, image unit x beam), `major`,
        `minor` (apparent FWHM, pixels), `theta` (radians), and `owned` (bool; all when absent): only these
        are measured, the others are subtracted as neighbours.
    origin : (y, x)
        Pixel of the full image that is the window's first.
    beam : (major, minor, theta)
        FWHM in pixels, radians.
    neighbours : mapping of arrays, optional
        More sources that are only subtracted, without `owned`.
    options : MeasureOptions, optional
    shape : (ny, nx), optional
        Size of the full image, for the edge flag; None = the window's border is the image's.

    Returns
    -------
    dict of ndarray
        For each owned source, in order: `x`, `y`, `x_err`, `y_err` (pixels), `peak`, `peak_err` (image unit),
        `flux`, `flux_err` (image unit x beam), `major`, `minor` (apparent FWHM, pixels), `theta` (radians),
        their `_err`, `major_deconv`, `minor_deconv`, `theta_deconv` (0, 0, NaN for a point source), `snr`
        (peak over local rms), `local_rms`, `chi2` (reduced, expected 1), `n_blend` (sources within a beam),
        `flags` (`survey_io.columns.Flag`). A source without any valid pixel keeps its guesses, with NaN
        errors.

    Raises
    ------
    ValueError
        Shapes or columns that do not fit together. A bad source raises nothing: it is flagged.
    """
    image, rms = (np.ascontiguousarray(array, dtype=np.float32) for array in (image, rms))
    if image.ndim != 2 or image.shape != rms.shape:
        raise ValueError(
            f"expected image and rms of one 2D shape, got {image.shape} and {rms.shape}: "
            "read both for the same window"
        )
    guesses, owned = _join(sources, neighbours)
    fits = SourceFits(
        Sky(image, rms, (int(origin[0]), int(origin[1])), shape),
        BeamFrame(beam),
        guesses,
        owned,
        options or MeasureOptions(),
    )
    fits.run()
    return _results(fits)


def _join(
    sources: Mapping[str, ArrayLike], neighbours: Mapping[str, ArrayLike] | None
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """One table of guesses from sources and neighbours, and which of it to measure."""
    tables = [sources] if neighbours is None else [sources, neighbours]
    for table in tables:
        missing = [name for name in _GUESSES if name not in table]
        if missing:
            raise ValueError(
                f"expected sources with columns {', '.join(_GUESSES)}; missing {', '.join(missing)}"
            )
        lengths = {np.shape(table[name]) for name in _GUESSES}
        if len(lengths) != 1 or len(next(iter(lengths))) != 1:
            raise ValueError(f"expected source columns of one length, got shapes {sorted(lengths)}")
    count = len(np.asarray(sources["x"]))
    owned = np.asarray(sources.get("owned", np.ones(count)), dtype=bool)
    if owned.shape != (count,):
        raise ValueError(f"expected owned of shape ({count},), got {owned.shape}")
    guesses = {
        name: np.concatenate([np.asarray(table[name], float) for table in tables]) for name in _GUESSES
    }
    return guesses, np.concatenate([owned, np.zeros(guesses["x"].size - count, bool)])


def _results(fits: SourceFits) -> dict[str, NDArray]:
    """Columns of the owned sources."""
    frame, options, own = fits.frame, fits.options, np.flatnonzero(fits.owned)
    rms, peak, shape, held = fits.local_rms[own], fits.fit_peak[own], fits.fit_shape[:, own], fits.held[own]
    missing = ~np.isfinite(rms)
    snr = np.where(missing, np.nan, peak / np.where(missing, 1.0, rms))
    offset = frame.to_pixels @ fits.fit_centre[:, own]
    width = fits.width[:, own]
    precision = np.where(held, _HELD / width**2, fits.precision[:, own])
    state = np.concatenate([np.where(missing, 1.0, snr)[None], fits.fit_centre[:, own], shape])
    errors = fit_errors(frame, state, precision, width, fits.coverage[own], options.taper)
    peak = peak / (1 + np.where(held, 0.0, errors.bias))
    major, minor, theta = frame.ellipse(*shape)
    summed = np.isfinite(fits.flux[own])
    flux = np.where(summed, fits.flux[own], peak * np.exp(2 * shape[0]))
    n_blend, overlap, bright = (values[own] for values in _neighbourhood(fits))
    blank = np.where(missing, np.nan, 1.0)
    # Simulated pairs: what one source gains the other loses, and their errors grow with the overlap.
    shared = blank * (1 + 1.2 * np.minimum(overlap, 1.5))
    flux_err = np.where(summed, fits.flux_noise[own], flux * errors.flux)
    # Noise summed over an ellipse of semi-axis a: <x^2> = a^2 / 4, <x^4> = a^4 / 8 carry it to the moments.
    part = np.where(summed, flux_err / np.maximum(np.abs(flux), 1e-300), 0.0)
    axis = SEMI_AXIS * FWHM_PER_SIGMA
    x_err, y_err = (np.where(summed, part * SEMI_AXIS * major / 2, err) for err in (errors.x, errors.y))
    major_err, minor_err = (
        np.where(summed, part * axis**2 / np.sqrt(32) * size, err)
        for size, err in ((major, errors.major), (minor, errors.minor))
    )
    expected = np.maximum(fits.pixels[own] - errors.lost, 1.0)
    chi2 = fits.residual[own] / expected * blank

    deconvolved = deconvolve((major, minor, theta), (frame.major, frame.minor, frame.theta))
    excess = shape[0] + np.hypot(shape[1], shape[2]) / 2
    unresolved = ~(excess > options.resolved * major_err / major) | (deconvolved[0] == 0)
    zero, nothing = np.zeros(own.size), np.full(own.size, np.nan)
    major_deconv, minor_deconv, theta_deconv = (
        np.where(unresolved, empty, value)
        for empty, value in zip((zero, zero, nothing), deconvolved, strict=True)
    )

    flags = fits.flags[own]
    for flag, holds in (
        (Flag.BLENDED, n_blend > 0),
        (Flag.NEAR_BRIGHT, bright),
        (Flag.FIT_FAILED, held | missing),
        (Flag.BLANK, missing & fits.usable[own]),
        (Flag.UNRESOLVED, unresolved),
        (Flag.HIGH_RESIDUAL, chi2 > options.high_residual),
    ):
        flags = flags | np.where(holds, int(flag), 0)
    lost = ~fits.usable[own]
    values = (
        np.where(lost, fits.x[own], fits.ix[own] + offset[0]),
        np.where(lost, fits.y[own], fits.iy[own] + offset[1]),
        x_err * shared,
        y_err * shared,
        peak,
        peak * errors.peak * shared,
        flux,
        flux_err * shared,
        major,
        minor,
        theta,
        major_err * blank,
        minor_err * blank,
        errors.theta * blank,
        major_deconv,
        minor_deconv,
        theta_deconv,
        snr,
        rms,
        chi2,
        n_blend,
        flags,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _neighbourhood(fits: SourceFits) -> tuple[NDArray[np.int64], Array, NDArray[np.bool_]]:
    """For all sources: how many others within a beam, their overlap, and whether one is far brighter."""
    first, second, count = fits.first, fits.second, fits.x.size
    within = np.bincount(first[fits.separation <= fits.frame.major], minlength=count)
    # The correlation of two beams at that distance.
    overlap = np.exp2(-2 * np.square(fits.separation) / (fits.frame.major * fits.frame.minor))
    ratio = fits.peak[second] / np.maximum(fits.peak[first], 1e-300)
    bright = np.zeros(count, bool)
    bright[first[ratio > fits.options.bright_ratio]] = True
    return within, np.bincount(first, overlap, minlength=count), bright
