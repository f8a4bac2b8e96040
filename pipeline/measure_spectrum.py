"""Measurement of detected lines on a spectrum: centre, width, flux, equivalent width, with errors and flags.

Centre and width are Gaussian-weighted moments, the weight as wide as the line: for a Gaussian line they are nearly as
good as a fit, and they hold for any profile that is symmetric. What a line gets depends on the spectrum and the other
lines, never on the tile it was found in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_io.columns import Flag

__all__ = ["COLUMNS", "measure_spectrum_lines", "noise_correlation"]

Array = NDArray[np.float64]
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
COLUMNS = (
    "z", "z_err", "width", "width_err", "flux", "flux_err", "peak", "rms", "level", "lost", "lost_err", "snr", "first",
    "last", "flags",
)  # fmt: skip
# Channels are summed to this many FWHM on either side, and on while a step of so many more adds flux beyond doubt.
APERTURE, APERTURE_STEP, MOST_APERTURE, ADDS_SIGMA = 1.1, 0.3, 4.0, 2.5
# Moments are iterated so often, or until the centre moves by less than this, channels; they may not leave what the
# detector said by more than these shares of its width.
ITERATIONS, SETTLED, MOST_SHIFT, MOST_CHANGE = 40, 1e-4, 0.6, 2.5
# From this S/N of the smoothed peak the width is read at half the peak.
HALF_PEAK_SNR = 12.0
# A continuum is one from this many times the rms.
CONTINUUM_SNR = 3.0
# Channels that the level at a place rests on.
LEVEL_CHANNELS = 300
# Errors of centre and width are these shares of the width over the S/N of a filter of its shape.
CENTRE_ERROR, WIDTH_ERROR = 0.68, 1.5
# Lags over which correlations of the noise are looked for.
LAGS = 4


def noise_correlation(snr: Array) -> float:
    """How much noisier sums over many channels are than those of white noise: 1 for white noise.

    Parameters
    ----------
    snr : ndarray, shape (n,)
        NaN where blank; channels beyond 4 sigma and their neighbours are left out.
    """
    clean = np.where(np.abs(snr) < 4, snr, np.nan)
    clean[1:][np.isnan(clean[:-1])] = np.nan
    known = np.isfinite(clean)
    if known.sum() < 50:
        return 1.0
    # Differences are free of what changes slowly: a bent continuum is not noise.
    total, variance = 0.0, None
    structure = []
    for lag in range(1, LAGS + 4):
        pair = known[lag:] & known[:-lag]
        step = clean[lag:][pair] - clean[:-lag][pair]
        structure.append(float(np.mean(step**2)) if pair.sum() > 30 else np.nan)
    variance = float(np.nanmedian(structure[LAGS:])) / 2
    if not variance > 0:
        return 1.0
    for value in structure[:LAGS]:
        rho = 1 - value / (2 * variance)
        # Below their own error correlations are none, and so is what lies behind the first of these.
        if not rho > 2 / np.sqrt(known.sum()):
            break
        total += rho
    return float(np.sqrt(1 + 2 * total))


def measure_spectrum_lines(flux: Array, level: Array, rms: Array, lines: dict[str, Array]) -> dict[str, Array]:
    """Measure detected lines.

    Parameters
    ----------
    flux : ndarray, shape (n,)
        NaN where blank.
    level, rms : ndarray, shape (n,)
        As `survey_io.continuum.estimate_continuum`.
    lines : dict of ndarray, shape (m,)
        ``z`` and ``width`` (FWHM) in channels and ``sign`` of all detections, ascending in z.

    Returns
    -------
    dict of ndarray, shape (m,)
        `COLUMNS`: ``z`` and ``width`` in channels; ``flux`` and ``lost`` (flux over the continuum, the equivalent
        width) in the spectrum's unit times channels and in channels; ``peak``, ``rms``, ``level`` in the spectrum's
        unit; ``first`` and ``last`` channel summed.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = flux - level
        snr = np.where(np.isfinite(rms), excess / rms, np.nan)
    grown = noise_correlation(snr)
    rows = [_measure(excess, level, rms, snr, grown, lines, row) for row in range(len(lines["z"]))]
    integers = {"first", "last", "flags"}
    return {name: np.array([r[name] for r in rows], np.int64 if name in integers else np.float64) for name in COLUMNS}


