"""Many elliptical Gaussians fitted at once: damped Gauss-Newton on stacks of cut-outs.

The model exp(polynomial of degree 2) has derivatives that are the model times polynomials, so all normal
matrices of a stack are one matrix product of the squared model with the 15 monomials up to degree 4, and all
gradients one with 6. Pixels are float32 with one exponential an iteration; the 6 x 6 algebra is float64,
vectorised over sources.

Coordinates are the beam frame's (`pipeline.gaussians.BeamFrame`), from the pixel nearest to each first guess.
Parameters are rows (peak in units of the local rms, u, v, s, h1, h2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.gaussians import Array, BeamFrame, taper

Pixels = NDArray[np.float32]

# Monomials up to degree 2, then 3 and 4, as powers of (u, v).
_POWERS = (
    (0, 0),
    (1, 0),
    (0, 1),
    (2, 0),
    (1, 1),
    (0, 2),
    (3, 0),
    (2, 1),
    (1, 2),
    (0, 3),
    (4, 0),
    (3, 1),
    (2, 2),
    (1, 3),
    (0, 4),
)
_PRODUCT = np.array([[_POWERS.index((a + c, b + d)) for c, d in _POWERS[:6]] for a, b in _POWERS[:6]])

# Matrix products round a column otherwise in a ragged last block than in a full one. Stacks are filled up to
# whole blocks, so that a source's numbers do not depend on the company it is fitted in.
COLUMNS = 32

# Sizes below this part of the beam are noise: nothing on the sky is sharper than the beam.
SMALLEST_SIZE = 0.9


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels of one cut-out size, those within `radius` (beam frame) of the central one.

    Attributes
    ----------
    dy, dx : ndarray of int (P,)
        Offsets in pixels.
    monomials : ndarray float32 (15, P)
        Products of powers of the beam-frame coordinates.
    radius : float
        In units of the beam's standard deviation.
    """

    dy: NDArray[np.int64]
    dx: NDArray[np.int64]
    monomials: Pixels
    radius: float

    @classmethod
    def within(cls, frame: BeamFrame, radius: float) -> Grid:
        """Grid of all pixels within `radius` of the centre."""
        return _grid((frame.major, frame.minor, frame.theta), radius)


@lru_cache(maxsize=64)
def _grid(beam: tuple[float, float, float], radius: float) -> Grid:
    frame = BeamFrame(beam)
    reach = int(np.ceil(radius * np.linalg.norm(frame.to_pixels, 2)))
    dy, dx = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    u, v = frame.from_pixels @ np.stack([dx, dy]).astype(float)
    keep = u * u + v * v <= radius * radius
    u, v = u[keep], v[keep]
    monomials = np.stack([u**p * v**q for p, q in _POWERS]).astype(np.float32)
    return Grid(dy[keep], dx[keep], monomials, radius)


@dataclass(frozen=True, slots=True)
class Stack:
    """Cut-outs of n sources on one grid: data in local rms and its weights (0 = blank), float32 (P, n)."""

    grid: Grid
    data: Pixels
    weight: Pixels

    def columns(self, chosen: NDArray[np.int64]) -> Stack:
        """Those of some sources."""
        return Stack(self.grid, self.data.take(chosen, axis=1), self.weight.take(chosen, axis=1))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a fit may do.

    Attributes
    ----------
    centre : ndarray (2, n)
        First guess of (u, v), and `shift` (n,) the largest distance from it, beam frame.
    shape : ndarray (3, n)
        Expected (s, h1, h2), and `precision` (2, n) the weight of that expectation on s and on h, in the
        units of the normal matrix.
    largest : float
        Upper bound of the size, in beams.
    free : ndarray of bool (6, n)
        Parameters that may change.
    """

    centre: Array
    shift: Array
    shape: Array
    precision: Array
    largest: float
    free: NDArray[np.bool_]

    def columns(self, chosen: NDArray[np.int64]) -> Limits:
        """Those of some sources."""
        return Limits(
            centre=self.centre[:, chosen],
            shift=self.shift[chosen],
            shape=self.shape[:, chosen],
            precision=self.precision[:, chosen],
            largest=self.largest,
            free=self.free[:, chosen],
        )


def whole_blocks(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices with the last one repeated to a multiple of `COLUMNS`: assigning through them does no harm."""
    return np.concatenate([chosen, np.repeat(chosen[-1:], -chosen.size % COLUMNS)])


def log_polynomial(u: Array, v: Array, shape: Array) -> Array:
    """Coefficients (6, n) of the log of unit-peak Gaussians."""
    s, h1, h2 = shape
    h = np.maximum(np.hypot(h1, h2), 1e-3)
    scale, cosh, ratio = np.exp(-2 * s), np.cosh(h), np.sinh(h) / h
    return (
        _quadratic(scale * (cosh - ratio * h1), -scale * ratio * h2, scale * (cosh + ratio * h1), u, v) * -0.5
    )


