"""The primary beam's response at the sources, from a FITS image or cube of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .cube import is_cube, open_cube
from .errors import InputError
from .image import open_image
from .observation import Observation, PixelSource

# Below this share of the largest response a correction is large and uncertain: such sources are flagged.
LOW_RESPONSE = 0.2


def primary_beam_gain(path: Path, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Response at sky positions, interpolated bilinearly.

    Parameters
    ----------
    path : Path
        FITS image of the response with its own celestial WCS; 1 at the pointing centre.
    ra, dec : ndarray, shape (n,)
        ICRS degrees.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    InputError
        When it is no response (about 1 at its centre), does not cover a source or is not positive there.
    """
    response = open_image(path)
    return _response_at(path, response, response.pixels, ra, dec, len(ra))


def line_beam_gain(path: Path, ra: np.ndarray, dec: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Response at the places of lines: of an image at every frequency, of a cube in the channel of each line.

    Parameters
    ----------
    path : Path
        FITS image or cube of the response; a cube's channels need not be those of the data, but must cover them.
    ra, dec : ndarray, shape (n,)
        ICRS degrees.
    frequency : ndarray, shape (n,)
        Hz.

    Raises
    ------
    InputError
        As `primary_beam_gain`; or when a cube's channels miss a source.
    """
    if not is_cube(path):
        return primary_beam_gain(path, ra, dec)
    cube = open_cube(path)
    channel = np.rint(cube.spectral.channel(frequency)).astype(int)
    missed = int(((channel < 0) | (channel >= cube.shape[0])).sum())
    if missed:
        raise InputError(
            f"{path}: expected a primary beam whose channels cover the cube's, they miss {missed} of {len(ra)} "
            "sources; give the response at this cube's frequencies"
        )
    gain = np.ones(len(ra))
    for number in np.unique(channel):
        own = channel == number
        gain[own] = _response_at(path, cube.plane, cube.pixels.plane(int(number)), ra[own], dec[own], len(ra))
    return gain


def _response_at(
    path: Path, response: Observation, pixels: PixelSource, ra: np.ndarray, dec: np.ndarray, count: int
) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    image = pixels.read().astype(float)
    highest = float(np.nanmax(image, initial=0.0))
    if not 0.05 <= highest <= 1.5:
        raise InputError(
            f"{path}: expected a primary beam's response, about 1 at its centre, got values up to {highest:.3g}; "
            "is this the primary beam's image?"
        )
    x, y = response.sky_to_pixel(ra, dec)
    outside = ~((x > -0.5) & (x < response.shape[1] - 0.5) & (y > -0.5) & (y < response.shape[0] - 0.5))
    if outside.any():
        raise InputError(
            f"{path}: expected a primary beam that covers the image, it misses {int(outside.sum())} of "
            f"{count} sources; give the response of this image's pointing"
        )
    # A spline would ring at the border where imagers blank the response, and leave crumbs where it is 0.
    holes = ~np.isfinite(image)
    blank = map_coordinates(holes.astype(float), [y, x], order=1, mode="nearest")
    gain = map_coordinates(np.where(holes, 0.0, image), [y, x], order=1, mode="nearest")
    gain = np.where(blank > 0.01, np.nan, gain / np.maximum(1 - blank, 0.5))
    bad = int((~(gain > 0)).sum())
    if bad:
        raise InputError(
            f"{path}: expected a response above 0 at every source, it is 0, negative or blank at {bad} of {count} "
            "sources; is this the primary beam's image?"
        )
    return gain
