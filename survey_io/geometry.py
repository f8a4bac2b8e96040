"""Directions on the sky and ellipses as matrices: what coordinates need beyond a WCS."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.coordinates import BarycentricMeanEcliptic, Supergalactic
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from .quiet import quiet

__all__ = [
    "anchor_pixel",
    "celestial_frame",
    "ellipse_axes",
    "inverse",
    "shape_matrix",
    "spherical",
    "unit_vector",
]


def celestial_frame(wcs: WCS) -> Any:
    """The astropy frame of a celestial WCS, ecliptic and supergalactic coordinates included.

    Raises
    ------
    ValueError
        When the frame is none on the sky.
    """
    kind = wcs.wcs.ctype[wcs.wcs.lng][:4]
    if kind == "ELON":
        return BarycentricMeanEcliptic()
    if kind == "SLON":
        return Supergalactic()
    with quiet():
        return wcs_to_celestial_frame(wcs)


def anchor_pixel(wcs: WCS, shape: tuple[int, int]) -> tuple[float, float]:
    """The pixel position (x, y) nearest to the image centre that has a sky position.

    Raises
    ------
    ValueError
        When no part of a 17 x 17 grid over the image lies on the sky.
    """
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(0, nx - 1, 17), np.linspace(0, ny - 1, 17))
    order = np.argsort(np.hypot(x - (nx - 1) / 2, y - (ny - 1) / 2), axis=None, kind="stable")
    x, y = x.ravel()[order], y.ravel()[order]
    neighbours = [
        wcs.all_pix2world(np.column_stack([x + dx, y + dy]), 0)
        for dx, dy in ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
    ]
    usable = np.isfinite(neighbours).all(axis=(0, 2))
    if not usable.any():
        raise ValueError("no pixel of the image has a sky position")
    first = int(np.argmax(usable))
    return float(x[first]), float(y[first])


def unit_vector(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Cartesian unit vectors (..., 3) of longitudes and latitudes in degrees."""
    lon, lat = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def spherical(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude in [0, 360) and latitude, in degrees, of Cartesian vectors (..., 3)."""
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    return np.degrees(np.arctan2(y, x)) % 360.0 % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def shape_matrix(major: Any, minor: Any, angle: Any) -> np.ndarray:
    """Symmetric matrix (..., 2, 2) of an ellipse; ``angle`` counts from the first towards the second axis."""
    major, minor, angle = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in (major, minor, angle)))
    cos, sin = np.cos(angle), np.sin(angle)
    first = major**2 * cos**2 + minor**2 * sin**2
    second = major**2 * sin**2 + minor**2 * cos**2
    cross = (major**2 - minor**2) * cos * sin
    return np.stack([np.stack([first, cross], axis=-1), np.stack([cross, second], axis=-1)], axis=-2)


def ellipse_axes(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(major, minor, angle) of a shape matrix: the reverse of ``shape_matrix``, angle in (-pi/2, pi/2]."""
    first, second, cross = shape[..., 0, 0], shape[..., 1, 1], shape[..., 0, 1]
    mean, spread = (first + second) / 2, np.hypot((first - second) / 2, cross)
    small = np.sqrt(np.maximum(mean - spread, 0.0))
    return np.sqrt(mean + spread), small, 0.5 * np.arctan2(2 * cross, first - second)


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of (..., 2, 2); NaN, not an error, where a position is off the sky."""
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        adjugate = np.stack([np.stack([d, -b], axis=-1), np.stack([-c, a], axis=-1)], axis=-2)
        return adjugate / (a * d - b * c)[..., None, None]