def _derivatives(coefficients: Array, u: Array, v: Array, shape: Array) -> Array:
    """Polynomials (n, 6, 6) of the derivatives of a log of Gaussians by (ln peak, u, v, s, h1, h2)."""
    s, h1, h2 = shape
    h = np.maximum(np.hypot(h1, h2), 1e-3)
    scale, cosh, ratio = np.exp(-2 * s), np.cosh(h), np.sinh(h) / h
    slope = (cosh - ratio) / h**2
    out = np.zeros((6, 6, len(s)))
    out[0, 0] = 1
    out[1, 0], out[1, 1], out[1, 2] = -coefficients[1], -2 * coefficients[3], -coefficients[4]
    out[2, 0], out[2, 1], out[2, 2] = -coefficients[2], -coefficients[4], -2 * coefficients[5]
    out[3] = coefficients * -2
    both = -scale * slope * h1 * h2
    a, c = scale * (ratio * h1 - slope * h1 * h1), scale * (ratio * h1 + slope * h1 * h1)
    out[4] = _quadratic(a - scale * ratio, both, c + scale * ratio, u, v) * -0.5
    a, c = scale * (ratio * h2 - slope * h1 * h2), scale * (ratio * h2 + slope * h1 * h2)
    out[5] = _quadratic(a, -scale * (ratio + slope * h2 * h2), c, u, v) * -0.5
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def _quadratic(a: Array, b: Array, c: Array, u: Array, v: Array) -> Array:
    """Polynomial (6, n) of a du^2 + 2 b du dv + c dv^2 about (u, v)."""
    p, q = a * u + b * v, b * u + c * v
    return np.stack([p * u + q * v, -2 * p, -2 * q, a, 2 * b, c])


def gaussian_values(grid: Grid, log_peak: Array, u: Array, v: Array, shape: Array) -> Pixels:
    """Gaussians on a grid, float32 (P, n)."""
    coefficients = log_polynomial(u, v, shape)
    coefficients[0] += log_peak
    count = coefficients.shape[1]
    padded = np.zeros((6, count + -count % COLUMNS), np.float32)
    padded[:, :count] = coefficients
    values = (grid.monomials[:6].T @ padded)[:, :count]
    return np.exp(values, out=values)


def taper_weights(grid: Grid, u: Array, v: Array, shape: Array, kappa: float) -> Pixels:
    """Weights (P, n) that fall off from the guessed centre, as `pipeline.gaussians.taper` says why."""
    s, h1, h2 = shape
    h = np.hypot(h1, h2)
    t1, t2 = taper(np.exp(2 * s + h), kappa), taper(np.exp(2 * s - h), kappa)
    mean, half = (t1 + t2) / 2, (t1 - t2) / 2 / np.maximum(h, 1e-9)
    polynomial = _quadratic(mean + half * h1, half * h2, mean - half * h1, u, v) * -0.5
    values = grid.monomials[:6].T @ polynomial.astype(np.float32)
    return np.exp(values, out=values)


def _evaluate(stack: Stack, state: Array, limits: Limits) -> tuple[Array, Array, Array]:
    """Cost (n,), descent direction (6, n) and normal matrix (6, 6, n) with rows in relative peak."""
    coefficients = log_polynomial(state[1], state[2], state[3:])
    derivatives = _derivatives(coefficients, state[1], state[2], state[3:])
    coefficients[0] += np.log(state[0])
    basis = stack.grid.monomials
    model = basis[:6].T @ coefficients.astype(np.float32)
    np.exp(model, out=model)
    residual = stack.data - model
    weighted = stack.weight * residual
    cost = np.einsum("pn,pn->n", weighted, residual).astype(float)
    np.multiply(weighted, model, out=weighted)
    gradient = (basis[:6] @ weighted).astype(float)
    np.multiply(model, model, out=model)
    np.multiply(model, stack.weight, out=model)
    moments = (basis @ model).astype(float)
    normal = derivatives @ moments.T[:, _PRODUCT] @ derivatives.transpose(0, 2, 1)
    descent = np.matmul(derivatives, gradient.T[:, :, None])[:, :, 0].T.copy()
    normal = np.ascontiguousarray(normal.transpose(1, 2, 0))
    off = state[3:] - limits.shape
    for row in range(3):
        precision = limits.precision[min(row, 1)]
        cost += precision * off[row] ** 2
        descent[3 + row] -= precision * off[row]
        normal[3 + row, 3 + row] += precision
    descent *= limits.free
    normal *= limits.free[:, None] & limits.free[None]
    normal[np.arange(6), np.arange(6)] += ~limits.free
    return cost, descent, normal


