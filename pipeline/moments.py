"""Sums over apertures: how sources much larger than the beam are measured.

Such sources (lobes, discs, shells) are no Gaussians; the sum inside an ellipse does not need them to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.fitting import Grid, Pixels
from pipeline.gaussians import FWHM_PER_SIGMA, Array, covariance

# Semi-axes of the ellipse in FWHM of the guess: a Gaussian has 1.3% of its flux outside, a disc of that size
# none.
SEMI_AXIS = 1.25
_OUTSIDE = 2.0 ** (-4 * SEMI_AXIS**2)
# Second moments of a Gaussian cut at that ellipse, relative to the uncut ones.
_CUT_MOMENT = 1 - _OUTSIDE * 4 * np.log(2) * SEMI_AXIS**2 / (1 - _OUTSIDE)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums inside ellipses (n,): `total` in the data's unit, centre and (s, h1, h2) in the beam frame.

    `peak` is the brightest pixel, `pixels` how many were summed, `centred` whether the sums gave a centre
    inside the ellipse and a positive shape (else the guesses stand).
    """

    total: Array
    peak: Array
    centre: Array
    shape: Array
    pixels: Array
    centred: NDArray[np.bool_]


def aperture_moments(
    grid: Grid, data: Pixels, valid: NDArray[np.bool_], centre: Array, shape: Array
) -> Moments:
    """Sum cut-outs inside ellipses of `SEMI_AXIS` times the guessed FWHM.

    Parameters
    ----------
    grid : Grid
    data : ndarray float32 (P, n)
        Neighbours subtracted, 0 where not valid.
    valid : ndarray of bool (P, n)
    centre, shape : ndarray (2, n), (3, n)
        Guesses in the beam frame.
    """
    xx, xy, yy = covariance(*shape)
    det = xx * yy - xy * xy
    du = grid.monomials[1][:, None] - centre[0]
    dv = grid.monomials[2][:, None] - centre[1]
    inside = (yy * du * du - 2 * xy * du * dv + xx * dv * dv) / det <= (SEMI_AXIS * FWHM_PER_SIGMA) ** 2
    inside &= valid
    inner = np.where(inside, data, 0.0).astype(float)
    total = inner.sum(0)
    peak = np.where(inside, data, -np.inf).max(0)
    safe = np.where(total > 0, total, 1.0)
    mean_u, mean_v = (inner * du).sum(0) / safe, (inner * dv).sum(0) / safe
    uu = (inner * du * du).sum(0) / safe - mean_u**2
    uv = (inner * du * dv).sum(0) / safe - mean_u * mean_v
    vv = (inner * dv * dv).sum(0) / safe - mean_v**2
    uu, uv, vv = uu / _CUT_MOMENT, uv / _CUT_MOMENT, vv / _CUT_MOMENT
    half, det = np.hypot((uu - vv) / 2, uv), uu * vv - uv * uv
    positive = (det > 0) & (uu + vv > 0)
    root = np.sqrt(np.where(positive, det, 1.0))
    h = np.arcsinh(half / root)
    unit = h / np.where(half > 0, half, 1.0)
    measured = np.stack([np.log(root) / 2, unit * (uu - vv) / 2, unit * uv])
    near = np.hypot(mean_u, mean_v) <= np.sqrt(np.sqrt(xx * yy - xy * xy)) * FWHM_PER_SIGMA
    centred = (total > 0) & positive & near & np.isfinite(measured).all(0)
    return Moments(
        total=total,
        peak=np.where(np.isfinite(peak), peak, 0.0),
        centre=np.where(centred, centre + np.stack([mean_u, mean_v]), centre),
        shape=np.where(centred, measured, shape),
        pixels=inside.sum(0).astype(float),
        centred=centred,
    )
