"""How one HI galaxy is laid into a cube: clouds of a rotating disc, seen through channels and beam.

Every galaxy is first a set of points with a weight, a place on the sky and a line-of-sight velocity; the points'
light is integrated over the channels exactly and over the beam in Fourier space, so that neither the grid of
channels nor that of pixels widens what the truth says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.sparse import csc_matrix
from scipy.special import ndtr

FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
# A disc ends at 1.5 radii; its warp and its flaring asymmetry begin at 0.8.
EDGE, WARP_START = 1.5, 0.8
# Height of the clouds above and below the disc over the HI radius: edge-on galaxies of the atlas are about a fifth as
# thick as long.
THICKNESS = 0.08
# Radius of a central hole over the HI radius.
HOLE_RADIUS = 0.35
# Full width of a Gaussian at 20% of its peak, over its sigma.
GAUSSIAN_W20 = 2 * np.sqrt(2 * np.log(5))

Array = NDArray[np.float64]


def disc_points(galaxy: dict[str, float], radius: float) -> tuple[Array, Array, Array, Array]:
    """Clouds of a perhaps lopsided, warped and hollow disc.

    Parameters
    ----------
    galaxy : dict
        One row of `Galaxies`.
    radius : float
        HI radius in px: rings and spokes are as many as pixels and rotation need.

    Returns
    -------
    east, north : ndarray
        Offsets from the centre of rotation, in HI radii.
    turning : ndarray
        Line-of-sight velocity over its largest value, receding positive.
    weight : ndarray
        Adds to 1.
    """
    rings = int(np.clip(1.2 * EDGE * radius, 16, 64))
    spokes = 2 * int(np.clip(np.pi * EDGE * radius, 24, 80))
    # Each ring's spokes are turned by the golden section: aligned ones would leave gaps between velocities.
    ring = np.repeat(np.arange(rings), spokes)
    r = (ring + 0.5) / rings * EDGE
    phi = (np.tile(np.arange(spokes), rings) + ring * 0.618034 % 1) / spokes * 2 * np.pi
    weight = r * np.exp(-r / galaxy["scale"])
    weight *= 1 - galaxy["hole"] * np.exp(-((r / HOLE_RADIUS) ** 2))
    cosine = np.cos(phi)
    # Seen from the centre, one side is brighter, reaches further out and turns over later.
    side = galaxy["lopsided"] * np.cos(phi - np.radians(galaxy["lopsided_angle"]))
    weight *= 1 + side * np.minimum(r, 1.25)
    out = r * (1 + 0.3 * side)
    rise = galaxy["turnover"] * (1 + 0.5 * side)
    outer = np.clip((r - WARP_START) / (EDGE - WARP_START), 0, 1)
    inclination = np.radians(galaxy["inclination"] + galaxy["warp_inclination"] * outer)
    angle = np.radians(galaxy["pa"] + galaxy["warp_pa"] * outer)
    height = THICKNESS * (1 - 2 * ((ring + np.tile(np.arange(spokes), rings)) % 2))
    along = out * cosine
    across = out * np.sin(phi) * np.cos(inclination) + height * np.sin(inclination)
    east = np.sin(angle) * along - np.cos(angle) * across
    north = np.cos(angle) * along + np.sin(angle) * across
    turning = np.sin(inclination) * cosine * (1 - np.exp(-r / rise)) * (1 + galaxy["skew"] * cosine)
    return east, north, turning / max(np.abs(turning).max(), 1e-9), weight / weight.sum()


def profile_width(velocity: Array, weight: Array, dispersion: float, *, level: float = 0.2) -> float:
    """Width of a global profile at a share of its peak, between the outermost crossings, in units of velocity."""
    step = dispersion / 3
    reach = np.abs(velocity).max() + 5 * dispersion
    cells = 2 * int(np.ceil(reach / step)) + 3
    place = velocity / step + cells // 2
    left = np.floor(place).astype(int)
    part = place - left
    profile = np.bincount(left, weight * (1 - part), cells) + np.bincount(left + 1, weight * part, cells)
    kernel = np.exp(-0.5 * (np.arange(-14, 15) / 3) ** 2)
    return width_at(np.convolve(profile, kernel, mode="same"), level=level) * step


def width_at(profile: Array, *, level: float = 0.2) -> float:
    """Distance in samples between the outermost places where a profile crosses a share of its peak."""
    left, right = edges_at(profile, level=level)
    return right - left


def edges_at(profile: Array, *, level: float = 0.2) -> tuple[float, float]:
    """First and last place, in samples, where a profile crosses a share of its peak."""
    limit = level * profile.max()
    above = np.flatnonzero(profile > limit)
    if not len(above):
        return 0.0, 0.0
    padded = np.concatenate(([0.0], profile, [0.0]))
    first, last = above[0] + 1, above[-1] + 1
    left = first - (padded[first] - limit) / (padded[first] - padded[first - 1])
    right = last + (padded[last] - limit) / (padded[last] - padded[last + 1])
    return float(left - 1), float(right - 1)


def rotation_speed(turning: Array, weight: Array, dispersion: float, w20: float) -> float:
    """Largest line-of-sight speed at which the global profile is ``w20`` wide at 20% of its peak."""
    # A horn blurred by the dispersion falls to 20% of its peak 1.3 sigma outside the rotation speed.
    speed = 0.5 * max(w20 - 2.6 * dispersion, 0.1 * dispersion)
    for _ in range(8):
        missing = w20 - profile_width(speed * turning, weight, dispersion)
        if abs(missing) < 0.005 * w20:
            break
        # Never to nothing in one step: widths hardly change with speeds below the dispersion.
        speed = max(speed + 0.5 * missing, 0.3 * speed)
    return speed


def beam_transfer(shape: tuple[int, int], beam: tuple[float, float, float], *, power: float = 1.0) -> Array:
    """Fourier transform, on `rfft2`'s grid, of a beam of unit integral.

    Parameters
    ----------
    shape : (ny, nx)
    beam : (major, minor, pa)
        FWHM in px; degrees east of north, north up and east left.
    power : float
        0.5 gives the kernel whose autocorrelation is the beam's shape.
    """
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    major, minor, angle = beam[0] * FWHM_TO_SIGMA, beam[1] * FWHM_TO_SIGMA, np.radians(beam[2])
    along, across = -fx * np.sin(angle) + fy * np.cos(angle), fx * np.cos(angle) + fy * np.sin(angle)
    return np.exp(-2 * np.pi**2 * power * ((major * along) ** 2 + (minor * across) ** 2))


def splat(
    place: tuple[Array, Array, Array],
    weight: Array,
    *,
    blur: float,
    beam: tuple[float, float, float],
) -> tuple[NDArray[np.int64], Array]:
    """First voxel of a box, and the box, holding points seen through channels and beam; its sum is the weights'.

    Parameters
    ----------
    place : (z, y, x)
        Channels and px.
    blur : float
        Standard deviation of a point's light along the channels; each channel integrates over its width.
    beam : (major, minor, pa)
        As for `beam_transfer`; at least 2 px, or the pixels do not sample it.
    """
    z, y, x = place
    first, last = _channels(z, 4 * blur)
    edges = first - 0.5 + np.arange(last - first + 2)
    share = np.diff(ndtr(((edges[None] - z[:, None]) / blur).astype(np.float32)), axis=1) * weight[:, None]
    corner, plane = _planes(y, x, share, beam)
    return np.array([first, *corner]), through_beam(plane, beam)


def splat_planes(
    place: tuple[Array, Array, Array],
    planes: Array,
    *,
    beam: tuple[float, float, float],
) -> tuple[NDArray[np.int64], Array]:
    """Like `splat`, for the planes of a cube: the spectrum between planes is interpolated linearly.

    Parameters
    ----------
    place : (z, y, x)
        z, evenly spaced, of the planes; y and x of their pixels.
    planes : ndarray
        Light, (pixels, planes).
    """
    z, y, x = place
    step = abs(z[1] - z[0])
    first, last = _channels(z, step)
    edges = np.clip((first - 0.5 + np.arange(last - first + 2)[None] - z[:, None]) / step, -1, 1)
    # Integral of a triangle that falls to 0 at the neighbouring planes.
    below = np.where(edges < 0, 0.5 * (1 + edges) ** 2, 1 - 0.5 * (1 - edges) ** 2)
    corner, plane = _planes(y, x, planes, beam)
    box = np.tensordot(np.diff(below, axis=1), plane, axes=(0, 0))
    return np.array([first, *corner]), through_beam(box, beam)


def _channels(z: Array, reach: float) -> tuple[int, int]:
    return int(np.floor(z.min() - reach + 0.5)), int(np.floor(z.max() + reach + 0.5))


def _planes(
    y: Array, x: Array, light: Array, beam: tuple[float, float, float]
) -> tuple[tuple[int, int], Array]:
    """First pixel, and planes (n, ny, nx) in which each point's n values are shared among nine pixels.

    The shares are a quadratic spline's: unlike linear ones they widen a point by the same wherever it lies.
    """
    margin = int(np.ceil(3.6 * beam[0] * FWHM_TO_SIGMA)) + 2
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    low = int(row.min()) - margin, int(column.min()) - margin
    ny, nx = int(row.max()) + margin + 1 - low[0], int(column.max()) + margin + 1 - low[1]
    ups, rights = _spline(y - row), _spline(x - column)
    pixel = (row - low[0]) * nx + column - low[1]
    cells = np.stack([pixel + step * nx + side for step in (-1, 0, 1) for side in (-1, 0, 1)], axis=1)
    parts = np.stack([up * right for up in ups for right in rights], axis=1)
    spread = csc_matrix((parts.ravel(), cells.ravel(), 9 * np.arange(len(y) + 1)), shape=(ny * nx, len(y)))
    return low, (spread @ light).T.reshape(-1, ny, nx)


def _spline(part: Array) -> tuple[Array, Array, Array]:
    return 0.5 * (0.5 - part) ** 2, 0.75 - part**2, 0.5 * (0.5 + part) ** 2


def through_beam(plane: Array, beam: tuple[float, float, float]) -> Array:
    """Planes whose points were shared among pixels by `_planes`, seen through the beam."""
    ny, nx = plane.shape[1:]
    shape = (next_fast_len(ny, real=True), next_fast_len(nx, real=True))
    # The sharing among pixels is itself a blur, a quadratic spline in each axis; it is taken out.
    sharing = (np.sinc(np.fft.fftfreq(shape[0]))[:, None] * np.sinc(np.fft.rfftfreq(shape[1]))[None]) ** 3
    transfer = beam_transfer(shape, beam) / sharing
    return irfft2(rfft2(plane, shape) * transfer, shape)[:, :ny, :nx]
