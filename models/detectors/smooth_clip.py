"""The weightless finder of lines in cubes: a bank of matched filters, clipped; what networks have to beat.

The S/N cube is smoothed with Gaussians on the sky and with boxcars along the channels; each filtered cube is divided
by its own noise, and voxels above the clip that no neighbour exceeds are candidates. Their extent is that of
the filter. Several filters see one galaxy: the suppression over the whole cube keeps the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from models.registry import register_model

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
# Gaussian kernels are cut at this many sigma.
TRUNCATE = 3.0
# S/N of a filtered voxel at which a detection is as likely as not, before the cube's own negative is asked.
EVEN_ODDS = 5.3
SAMPLE_SIDES = (256, 160, 160)


@dataclass(frozen=True)
class SmoothClip:
    """See the module's text.

    Attributes
    ----------
    kernels : tuple of float
        FWHM of the Gaussians on the sky, in beams; 0 for none.
    widths : tuple of int
        Boxcars along the channels, odd.
    clip : float
        Lowest S/N of a candidate in its filtered cube.
    """

    kernels: tuple[float, ...] = (0.0, 0.9, 2.0)
    widths: tuple[int, ...] = (1, 3, 7, 15, 31, 51)
    clip: float = 4.3

    name = "smooth-clip"

    @property
    def scales(self) -> list[tuple[float, int]]:
        """(kernel in beams, channels) of each filter."""
        return list(product(self.kernels, self.widths))

    def halo(self, beam_px: float) -> tuple[int, int, int]:
        """Voxels around a core that its candidates depend on, (channels, y, x)."""
        side = int(TRUNCATE * max(self.kernels) * beam_px * FWHM_TO_SIGMA + 0.5) + 2
        return (max(self.widths) // 2 + 2, side, side)

    def _filtered(self, snr: np.ndarray, beam_px: float):
        blank = ~np.isfinite(snr)
        clean = np.where(blank, np.float32(0), snr).astype(np.float32, copy=False)
        for kernel in self.kernels:
            sky = clean
            if kernel > 0:
                sigma = kernel * beam_px * FWHM_TO_SIGMA
                for axis in (1, 2):
                    sky = gaussian_filter1d(sky, sigma, axis=axis, mode="constant", truncate=TRUNCATE)
            for width in self.widths:
                if width == 1:
                    yield kernel, width, sky
                elif width <= snr.shape[0]:
                    yield kernel, width, uniform_filter1d(sky, width, axis=0, mode="constant")

    def find(self, snr: np.ndarray, beam_px: float, scale_rms: Sequence[float]) -> dict[str, np.ndarray]:
        """Candidates of one window.

        Parameters
        ----------
        snr : ndarray of float32, shape (C, H, W)
            S/N with NaN where blank.
        beam_px : float
            FWHM of the beam, px.
        scale_rms : sequence of float
            Noise of each filtered cube, by `measure_scale_rms`; NaN for filters that are not used.

        Returns
        -------
        dict of ndarray
            ``z``, ``y``, ``x``; ``size`` (n, 3), FWHM in channels and px; ``peak_snr``; ``scale``, index of the
            filter; ``score``, 0..1, monotonic in S/N.
        """
        noise = dict(zip(self.scales, scale_rms, strict=True))
        blank = ~np.isfinite(snr)
        rows: list[np.ndarray] = []
        for kernel, width, filtered in self._filtered(snr, beam_px):
            rms = noise[(kernel, width)]
            if not rms > 0:
                continue
            where = np.nonzero(filtered > np.float32(self.clip * rms))
            value = filtered[where]
            peak = ~blank[where]
            for step in product((-1, 0, 1), repeat=3):
                if step == (0, 0, 0):
                    continue
                inside = np.ones(len(value), bool)
                index = []
                for axis, (coordinate, move) in enumerate(zip(where, step, strict=True)):
                    moved = coordinate + move
                    inside &= (moved >= 0) & (moved < snr.shape[axis])
                    index.append(np.clip(moved, 0, snr.shape[axis] - 1))
                other = filtered[tuple(index)]
                # Of two equal neighbours the first in raster order is the maximum.
                higher = other >= value if step < (0, 0, 0) else other > value
                peak &= ~(inside & higher)
            side = beam_px * np.hypot(1.0, kernel)
            rows.append(
                np.column_stack([
                    *(w[peak].astype(float) for w in where), np.full(peak.sum(), float(width)),
                    np.full(peak.sum(), side), value[peak] / rms,
                    np.full(peak.sum(), self.scales.index((kernel, width))),
                ])  # fmt: skip
            )
        table = np.concatenate(rows) if rows else np.empty((0, 7))
        peak_snr = table[:, 5]
        logit = np.clip(0.5 * (peak_snr**2 - EVEN_ODDS**2), -12, 20)
        return {
            "z": table[:, 0], "y": table[:, 1], "x": table[:, 2],
            "size": np.column_stack([np.maximum(table[:, 3], 2.0), table[:, 4], table[:, 4]]).astype(np.float32),
            "peak_snr": peak_snr.astype(np.float32), "scale": table[:, 6].astype(int),
            "score": 1 / (1 + np.exp(-logit)),
        }  # fmt: skip


def measure_scale_rms(pixels: Any, noise: Any, beam_px: float, *, detector: SmoothClip) -> np.ndarray:
    """Noise of each filtered S/N cube, from the negative voxels of a block in the cube's middle and one off it.

    Parameters
    ----------
    pixels : CubeSource or ArrayCube
    noise : CubeNoise
    beam_px : float
    detector : SmoothClip

    Returns
    -------
    ndarray, shape (filters,)
        NaN for boxcars longer than the cube.
    """
    blocks = []
    for share in (0.5, 0.15, 0.85):
        window = tuple(
            slice(max(0, int((n - min(n, side)) * share)), max(0, int((n - min(n, side)) * share)) + min(n, side))
            for n, side in zip(pixels.shape, SAMPLE_SIDES, strict=True)
        )
        if window not in blocks:
            blocks.append(window)
    samples: dict[tuple[float, int], list[np.ndarray]] = {scale: [] for scale in detector.scales}
    for window in blocks:
        voxels = pixels.read(window)
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = (voxels - noise.level(window)) / noise.rms(window)
        usable = np.isfinite(snr)
        for kernel, width, filtered in detector._filtered(snr, beam_px):
            # A quarter of the voxels is plenty.
            part = filtered[::2, ::2, ::2][usable[::2, ::2, ::2]]
            samples[(kernel, width)].append(part[part < 0])
    return np.array([
        np.median(-np.concatenate(parts)) / 0.6744898 if parts and sum(map(len, parts)) > 50 else np.nan
        for parts in samples.values()
    ])  # fmt: skip


@register_model("smooth-clip", kind="detector", ndim=3, has_weights=False)
def build_smooth_clip(**options) -> SmoothClip:
    """Matched-filter bank for lines in cubes, no weights."""
    return SmoothClip(**options)
