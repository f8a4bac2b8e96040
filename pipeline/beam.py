"""The beam of an image whose header names none: estimated from its sources, or from its noise's texture."""

from __future__ import annotations

import numpy as np

from survey_io.background import BackgroundMap, PixelReader
from survey_io.errors import InputError

FWHM = 2 * np.sqrt(2 * np.log(2.0))
# Estimates outside of this range are not believed (px).
RANGE = (1.2, 30.0)
SIDE = 1024


def estimate_beam(pixels: PixelReader, background: BackgroundMap) -> float:
    """FWHM of a round beam in px.

    The curvature of ln(intensity) at the peak of a compact source gives its width; among sources above 15
    sigma the 20th percentile is taken, since extended ones are only wider. With fewer than eight of them, the
    noise's correlation between neighbours gives it, for noise that was convolved with the beam.

    Parameters
    ----------
    pixels : PixelReader
        Up to nine windows of 1024 px are read.
    background : BackgroundMap
        Of the same image.

    Returns
    -------
    float
        px, within 1.2 to 30.

    Raises
    ------
    InputError
        When all windows are blank.
    """
    ny, nx = pixels.shape
    widths, correlations = [], []
    for fy in (0.5,) if ny <= SIDE else (0.2, 0.5, 0.8):
        for fx in (0.5,) if nx <= SIDE else (0.2, 0.5, 0.8):
            y, x = int(fy * ny) - SIDE // 2, int(fx * nx) - SIDE // 2
            window = (slice(y, y + SIDE), slice(x, x + SIDE))
            level, rms = background.sample(window)
            snr = (pixels.read(window) - level) / rms
            widths.append(_source_widths(snr))
            # At 3 sigma the cut alone made a beam of 7 px 8 % too narrow; at 4 it leaves 0.5 %.
            quiet = np.where(np.abs(snr) < 4, snr, np.nan)
            if not np.isfinite(quiet).any():
                continue
            along_y, along_x = quiet[1:] * quiet[:-1], quiet[:, 1:] * quiet[:, :-1]
            products = np.concatenate([along_y.ravel(), along_x.ravel()])
            correlations.append(np.nanmean(products) / np.nanmean(quiet**2))
    found = np.concatenate(widths)
    if len(found) >= 8:
        return float(np.clip(np.percentile(found, 20), *RANGE))
    if not correlations:
        raise InputError(
            "expected an image of which the beam can be estimated, it is blank; give --beam MAJOR,MINOR,PA"
        )
    correlation = np.clip(np.nanmedian(correlations), 1e-3, 0.999)
    return float(np.clip(FWHM * np.sqrt(-0.5 / np.log(correlation)), *RANGE))


def _source_widths(snr: np.ndarray) -> np.ndarray:
    """FWHM (px, geometric mean of the axes) of the local maxima above 15 sigma, from log curvatures."""
    inner = snr[1:-1, 1:-1]
    with np.errstate(invalid="ignore"):
        peak = inner > 15
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                if (dy, dx) != (1, 1):
                    peak &= inner >= snr[dy : dy + inner.shape[0], dx : dx + inner.shape[1]]
    y, x = np.nonzero(peak)
    centre = np.log(snr[y + 1, x + 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        along_x = 2 * centre - np.log(snr[y + 1, x]) - np.log(snr[y + 1, x + 2])
        along_y = 2 * centre - np.log(snr[y, x + 1]) - np.log(snr[y + 2, x + 1])
        widths = FWHM / np.sqrt(np.sqrt(along_x * along_y))
    return widths[np.isfinite(widths)]
