"""Errors of Gaussian fits in noise that is correlated like the beam, and the weight of an expected shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.gaussians import MAX_ANGLE_ERROR, Array, BeamFrame, FitTheory, fit_theory


def prior_precision(shape: Array, width: Array, kappa: float) -> Array:
    """Weights (2, n) of an expected shape on s and h, in the units of the normal matrix.

    The normal matrix counts pixels as independent; the noise is correlated. The factor here makes the balance
    between data and expectation the one of their true variances.

    Parameters
    ----------
    shape : ndarray (3, n)
        Expected (s, h1, h2).
    width : ndarray (2, n)
        Standard deviations of the expectation on s and on each of h1, h2.
    kappa : float
        Taper of the fit's weights.
    """
    elongation = np.hypot(shape[1], shape[2])
    theory = fit_theory(np.exp(2 * shape[0] + elongation), np.exp(2 * shape[0] - elongation), kappa, 1.0)
    inverse = np.linalg.inv(theory.even_normal)
    variance = np.einsum("nij,njk,nik->ni", inverse, theory.even_noise, inverse)
    given = 1 / np.einsum("nii->ni", inverse)
    factor = (given * variance)[:, 1:].T
    return factor / width**2


@dataclass(frozen=True, slots=True)
class Errors:
    """One-sigma errors (n,): sizes and centre in pixels, angle in radians, peak and flux relative.

    `lost` is the number of pixels' worth of noise that the fit took out of the residuals. `bias` is the
    expected relative excess of the peak: of all positions the fit takes the one where the noise is kindest.
    """

    x: Array
    y: Array
    peak: Array
    flux: Array
    major: Array
    minor: Array
    theta: Array
    lost: Array
    bias: Array


def fit_errors(
    frame: BeamFrame, state: Array, precision: Array, width: Array, coverage: Array, kappa: float
) -> Errors:
    """Errors of fitted parameters in noise that has the beam's autocorrelation.

    Parameters
    ----------
    frame : BeamFrame
    state : ndarray (6, n)
        Fitted parameters, peak in local rms.
    precision, width : ndarray (2, n)
        As given to the fit (`prior_precision`): the errors count the expectation's own scatter.
    coverage : ndarray (n,)
        Part of the information that valid pixels hold, 0 to 1.
    kappa : float
        Taper of the fit's weights.
    """
    s, h1, h2 = state[3:]
    h = np.hypot(h1, h2)
    c1, c2 = np.exp(2 * s + h), np.exp(2 * s - h)
    theory = fit_theory(c1, c2, kappa, frame.pixels_per_area)
    power = np.square(np.maximum(state[0], 0.1)) * np.maximum(coverage, 1e-3)

    position = theory.position_noise / theory.position_normal**2 / power
    prior = np.zeros((len(s), 3, 3))
    prior[:, 1, 1], prior[:, 2, 2] = precision
    inverse = np.linalg.inv(theory.even_normal * power[:, None, None] + prior)
    spread = prior * np.concatenate([np.zeros_like(s)[None], width**2]).T[:, :, None] @ prior
    even = inverse @ (theory.even_noise * power[:, None, None] + spread) @ inverse
    gain = 1 / (theory.cross_normal * power + precision[1])
    cross = gain**2 * (theory.cross_noise * power + (precision[1] * width[1]) ** 2)
    # The match of a weighted model with the source falls off as a Gaussian of both variances.
    bias = (position / (2 * np.stack([c1, c2]) - np.minimum(kappa, np.stack([c1, c2])))).sum(0) / 2
    lost = _noise_taken(theory, power, position, even, cross, inverse, gain)

    # Principal axes of the shape: first in the beam frame, then in pixels.
    angle = 0.5 * np.arctan2(h2, h1)
    axes = np.stack([np.stack([np.cos(angle), np.sin(angle)]), np.stack([-np.sin(angle), np.cos(angle)])])
    back = np.einsum("ij,ajn->ain", frame.to_pixels, axes)
    var_x, var_y = back[0] ** 2 * position[0] + back[1] ** 2 * position[1]
    major, minor, theta = frame.ellipse(s, h1, h2)
    along = np.stack([np.cos(theta), np.sin(theta)])
    across = np.stack([-np.sin(theta), np.cos(theta)])
    p1, p2 = (back * along).sum(1)
    q1, q2 = (back * across).sum(1)
    turn = np.sqrt(c1 * c2) * np.sinh(np.maximum(h, 1e-6)) / np.maximum(h, 1e-6)

    def variance(on_s: Array, on_h: Array, on_cross: Array) -> Array:
        return (
            on_s**2 * even[:, 1, 1]
            + 2 * on_s * on_h * even[:, 1, 2]
            + on_h**2 * even[:, 2, 2]
            + on_cross**2 * cross
        )

    def of_product(a1: Array, a2: Array, b1: Array, b2: Array) -> Array:
        return variance(
            2 * (c1 * a1 * b1 + c2 * a2 * b2), c1 * a1 * b1 - c2 * a2 * b2, turn * (a1 * b2 + a2 * b1)
        )

    major2, minor2 = c1 * p1 * p1 + c2 * p2 * p2, c1 * q1 * q1 + c2 * q2 * q2
    difference = np.maximum(major2 - minor2, 1e-9 * major2)
    flux = even[:, 0, 0] + 4 * even[:, 0, 1] + 4 * even[:, 1, 1]
    return Errors(
        x=np.sqrt(var_x),
        y=np.sqrt(var_y),
        peak=np.sqrt(even[:, 0, 0]),
        flux=np.sqrt(np.maximum(flux, 0)),
        major=major * np.sqrt(of_product(p1, p2, p1, p2)) / (2 * major2),
        minor=minor * np.sqrt(of_product(q1, q2, q1, q2)) / (2 * minor2),
        theta=np.minimum(np.sqrt(of_product(p1, p2, q1, q2)) / difference, MAX_ANGLE_ERROR),
        lost=lost,
        bias=bias,
    )


def _noise_taken(
    theory: FitTheory, power: Array, position: Array, even: Array, cross: Array, inverse: Array, gain: Array
) -> Array:
    """Expected drop of the sum of squared residuals below the number of pixels."""
    taken = (
        2 * theory.position_mixed / theory.position_normal - theory.position_plain * position * power
    ).sum(0)
    taken += power * (
        2 * np.einsum("nij,nij->n", inverse, theory.even_mixed)
        - np.einsum("nij,nij->n", theory.even_plain, even)
    )
    return taken + power * (2 * gain * theory.cross_mixed - theory.cross_plain * cross)