def _measure(
    excess: Array, level: Array, rms: Array, snr: Array, grown: float, lines: dict[str, Array], row: int
) -> dict[str, Any]:
    count = len(excess)
    z, width, sign = (float(lines[name][row]) for name in ("z", "width", "sign"))
    low, high, blended = _room(lines, row, count)
    span = slice(low, high)
    channels = np.arange(low, high, dtype=float)
    own = sign * np.nan_to_num(snr[span])
    seen = np.isfinite(snr[span])
    flags = int(Flag.BLENDED) if blended else 0
    settled = _moments(channels, own, z, width)
    if settled is None:
        flags |= int(Flag.FIT_FAILED)
    else:
        z, width = settled
        width = _half_peak_width(channels, own, z, width) or width
    half = _aperture(channels, own, z, width, grown)
    inside = (np.abs(channels - z) <= half + 0.5) & seen
    if not inside.any():
        inside = seen & (np.abs(channels - z) <= max(half, 3.0))
    edges = np.flatnonzero(inside) if inside.any() else np.array([int(np.clip(round(z) - low, 0, len(own) - 1))])
    first, last = int(edges[0] + low), int(edges[-1] + low)
    flags |= int(Flag.FLAGGED_CHANNELS) * bool((~seen[edges[0] : edges[-1] + 1]).any())
    flags |= int(Flag.SPECTRAL_EDGE) * bool(z - half < -0.5 or z + half > count - 0.5)
    part, noise = excess[span][inside], rms[span][inside]
    # The level is a median of some hundred channels, and its error is common to all of the line's.
    common = 1.25 * float(noise.sum()) / np.sqrt(LEVEL_CHANNELS)
    flux, error = float(part.sum()), float(np.hypot(np.sqrt((noise**2).sum()), common)) * grown
    strength = abs(flux) / error if error > 0 else 0.0
    # Of what is smaller than its error no better error can be told.
    strong = max(_matched_snr(channels, own, z, width) / grown, 1.0)
    at = int(np.clip(round(z), 0, count - 1))
    # What was seen of simulated lines; the width's no better than profiles are Gaussian.
    width_err = float(np.hypot(WIDTH_ERROR * width / strong, 0.02 * width))
    if width < 2.0 + width_err:
        flags |= int(Flag.UNRESOLVED)
    lost, lost_err = _equivalent_width(excess, level, rms, span, inside, at, error)
    core = np.abs(channels - z) <= max(0.75 * width, 1.0)
    peak = float((sign * excess[span])[core & seen].max()) * sign if (core & seen).any() else float("nan")
    return {
        "z": z, "z_err": CENTRE_ERROR * width / strong, "width": width, "width_err": width_err, "flux": flux,
        "flux_err": error, "peak": peak, "rms": float(np.median(noise)) if len(noise) else float("nan"),
        "level": float(level[at]), "lost": lost, "lost_err": lost_err, "snr": strength, "first": first, "last": last,
        "flags": flags,
    }  # fmt: skip


def _room(lines: dict[str, Array], row: int, count: int) -> tuple[int, int, bool]:
    """Channels that a line may be measured in, up to where the next line begins; and whether one is near."""
    z, width = lines["z"][row], lines["width"][row]
    reach = MOST_APERTURE * width + 4
    low, high = z - reach, z + reach
    others = np.delete(np.arange(len(lines["z"])), row)
    blended = False
    for other in others[np.abs(lines["z"][others] - z) < 2 * reach]:
        at, wide = lines["z"][other], lines["width"][other]
        # The border lies between both in proportion to their widths.
        border = z + (at - z) * width / (width + wide)
        # A line within a much wider one does not end it.
        if abs(at - z) < 0.25 * width:
            blended = True
            continue
        blended |= abs(border - z) < APERTURE * width
        low, high = (max(low, border), high) if at < z else (low, min(high, border))
    first = int(np.clip(np.floor(low) + 1, 0, count - 1))
    return first, int(np.clip(np.floor(high) + 1, first + 1, count)), bool(blended)


