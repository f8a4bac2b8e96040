"""One list of detections from many tiles: each from the tile that owns its anchor, then suppressed."""

from __future__ import annotations

import numpy as np

from models.boxes import nms, nms_overlap
from models.detections import Detections

# Two detections nearer than this many beams (geometric mean of the axes) are one source.
SAME_SOURCE_BEAMS = 0.5
# An extended detection also swallows worse ones within this part of its own half size.
SAME_SOURCE_EXTENT = 0.35
# Two lines of a spectrum whose boxes (centre and FWHM) overlap by this IoU are one: equal ones nearer than half their
# width, or one within another of up to three times its width.
SAME_LINE = 0.3


def owned(found: Detections, core: tuple[slice, ...]) -> Detections:
    """Those detections whose anchor pixel lies in a tile's core (image pixels)."""
    low, high = np.array([s.start for s in core]), np.array([s.stop for s in core])
    return found[((found.anchor >= low) & (found.anchor < high)).all(axis=1)]


def suppress(found: Detections, beam_px: float) -> Detections:
    """Exact greedy suppression over the whole image, independent of the order of rows.

    Parameters
    ----------
    found : Detections
        In image pixels.
    beam_px : float
        FWHM of the beam in px.

    Returns
    -------
    Detections
        Kept rows, sorted by position.
    """
    if len(found) == 0:
        return found
    radius = np.maximum(SAME_SOURCE_BEAMS * beam_px, SAME_SOURCE_EXTENT * 0.5 * found.size.max(axis=1))
    # The logit is compared to 1e-4: engines differ by rounding, and position then breaks the tie.
    rank = np.round(found.logit.astype(np.float64), 4)
    return found[nms(found.centre, radius.astype(np.float64), rank)].sorted()


def suppress_overlaps(found: Detections) -> Detections:
    """As `suppress`, for lines of a spectrum: by the overlap of their boxes, since lines have no common width."""
    if len(found) == 0:
        return found
    rank = np.round(found.logit.astype(np.float64), 4)
    # Rounded, so that engines' last digits cannot move a pair across the limit.
    centre, size = (np.round(np.asarray(a, np.float64), 3) for a in (found.centre, found.size))
    return found[nms_overlap(centre, size, rank, iou=SAME_LINE)].sorted()
