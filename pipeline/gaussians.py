"""Elliptical Gaussians as arrays: forms, convolution, deconvolution, areas, errors in correlated noise.

Sizes are FWHM in pixels, angles radians from +x towards +y of the major axis in [0, pi). A *shape matrix* is
the symmetric 2 x 2 matrix (xx, xy, yy) whose eigenvalues are the squared FWHM: shape matrices add under
convolution. Every function is vectorised and broadcasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))
FOUR_LN2 = float(4.0 * np.log(2.0))
# The standard deviation of an angle that is uniform over half a turn: no error on an angle can say less than
# that.
MAX_ANGLE_ERROR = float(np.pi / np.sqrt(12.0))


def shape_matrix(major: ArrayLike, minor: ArrayLike, theta: ArrayLike) -> tuple[Array, Array, Array]:
    """Shape matrix of ellipses.

    Parameters
    ----------
    major, minor : array_like
        FWHM, any unit, >= 0.
    theta : array_like
        Angle of the major axis, radians.

    Returns
    -------
    xx, xy, yy : ndarray
        Elements of the shape matrix, unit squared.
    """
    major2, minor2 = np.square(np.asarray(major, float)), np.square(np.asarray(minor, float))
    mean, half = (major2 + minor2) / 2, (major2 - minor2) / 2
    angle = 2 * np.asarray(theta, float)
    return mean + half * np.cos(angle), half * np.sin(angle), mean - half * np.cos(angle)


def ellipse(xx: ArrayLike, xy: ArrayLike, yy: ArrayLike) -> tuple[Array, Array, Array]:
    """Ellipses of shape matrices: the inverse of `shape_matrix`.

    Negative eigenvalues become an axis of length 0.

    Returns
    -------
    major, minor, theta : ndarray
        FWHM in the square root of the input's unit; angle in [0, pi).
    """
    xx, xy, yy = (np.asarray(value, float) for value in (xx, xy, yy))
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major2 = np.maximum(mean + half, 0.0)
    # det / major2 keeps the digits of a thin ellipse's minor axis; mean - half cancels them.
    det = xx * yy - xy * xy
    minor2 = np.where(major2 > 0, np.maximum(det, 0.0) / np.where(major2 > 0, major2, 1.0), 0.0)
    minor2 = np.where(mean - half > 0.1 * mean, np.maximum(mean - half, 0.0), minor2)
    theta = wrap_angle(0.5 * np.arctan2(2 * xy, xx - yy))
    return np.sqrt(major2), np.sqrt(minor2), theta


def wrap_angle(theta: ArrayLike) -> Array:
    """Angles of axes brought to [0, pi)."""
    wrapped = np.mod(np.asarray(theta, float), np.pi)
    return np.where(wrapped >= np.pi, 0.0, wrapped)


def quadratic_form(major: ArrayLike, minor: ArrayLike, theta: ArrayLike) -> tuple[Array, Array, Array]:
    """Coefficients (a, b, c) of exp(-(a dx^2 + 2 b dx dy + c dy^2)) for ellipses of positive FWHM."""
    cos, sin = np.cos(theta), np.sin(theta)
    p, q = FOUR_LN2 / np.square(np.asarray(major, float)), FOUR_LN2 / np.square(np.asarray(minor, float))
    return p * cos**2 + q * sin**2, (p - q) * sin * cos, p * sin**2 + q * cos**2


def ellipse_of_quadratic_form(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> tuple[Array, Array, Array]:
    """FWHM and angle of exp(-(a dx^2 + 2 b dx dy + c dy^2)), a positive definite form."""
    a, b, c = (np.asarray(value, float) for value in (a, b, c))
    scale = FOUR_LN2 / (a * c - b * b)
    return ellipse(c * scale, -b * scale, a * scale)


def convolve(
    first: tuple[ArrayLike, ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike, ArrayLike]
) -> tuple[Array, Array, Array]:
    """Convolution of two elliptical Gaussians, each (major, minor, theta)."""
    return ellipse(*(p + q for p, q in zip(shape_matrix(*first), shape_matrix(*second), strict=True)))


def deconvolve(
    apparent: tuple[ArrayLike, ArrayLike, ArrayLike], beam: tuple[ArrayLike, ArrayLike, ArrayLike]
) -> tuple[Array, Array, Array]:
    """Intrinsic ellipse whose convolution with `beam` is `apparent`.

    Returns
    -------
    major, minor, theta : ndarray
        An axis along which the apparent Gaussian is not wider than the beam gets 0; where both are 0 (a point
        source) the angle is NaN.
    """
    fitted, blur = shape_matrix(*apparent), shape_matrix(*beam)
    major, minor, theta = ellipse(*(p - q for p, q in zip(fitted, blur, strict=True)))
    # Rounding of the difference of two squares leaves up to ~1e-8 beam where the truth is exactly 0.
    tiny = 1e-7 * np.sqrt(fitted[0] + fitted[2])
    major, minor = np.where(major > tiny, major, 0.0), np.where(minor > tiny, minor, 0.0)
    return major, minor, np.where(major > 0, theta, np.nan)


def beam_area(major: ArrayLike, minor: ArrayLike) -> Array:
    """Integral of a Gaussian of unit peak: pixels for FWHM in pixels."""
    return np.asarray(major, float) * np.asarray(minor, float) * (np.pi / FOUR_LN2)


class BeamFrame:
    """Coordinates in which the beam is round with standard deviation 1.

    Noise with the beam's autocorrelation is then isotropic, "as large as the beam" is the unit matrix, and
    shapes are written (s, h1, h2): covariance exp(2 s) expm([[h1, h2], [h2, -h1]]), so that s is the log of
    the mean size in beams and h the elongation, without the angle's singularity at round shapes.

    Parameters
    ----------
    beam : (major, minor, theta)
        FWHM in pixels, radians.
    """

    def __init__(self, beam: tuple[float, float, float]) -> None:
        major, minor, theta = (float(value) for value in beam)
        if not (np.isfinite([major, minor, theta]).all() and major >= minor > 0):
            raise ValueError(
                f"expected a beam of finite FWHM major >= minor > 0 pixels, got {major} x {minor}, "
                f"angle {theta}: give the beam of the image"
            )
        rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
        sigma = np.array([major, minor]) / FWHM_PER_SIGMA
        self.major, self.minor, self.theta = major, minor, theta
        self.to_pixels: Array = (rotation * sigma) @ rotation.T
        self.from_pixels: Array = (rotation / sigma) @ rotation.T
        self.pixels_per_area = float(sigma.prod())

    def shape(self, major: ArrayLike, minor: ArrayLike, theta: ArrayLike) -> tuple[Array, Array, Array]:
        """(s, h1, h2) of ellipses given by FWHM in pixels and angle."""
        xx, xy, yy = (value / FWHM_PER_SIGMA**2 for value in shape_matrix(major, minor, theta))
        (p, q), (_, r) = self.from_pixels
        cxx = p * p * xx + 2 * p * q * xy + q * q * yy
        cxy = p * q * xx + (p * r + q * q) * xy + q * r * yy
        cyy = q * q * xx + 2 * q * r * xy + r * r * yy
        det = np.maximum(cxx * cyy - cxy * cxy, 1e-12)
        half = np.hypot((cxx - cyy) / 2, cxy)
        h = np.arcsinh(half / np.sqrt(det))
        unit = np.where(half > 0, h / np.where(half > 0, half, 1.0), 0.0)
        return np.log(det) / 4, unit * (cxx - cyy) / 2, unit * cxy

    def ellipse(self, s: Array, h1: Array, h2: Array) -> tuple[Array, Array, Array]:
        """FWHM in pixels and angle of shapes (s, h1, h2)."""
        cxx, cxy, cyy = (value * FWHM_PER_SIGMA**2 for value in covariance(s, h1, h2))
        (p, q), (_, r) = self.to_pixels
        return ellipse(
            p * p * cxx + 2 * p * q * cxy + q * q * cyy,
            p * q * cxx + (p * r + q * q) * cxy + q * r * cyy,
            q * q * cxx + 2 * q * r * cxy + r * r * cyy,
        )


def covariance(s: Array, h1: Array, h2: Array) -> tuple[Array, Array, Array]:
    """Covariance (xx, xy, yy) in the beam frame of shapes (s, h1, h2)."""
    h = np.maximum(np.hypot(h1, h2), 1e-6)
    scale, cosh, ratio = np.exp(2 * s), np.cosh(h), np.sinh(h) / h
    return scale * (cosh + ratio * h1), scale * ratio * h2, scale * (cosh - ratio * h1)


@dataclass(frozen=True, slots=True)
class FitTheory:
    """What least squares with Gaussian weights does to a Gaussian in noise correlated like the beam.

    All in the beam frame, along the principal axes of the fitted shape, for a peak of signal-to-noise 1
    (normal and noise matrices grow as its square). Even parameters are (ln peak, s, h) with h the elongation
    along the principal axes.

    Attributes
    ----------
    position_normal, position_noise : ndarray (2, n)
        Normal and noise matrix elements of the centre along the two axes.
    even_normal, even_noise : ndarray (n, 3, 3)
        The same for the even parameters.
    cross_normal, cross_noise : ndarray (n,)
        The same for the elongation at 45 degrees to the principal axes.
    even_plain, even_mixed : ndarray (n, 3, 3)
        Normal matrix without weights, and noise matrix between weighted and plain derivatives: the expected
        sum of squared residuals needs them. `position_plain`, `position_mixed` (2, n), `cross_plain`,
        `cross_mixed` (n,).
    """

    position_normal: Array
    position_noise: Array
    even_normal: Array
    even_noise: Array
    cross_normal: Array
    cross_noise: Array
    position_plain: Array
    position_mixed: Array
    even_plain: Array
    even_mixed: Array
    cross_plain: Array
    cross_mixed: Array


def taper(axis: Array, kappa: float) -> Array:
    """Inverse variance of the weight's Gaussian along a principal axis of variance `axis` (beam frame).

    The best weights for noise correlated like the beam make (weight x model) narrower than the model by the
    beam: variance `axis` - 1. `kappa` < 1 of it is taken off, because at 1 a point source would be read from
    one pixel.
    """
    return kappa / (axis * np.maximum(axis - kappa, 0.05))


def fit_theory(axis1: Array, axis2: Array, kappa: float, pixels_per_area: float) -> FitTheory:
    """Normal and noise matrices of a weighted Gaussian fit, in closed form.

    With derivatives J, weights W and noise covariance N, least squares gives errors H^-1 K H^-1 with
    H = J'WJ and K = J'WNWJ. For Gaussian J, W and N all elements are moments of two- and four-dimensional
    Gaussians (Isserlis' theorem). Condon (1997, PASP 109, 166) gives approximations of the same for round
    beams.

    Parameters
    ----------
    axis1, axis2 : ndarray (n,)
        Variances of the model along its principal axes, beam frame (1 = the beam).
    kappa : float
        Strength of the weights' taper, 0 (uniform) to < 1.
    pixels_per_area : float
        Pixels per unit area of the beam frame.
    """
    c = np.stack([axis1, axis2])
    t = taper(c, kappa)
    density, two_pi = pixels_per_area, 2 * np.pi

    f = 1 / (2 / c + t)
    normal = density * two_pi * np.sqrt(f.prod(0))
    plain_f = c / 2
    plain = density * two_pi * np.sqrt(plain_f.prod(0))

    def pair(p: Array, q: Array) -> tuple[Array, Array, Array, Array]:
        """Total, both variances and the covariance of exp(-p x^2/2) exp(-(x-y)^2/2) exp(-q y^2/2)."""
        det = (p + 1) * (q + 1) - 1
        return (density * two_pi) ** 2 / np.sqrt(det.prod(0)), (q + 1) / det, (p + 1) / det, 1 / det

    noise, sx, sy, sxy = pair(1 / c + t, 1 / c + t)
    mixed, mx, my, mxy = pair(1 / c + t, 1 / c)

    def even(total: Array, vx: Array, vy: Array, vxy: Array) -> Array:
        """Matrix of (ln peak, s, h) from those of (1, x^2/2c1, y^2/2c2)."""
        out = np.empty((total.size, 3, 3))
        a, b = vx / (2 * c), vy / (2 * c)
        own = (vx * vy + 2 * vxy**2) / (4 * c * c)
        cross12, cross21 = a[0] * b[1], a[1] * b[0]
        out[:, 0, 0] = 1
        out[:, 0, 1], out[:, 1, 0] = 2 * (b[0] + b[1]), 2 * (a[0] + a[1])
        out[:, 0, 2], out[:, 2, 0] = b[0] - b[1], a[0] - a[1]
        out[:, 1, 1] = 4 * (own[0] + own[1] + cross12 + cross21)
        out[:, 1, 2] = 2 * (own[0] - own[1] - cross12 + cross21)
        out[:, 2, 1] = 2 * (own[0] - own[1] + cross12 - cross21)
        out[:, 2, 2] = own[0] + own[1] - cross12 - cross21
        return out * total[:, None, None]

    # d ln(model) / d(elongation at 45 degrees) = x y * turn, with turn from the derivative of the matrix
    # exponential.
    h = np.maximum(np.abs(np.log(c[0] / c[1])) / 2, 1e-6)
    turn = np.sinh(h) / h / np.sqrt(c.prod(0))
    return FitTheory(
        position_normal=normal * f / c**2,
        position_noise=noise * sxy / c**2,
        even_normal=even(normal, f, f, f),
        even_noise=even(noise, sx, sy, sxy),
        cross_normal=normal * f.prod(0) * turn**2,
        cross_noise=noise * sxy.prod(0) * turn**2,
        position_plain=plain * plain_f / c**2,
        position_mixed=mixed * mxy / c**2,
        even_plain=even(plain, plain_f, plain_f, plain_f),
        even_mixed=even(mixed, mx, my, mxy),
        cross_plain=plain * plain_f.prod(0) * turn**2,
        cross_mixed=mixed * mxy.prod(0) * turn**2,
    )
