"""A second opinion on the detections of a cube: does the spectrum over each hold a line, says the network for spectra.

A detector of cubes judges voxels in a small surrounding; the network for spectra sees hundreds of channels on either
side, summed over the source, so that waves of the baseline, interference and residual continuum look like what they
are. What a source gets depends on its own lines of sight only, never on the tile it was found in.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.reliability import Calibration
from pipeline.spectrum_finders import SpectrumFinderSpec

Arrays = dict[str, np.ndarray]
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
# The aperture is a Gaussian as wide as the source, out to this many of its FWHM; channels of which less than this
# share of the aperture's weight was observed are blank.
APERTURE, LEAST_SEEN = 1.0, 0.5
# A line counts as the source's when it is nearer than this share of the source's width, or so many channels.
NEAR, NEAR_CHANNELS = 0.5, 6.0
# The widest lines that the network knows, channels.
WIDEST = 150.0
# Level and noise are those of channels farther than so many widths of the source from it.
OFF_LINE = 0.8


def source_spectra(
    pixels: Any, noise: Any, beam: tuple[float, float, float], sources: Arrays, reach: int
) -> np.ndarray:
    """Spectra over sources in units of their own noise, float32 (n, 2 * reach), NaN where blank.

    Parameters
    ----------
    pixels : CubeSource or ArrayCube
    noise : CubeNoise
    beam : (major, minor, theta)
        FWHM in px.
    sources : dict of ndarray, shape (n,)
        ``z``, ``y``, ``x`` and ``size_z``, ``size_y``, ``size_x`` (FWHM, channels and px).
    reach : int
        Channels on either side: a source's channel is number ``reach`` of its spectrum.
    """
    spectra = np.full((len(sources["z"]), 2 * reach), np.nan, np.float32)
    for row, spectrum in enumerate(spectra):
        z, y, x = (float(sources[axis][row]) for axis in "zyx")
        height, width = (max(float(sources[f"size_{axis}"][row]), beam[1]) for axis in "yx")
        first = round(z) - reach
        half = (math.ceil(APERTURE * height), math.ceil(APERTURE * width))
        window = (
            slice(first, first + 2 * reach),
            *(slice(max(round(c) - h, 0), min(round(c) + h + 1, n))
              for c, h, n in zip((y, x), half, pixels.shape[1:], strict=True)),
        )  # fmt: skip
        if window[1].start >= window[1].stop or window[2].start >= window[2].stop:
            continue
        rows, columns = np.ogrid[window[1], window[2]]
        distance = ((rows - y) / (height * FWHM_TO_SIGMA)) ** 2 + ((columns - x) / (width * FWHM_TO_SIGMA)) ** 2
        weight = np.exp(-0.5 * distance)
        voxels = pixels.read(window)
        voxels -= noise.level(window)
        voxels[~np.broadcast_to(noise.good(window), voxels.shape)] = np.nan
        seen = np.isfinite(voxels)
        total = np.einsum("zyx,yx->z", np.where(seen, voxels, 0), weight)
        share = np.einsum("zyx,yx->z", seen, weight)
        channel = np.clip(np.arange(window[0].start, window[0].stop), 0, pixels.shape[0] - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(share > LEAST_SEEN * weight.sum(), total / share / noise.channel_rms[channel], np.nan)
        off = values[np.abs(np.arange(2 * reach) - reach) > OFF_LINE * float(sources["size_z"][row])]
        off = off[np.isfinite(off)]
        if len(off) < 20:
            continue
        level = np.median(off)
        scatter = 1.4826 * np.median(np.abs(off - level))
        if scatter > 0:
            spectrum[:] = (values - level) / scatter
    return spectra


def vet_lines(
    pixels: Any, noise: Any, beam: tuple[float, float, float], sources: Arrays, finder: SpectrumFinderSpec,
    calibration: dict[str, float],
) -> np.ndarray:  # fmt: skip
    """Probability that the spectrum over each source holds a line at its channel, shape (n,); NaN where there is none.

    Parameters
    ----------
    pixels, noise, beam, sources
        As `source_spectra`.
    finder : SpectrumFinderSpec
        Of a network for spectra.
    calibration : dict
        ``slope`` and ``intercept`` of its card.
    """
    if len(sources["z"]) == 0:
        return np.empty(0)
    # What an anchor near the line sees, and the anchors that count.
    reach = finder.halo + math.ceil(NEAR * WIDEST / finder.stride) * finder.stride
    spectra = source_spectra(pixels, noise, beam, sources, reach)
    at, logit, emission = finder.presence(spectra)
    stated = Calibration(**calibration).probability(logit) * emission
    near = np.maximum(NEAR * np.minimum(sources["size_z"], WIDEST), NEAR_CHANNELS)
    inside = np.abs(at[None] - reach) <= near[:, None]
    best = np.where(inside, stated, 0.0).max(axis=1)
    return np.where(np.isfinite(spectra[:, reach - 1 : reach + 2]).any(axis=1), best, np.nan)