def _solve(normal: Array, right: Array, damping: Array) -> Array:
    """Solutions (6, n) of positive definite systems (6, 6, n) with their diagonal enlarged by 1 + damping."""
    size = len(right)
    lower = [[normal[0, 0]] * size for _ in range(size)]
    pivot, solution = [normal[0, 0]] * size, list(right)
    for j in range(size):
        d = normal[j, j] * (1 + damping)
        floor = 1e-10 * d + 1e-30
        for k in range(j):
            d = d - lower[j][k] ** 2 * pivot[k]
        pivot[j] = np.maximum(d, floor)
        for i in range(j + 1, size):
            value = normal[i, j]
            for k in range(j):
                value = value - lower[i][k] * lower[j][k] * pivot[k]
            lower[i][j] = value / pivot[j]
            solution[i] = solution[i] - lower[i][j] * solution[j]
    for j in range(size - 1, -1, -1):
        solution[j] = solution[j] / pivot[j]
        for i in range(j + 1, size):
            solution[j] = solution[j] - lower[i][j] * solution[i]
    return np.stack(solution)


def _advance(state: Array, step: Array, limits: Limits) -> Array:
    """State after a step, inside the limits. Peak steps are relative."""
    new = np.empty_like(state)
    new[0] = state[0] * (1 + np.clip(step[0], -0.7, 2.0))
    offset = state[1:3] + step[1:3] - limits.centre
    distance = np.hypot(*offset)
    new[1:3] = limits.centre + offset * np.minimum(1.0, limits.shift / np.maximum(distance, 1e-12))
    new[3:] = bounded_shape(state[3:] + np.clip(step[3:], -0.5, 0.5), limits.largest)
    return np.where(limits.free, new, state)


def bounded_shape(shape: Array, largest: float) -> Array:
    """Shapes (3, n) whose axes are between `SMALLEST_SIZE` and `largest` beams."""
    low, high = np.log(SMALLEST_SIZE), np.log(largest)
    s = np.clip(shape[0], low, high)
    elongation = np.hypot(shape[1], shape[2])
    allowed = 2 * np.minimum(s - low, high - s)
    return np.concatenate([s[None], shape[1:] * np.minimum(1.0, allowed / np.maximum(elongation, 1e-12))])


def linear_peak(stack: Stack, state: Array) -> Array:
    """Best peaks (n,) at fixed position and shape, in local rms; may be negative, 0 without valid pixels."""
    model = gaussian_values(stack.grid, np.zeros(state.shape[1]), state[1], state[2], state[3:])
    weighted = stack.weight * model
    norm = np.einsum("pn,pn->n", weighted, model)
    return np.einsum("pn,pn->n", weighted, stack.data) / np.maximum(norm, 1e-20).astype(float)


def fit(stack: Stack, start: Array, limits: Limits, *, iterations: int) -> tuple[Array, NDArray[np.bool_]]:
    """Fit all sources of a stack with a fixed number of Levenberg-Marquardt iterations.

    Parameters
    ----------
    stack : Stack
    start : ndarray (6, n)
        First parameters; the peak must be positive.
    limits : Limits
    iterations : int
        Evaluations after the first: the time bound.

    Returns
    -------
    state : ndarray (6, n)
        Parameters.
    good : ndarray of bool (n,)
        The fit converged, off the limits of peak and position; or it reached the largest size.
    """
    state = start.copy()
    cost, descent, normal = _evaluate(stack, state, limits)
    damping = np.full(state.shape[1], 1e-3)
    for _ in range(iterations):
        trial = _advance(state, _solve(normal, descent, damping), limits)
        new_cost, new_descent, new_normal = _evaluate(stack, trial, limits)
        # float32 sums cannot tell costs apart that differ by less: near the minimum every step is welcome.
        better = new_cost <= cost * (1 + 1e-6) + 1e-6
        for old, new in ((state, trial), (cost, new_cost), (descent, new_descent), (normal, new_normal)):
            np.copyto(old, new, where=better)
        damping = np.where(better, damping * 0.1, damping * 10 + 1e-3)
    step = _solve(normal, descent, np.zeros_like(damping))
    trial = _advance(state, step, limits)
    decrement = np.abs(normal[np.arange(6), np.arange(6)] * (trial - state) ** 2 * _relative(state)).max(0)
    at_edge = np.hypot(*(state[1:3] - limits.centre)) >= 0.999 * limits.shift
    good = np.isfinite(state).all(0) & np.isfinite(cost) & (decrement < 1.0) & ~(at_edge & limits.free[1])
    # A source that outgrows its cut-out has not failed: it wants a larger one.
    outgrown = np.isfinite(cost) & (
        state[3] + np.hypot(state[4], state[5]) / 2 > np.log(limits.largest) - 1e-3
    )
    return state, (good | outgrown) & (state[0] > 0.1)


def _relative(state: Array) -> Array:
    """Factors that make squared peak steps relative."""
    factors = np.ones_like(state)
    factors[0] = 1 / np.square(np.maximum(state[0], 1e-6))
    return factors
