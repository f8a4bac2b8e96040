"""Which true sources can be seen: learned from what a detector finds, by brightness, size and crowding.

A catalogue of truth holds far more than an image shows. What is demanded of a network, what is left alone and what
counts as background follows from the probability that a detector finds a source of that kind, fitted on the part of
the survey that is trained on; nothing is cut by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

# Strength of the pull to 0 of the coefficients, in sources: it holds them finite where every source is found.
RIDGE = 1.0
# A detection within so many beams is that of the source.
REACH_BEAMS = 0.5
# Without enough found and missed sources the law of the simulated skies stands: half are found at S/N 4, and e-folding
# in odds takes a fifth in S/N.
LEAST_SOURCES, USUAL_HALF, USUAL_SLOPE = 20, 4.0, 5.0
_FAINTEST = 0.05


@dataclass(frozen=True)
class Visibility:
    """Probability of being found: logistic in ln S/N of the peak, ln apparent area and crowding.

    ``coefficients`` (4,): constant, ln peak S/N, ln of the apparent area in beams, ln(1 + light of others at its place
    over its own peak).
    """

    coefficients: tuple[float, float, float, float]

    def probability(self, snr: np.ndarray, area: np.ndarray, crowding: np.ndarray) -> np.ndarray:
        """Of each source, 0..1.

        Parameters
        ----------
        snr : ndarray
            Expected peak over the local rms.
        area : ndarray
            Apparent area over that of the beam, 1 or more.
        crowding : ndarray
            As `crowding_of` gives it.
        """
        odds = design(snr, area, crowding) @ np.array(self.coefficients)
        return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))

    def snr_at(self, probability: float) -> float:
        """Peak S/N at which a lone point source has this probability."""
        constant, slope = self.coefficients[:2]
        return float(np.exp((np.log(probability / (1 - probability)) - constant) / slope))


USUAL = Visibility((-USUAL_SLOPE * float(np.log(USUAL_HALF)), USUAL_SLOPE, 0.0, -USUAL_SLOPE))


def design(snr: np.ndarray, area: np.ndarray, crowding: np.ndarray) -> np.ndarray:
    """Rows (n, 4) that the coefficients multiply."""
    snr = np.log(np.maximum(np.asarray(snr, float), _FAINTEST))
    return np.stack([np.ones_like(snr), snr, np.log(np.maximum(area, 1.0)), np.asarray(crowding, float)], -1)


def crowding_of(x: np.ndarray, y: np.ndarray, peak: np.ndarray, beam_px: float) -> np.ndarray:
    """ln(1 + light of the others at a source's place over its own peak), as Gaussians of the beam.

    Parameters
    ----------
    x, y, peak : ndarray, shape (n,)
        px and any unit.
    beam_px : float
        FWHM.
    """
    if len(x) == 0:
        return np.empty(0)
    pairs = cKDTree(np.c_[x, y]).query_pairs(2.0 * beam_px, output_type="ndarray")
    i, j = pairs[:, 0], pairs[:, 1]
    share = np.exp2(-4 * ((x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2) / beam_px**2)
    light = np.bincount(i, share * peak[j], len(x)) + np.bincount(j, share * peak[i], len(x))
    return np.log1p(light / np.maximum(peak, 1e-300))


def match_found(
    x: np.ndarray, y: np.ndarray, snr: np.ndarray, found: np.ndarray, score: np.ndarray, beam_px: float
) -> np.ndarray:
    """Which sources were found: each detection stands for the brightest source within reach that is still free.

    Parameters
    ----------
    x, y, snr : ndarray, shape (n,)
        Sources.
    found : ndarray, shape (m, 2)
        Detections, (y, x).
    score : ndarray, shape (m,)
        The best come first.
    beam_px : float

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    seen = np.zeros(len(x), bool)
    if len(x) == 0 or len(found) == 0:
        return seen
    near = cKDTree(np.c_[y, x]).query_ball_point(found, REACH_BEAMS * beam_px)
    for row in np.argsort(-score, kind="stable"):
        free = [i for i in near[row] if not seen[i]]
        if free:
            seen[max(free, key=lambda i: snr[i])] = True
    return seen


def fit_visibility(rows: np.ndarray, found: np.ndarray) -> Visibility:
    """Fit by penalised maximum likelihood (Newton's steps).

    Parameters
    ----------
    rows : ndarray, shape (n, 4)
        By `design`.
    found : ndarray of bool, shape (n,)

    Returns
    -------
    Visibility
        `USUAL` where fewer than `LEAST_SOURCES` were found or missed, or the fit does not rise with S/N.
    """
    found = np.asarray(found, bool)
    if min(found.sum(), (~found).sum()) < LEAST_SOURCES:
        return USUAL
    start = np.array(USUAL.coefficients)
    value = start.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(rows @ value, -30, 30)))
        gradient = rows.T @ (found - p) - RIDGE * (value - start)
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + RIDGE * np.eye(4)
        step = np.linalg.solve(curvature, gradient)
        value += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    if not (np.isfinite(value).all() and value[1] > 0.5):
        return USUAL
    return Visibility(tuple(float(one) for one in value))