def _moments(channels: Array, own: Array, z: float, width: float) -> tuple[float, float] | None:
    """Centre and FWHM by Gaussian-weighted moments whose weight becomes the line; None where they do not settle."""
    centre, sigma = z, max(width, 1.5) * FWHM_TO_SIGMA
    start = sigma
    for _ in range(ITERATIONS):
        weight = np.exp(-0.5 * ((channels - centre) / sigma) ** 2) * own
        total = weight.sum()
        if not total > 0:
            return None
        offset = channels - centre
        shift = float((weight * offset).sum() / total)
        second = float((weight * (offset - shift) ** 2).sum() / total)
        # A Gaussian under a Gaussian weight of its own width has half the variance and half the shift.
        if not 0 < second < 0.95 * sigma**2:
            return None
        new = np.sqrt(1 / (1 / second - 1 / sigma**2))
        centre += np.clip(2 * shift, -0.5 * sigma, 0.5 * sigma)
        sigma = float(np.clip(np.sqrt(sigma * new), start / MOST_CHANGE, start * MOST_CHANGE))
        if abs(centre - z) > MOST_SHIFT * width + 1:
            return None
        if abs(2 * shift) < SETTLED and abs(new / sigma - 1) < 1e-3:
            break
    return float(centre), float(max(sigma / FWHM_TO_SIGMA, 1.0))


def _half_peak_width(channels: Array, own: Array, z: float, width: float) -> float | None:
    """Width between the outer points at half the peak, where the line stands well above the noise; else None."""
    size = max(1, int(width / 6)) | 1
    kernel = np.ones(size) / size
    smooth = np.convolve(own, kernel, mode="same")
    near = np.abs(channels - z) <= max(0.8 * width, 1.5)
    peak = float(smooth[near].max()) if near.any() else 0.0
    if peak * np.sqrt(size) < HALF_PEAK_SNR or width < 4:
        return None
    half = 0.5 * peak
    middle = int(np.clip(round(z - channels[0]), 0, len(own) - 1))
    above = smooth >= half
    reach = int(np.ceil(1.5 * width))
    lit = np.flatnonzero(above[max(middle - reach, 0) : middle + reach + 1]) + max(middle - reach, 0)
    if len(lit) == 0 or lit[0] == 0 or lit[-1] == len(own) - 1:
        return None
    first, last = lit[0], lit[-1]
    left = first - (smooth[first] - half) / (smooth[first] - smooth[first - 1])
    right = last + (smooth[last] - half) / (smooth[last] - smooth[last + 1])
    seen = float(right - left)
    # The boxcar adds its variance to a Gaussian line's.
    return float(np.sqrt(max(seen**2 - (size**2 - 1) / 12 / FWHM_TO_SIGMA**2, 1.0)))


def _aperture(channels: Array, own: Array, z: float, width: float, grown: float) -> float:
    """Half the length of the channels to sum."""
    half = APERTURE * width
    while half < MOST_APERTURE * width:
        distance = np.abs(channels - z)
        shell = (distance > half + 0.5) & (distance <= half + APERTURE_STEP * width + 0.5)
        if shell.sum() < 2 or own[shell].sum() < ADDS_SIGMA * grown * np.sqrt(shell.sum()):
            break
        half += APERTURE_STEP * width
    return half


def _matched_snr(channels: Array, own: Array, z: float, width: float) -> float:
    """S/N in a Gaussian filter of the line's width, for white noise."""
    weight = np.exp(-0.5 * ((channels - z) / (max(width, 1.5) * FWHM_TO_SIGMA)) ** 2)
    return float((weight * own).sum() / np.sqrt((weight**2).sum()))


def _equivalent_width(
    excess: Array, level: Array, rms: Array, span: slice, inside: NDArray[np.bool_], at: int, error: float
) -> tuple[float, float]:
    """Lost flux over the continuum, channels; NaN without a continuum."""
    base = level[span][inside]
    if not len(base) or not level[at] > CONTINUUM_SNR * np.nanmedian(rms[span]) or not (base > 0).all():
        return float("nan"), float("nan")
    return float(-(excess[span][inside] / base).sum()), error / float(level[at])
