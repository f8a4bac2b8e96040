"""The primary beam's response at the sources, from a FITS image of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from survey_io import InputError, open_image

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
    from scipy.ndimage import map_coordinates

    response = open_image(path)
    image = response.pixels.read((slice(0, response.shape[0]), slice(0, response.shape[1]))).astype(float)
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
            f"{len(ra)} sources; give the response of this image's pointing"
        )
    # A spline would ring at the border where imagers blank the response, and leave crumbs where it is 0.
    holes = ~np.isfinite(image)
    blank = map_coordinates(holes.astype(float), [y, x], order=1, mode="nearest")
    gain = map_coordinates(np.where(holes, 0.0, image), [y, x], order=1, mode="nearest")
    gain = np.where(blank > 0.01, np.nan, gain / np.maximum(1 - blank, 0.5))
    bad = int((~(gain > 0)).sum())
    if bad:
        raise InputError(
            f"{path}: expected a response above 0 at every source, it is 0, negative or blank at {bad} of {len(ra)} "
            "sources; is this the primary beam's image?"
        )
    return gain
