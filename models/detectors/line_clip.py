"""The weightless finder of lines in spectra: a bank of matched filters, clipped; what the network has to beat.

The spectrum in units of its noise is smoothed with Gaussians of several widths; each filtered spectrum is divided by
its own noise, and places above the clip, in emission or absorption, that neither a neighbour nor another width exceeds
are candidates. Blank channels count as not observed: the filter is normalised by what it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from models.registry import register_model

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
# Gaussian kernels are cut at this many sigma.
TRUNCATE = 3.0
# S/N of a filtered channel at which a detection is as likely as not.
EVEN_ODDS = 5.0
# One channel beyond this S/N of which neither neighbour has this share is a spike, and not observed.
SPIKE_SNR, SPIKE_SHARE = 6.0, 0.3
# Of a filter's window so much of the weight must have been observed.
LEAST_SEEN = 0.3


@dataclass(frozen=True)
class LineClip:
    """See the module's text.

    Attributes
    ----------
    widths : tuple of float
        FWHM of the filters, channels.
    clip : float
        Lowest S/N of a candidate.
    """

    widths: tuple[float, ...] = (2.0, 3.0, 4.5, 7.0, 10.0, 15.0, 22.0, 33.0, 50.0, 75.0, 110.0, 150.0)
    clip: float = 3.5

    name = "line-clip"

    @property
    def halo(self) -> int:
        """Channels around a core that its candidates depend on."""
        return int(TRUNCATE * max(self.widths) * FWHM_TO_SIGMA + 0.5) + 2

    def filtered(self, snr: NDArray) -> NDArray:
        """S/N in each filter, were the noise white, shape (widths, channels); 0 where too little was observed."""
        seen = np.isfinite(snr) & ~_spikes(snr)
        clean, weight = np.where(seen, snr, 0.0), seen.astype(float)
        rows = []
        for width in self.widths:
            sigma = width * FWHM_TO_SIGMA
            options = {"mode": "constant", "truncate": TRUNCATE}
            total = gaussian_filter1d(clean, sigma, **options)
            # The squares of a Gaussian's weights are a Gaussian narrower by the root of 2.
            power = gaussian_filter1d(weight, sigma / np.sqrt(2), **options) / (2 * np.sqrt(np.pi) * sigma)
            share = gaussian_filter1d(weight, sigma, **options)
            usable = share > LEAST_SEEN
            rows.append(np.where(usable, total / np.sqrt(np.where(usable, power, 1.0)), 0.0))
        return np.stack(rows)

    def noise(self, snr: NDArray) -> NDArray:
        """Noise of each filtered spectrum, from the scatter of the whole one; 1 for white noise of unit rms."""
        rms = np.ones(len(self.widths))
        for row, values in enumerate(self.filtered(snr)):
            values = values[values != 0]
            if len(values) > 4 * self.widths[row]:
                rms[row] = np.median(np.abs(values)) * 1.4826
        # Lines widen the scatter, most of all in wide filters of crowded spectra: noise that white noise of the
        # channels cannot make is theirs, but for that of correlated channels, which the narrowest filters show.
        return np.clip(rms, 0.7, max(1.0, 1.5 * float(np.median(rms[:4]))))

    def find(self, snr: NDArray, rms: Sequence[float]) -> dict[str, NDArray]:
        """Candidates of one window.

        Parameters
        ----------
        snr : ndarray, shape (C,)
            S/N with NaN where blank.
        rms : sequence of float
            `noise` of the whole spectrum.

        Returns
        -------
        dict of ndarray
            ``z``, ``width`` (FWHM), ``flux`` (signed sum of S/N over channels), ``peak_snr`` (signed), ``score``, 0..1,
            monotonic in S/N.
        """
        bank = self.filtered(snr) / np.asarray(rms)[:, None]
        strength = np.abs(bank)
        best = strength.argmax(axis=0)
        ridge = strength.max(axis=0)
        left, right = np.r_[-np.inf, ridge[:-1]], np.r_[ridge[1:], -np.inf]
        # Of two equal neighbours the first is the maximum.
        peak = np.flatnonzero((ridge > self.clip) & (ridge > left) & (ridge >= right))
        width = np.array(self.widths)[best[peak]]
        value = bank[best[peak], peak]
        inner = np.clip(peak, 1, max(len(snr) - 2, 1))
        a, b, c = (ridge[inner + step] for step in (-1, 0, 1))
        curve = a - 2 * b + c
        shift = np.where(curve < 0, 0.5 * (a - c) / np.where(curve < 0, curve, -1.0), 0.0)
        sigma = width * FWHM_TO_SIGMA
        # Not the odds of Gaussian noise: what is false among the brightest is ripples, bends and interference.
        logit = 3.0 * np.log(np.abs(value) / EVEN_ODDS)
        return {
            "z": peak + np.where(inner == peak, np.clip(shift, -0.5, 0.5), 0.0), "width": width,
            # A Gaussian line of that width with the filter's S/N.
            "flux": value * np.asarray(rms)[best[peak]] * np.sqrt(2 * np.sqrt(np.pi) * sigma),
            "peak_snr": value, "score": 1 / (1 + np.exp(-logit)),
        }  # fmt: skip


def _spikes(snr: NDArray) -> NDArray[np.bool_]:
    """Channels far beyond the noise whose neighbours share too little of it for a line of two channels."""
    left = np.nan_to_num(snr).astype(float)
    found = np.zeros(len(left), bool)
    # Twice: what a spike leaves in the next channel is one when the spike is gone.
    for _ in range(2):
        sign, padded = np.sign(left), np.pad(left, 1)
        beside = np.maximum(sign * padded[:-2], sign * padded[2:])
        spikes = (np.abs(left) > SPIKE_SNR) & (beside < SPIKE_SHARE * np.abs(left))
        found |= spikes
        left[spikes] = 0
    return found


@register_model("line-clip", kind="detector", ndim=1, has_weights=False)
def build_line_clip(**options) -> LineClip:
    """Matched-filter bank for lines in spectra, no weights."""
    return LineClip(**options)
