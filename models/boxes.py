"""Box geometry in any number of dimensions: IoU, DIoU, clipping, non-maximum suppression.

A box is (lo_1 .. lo_n, hi_1 .. hi_n): edges in pixels, so that the first pixel starts at -0.5.
"""

from __future__ import annotations

import numpy as np


def from_centres(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes (n, 2 * ndim) from centres and full sizes (n, ndim)."""
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def _split(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ndim = boxes.shape[-1] // 2
    return boxes[..., :ndim], boxes[..., ndim:]


def iou_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes pair by pair; shapes (..., 2 * ndim) that broadcast."""
    (alo, ahi), (blo, bhi) = _split(a), _split(b)
    inter = np.prod(np.maximum(np.minimum(ahi, bhi) - np.maximum(alo, blo), 0), axis=-1)
    union = np.prod(ahi - alo, axis=-1) + np.prod(bhi - blo, axis=-1) - inter
    return inter / np.maximum(union, 1e-12)


def diou_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU minus centre distance over the enclosing diagonal (not squared): YOLO-CIANNA's DIoU, -1..1."""
    (alo, ahi), (blo, bhi) = _split(a), _split(b)
    distance = np.linalg.norm((alo + ahi - blo - bhi) / 2, axis=-1)
    diagonal = np.linalg.norm(np.maximum(ahi, bhi) - np.minimum(alo, blo), axis=-1)
    return iou_pairs(a, b) - distance / np.maximum(diagonal, 1e-12)


def clip(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes cut to the edges of an image of that shape (-0.5 to n - 0.5 per axis)."""
    ndim = len(shape)
    upper = np.array(shape, float) - 0.5
    return np.clip(boxes, -0.5, np.concatenate([upper, upper])) if boxes.shape[-1] == 2 * ndim else boxes


def overlapping_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs (i, j) of boxes that overlap, and their IoU; found by a tree, so without an n x m table."""
    from scipy.spatial import cKDTree

    (alo, ahi), (blo, bhi) = _split(a), _split(b)
    empty = np.empty(0, int)
    if len(a) == 0 or len(b) == 0:
        return empty, empty, np.empty(0)
    reach = 0.5 * (np.max(ahi - alo) + (bhi - blo).max(axis=-1))
    near = cKDTree((alo + ahi) / 2).query_ball_point((blo + bhi) / 2, reach, p=np.inf)
    counts = np.array([len(n) for n in near])
    if counts.sum() == 0:
        return empty, empty, np.empty(0)
    i = np.concatenate([np.asarray(n, int) for n in near if len(n)])
    j = np.repeat(np.arange(len(b)), counts)
    iou = iou_pairs(a[i], b[j])
    keep = iou > 0
    return i[keep], j[keep], iou[keep]


def nms(centre: np.ndarray, radius: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Greedy non-maximum suppression by distance: exact, order-free, without an n x n table.

    A detection is removed when a better one that is itself kept lies within the radius of either. Ties are
    broken by position, so that the result does not depend on the order of the rows.

    Parameters
    ----------
    centre : ndarray, shape (n, ndim)
    radius : ndarray, shape (n,)
        px.
    score : ndarray, shape (n,)

    Returns
    -------
    ndarray of bool, shape (n,)
        True for what is kept.
    """
    from scipy.spatial import cKDTree

    n = len(centre)
    if n < 2:
        return np.ones(n, bool)
    pairs = cKDTree(centre).query_pairs(float(radius.max()), output_type="ndarray")
    distance = np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1)
    pairs = pairs[distance < np.maximum(radius[pairs[:, 0]], radius[pairs[:, 1]])]
    return _best_of(pairs, centre, score)


def nms_overlap(centre: np.ndarray, size: np.ndarray, score: np.ndarray, *, iou: float) -> np.ndarray:
    """Greedy non-maximum suppression by the overlap of boxes; exact and order-free as `nms`.

    Parameters
    ----------
    centre, size : ndarray, shape (n, ndim)
        px.
    score : ndarray, shape (n,)
    iou : float
        Boxes that overlap by more are one.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for what is kept.
    """
    boxes = from_centres(np.asarray(centre, float), np.asarray(size, float))
    one, other, overlap = overlapping_pairs(boxes, boxes)
    near = (one < other) & (overlap > iou)
    return _best_of(np.stack([one[near], other[near]], -1), centre, score)


def _best_of(pairs: np.ndarray, centre: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Rows that no better row, itself kept, is paired with."""
    n = len(centre)
    rank = np.empty(n, int)
    rank[np.lexsort((*centre.T, -score))] = np.arange(n)
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    better, worse = np.where(swap, pairs[:, 1], pairs[:, 0]), np.where(swap, pairs[:, 0], pairs[:, 1])
    undecided, kept = np.ones(n, bool), np.zeros(n, bool)
    while undecided.any():
        # Whoever has no better undecided neighbour is kept; its worse neighbours fall.
        blocked = np.zeros(n, bool)
        blocked[worse[undecided[better] & undecided[worse]]] = True
        winners = undecided & ~blocked
        kept |= winners
        fallen = np.zeros(n, bool)
        fallen[worse[winners[better]]] = True
        undecided &= ~winners & ~fallen
    return kept
