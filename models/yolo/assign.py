"""Which prediction answers for which target, vectorised, in any number of dimensions.

Targets are ragged: each image has its own arrays. The rules share the ignore band (targets too faint to
demand and too bright to punish) and the treatment of neighbours:

- `assign_centres`: every anchor within a target's radius is positive. It needs no prediction, so it runs in
  the loader, and it suits heads whose anchors are finer than the beam.
- `assign_priors`: every box whose prior resembles a target, in the target's cell and the nearest beside it, is
  positive. It needs no prediction either, and suits objects larger than cells, of many shapes.
- `assign_best`: YOLO-CIANNA's greedy matching (Cornu et al. 2024): per cell, the pair of box and target with
  the best IoU is taken first; boxes that overlap a target well without being its best are left out of the
  loss.
"""

from __future__ import annotations

import numpy as np

BACKGROUND, IGNORED = -1, -2


def assign_centres(
    anchors: np.ndarray, centres: np.ndarray, radius: np.ndarray, priority: np.ndarray, ignore: np.ndarray
) -> np.ndarray:
    """Give each anchor the target in whose radius it lies.

    Parameters
    ----------
    anchors : ndarray, shape (n, ndim)
        Anchor positions in px, on a regular grid or not.
    centres : ndarray, shape (t, ndim)
        Target centres in px.
    radius : ndarray, shape (t,)
        px.
    priority : ndarray, shape (t,)
        Where radii overlap the target with the largest ``priority - 3 distance / radius`` wins; with the log
        of the flux as priority, equals share by distance and a much brighter one takes all.
    ignore : ndarray of bool, shape (t,)
        Targets in the ignore band: their anchors are IGNORED unless a demanded target holds them.

    Returns
    -------
    ndarray of int32, shape (n,)
        Index of the target, BACKGROUND or IGNORED.
    """
    from scipy.spatial import cKDTree

    result = np.full(len(anchors), BACKGROUND, np.int32)
    if len(centres) == 0:
        return result
    near = cKDTree(anchors).query_ball_point(centres, radius)
    counts = np.array([len(n) for n in near])
    if counts.sum() == 0:
        return result
    anchor = np.concatenate([np.asarray(n, int) for n in near if len(n)])
    target = np.repeat(np.arange(len(centres)), counts)
    distance = np.linalg.norm(anchors[anchor] - centres[target], axis=1)
    rank = priority[target] - 3 * distance / radius[target] - 1e6 * ignore[target]
    order = np.argsort(rank, kind="stable")
    # Later writes win, so that the highest rank stays.
    result[anchor[order]] = np.where(ignore[target[order]], IGNORED, target[order])
    return result


def assign_best(
    boxes: np.ndarray,
    cell: np.ndarray,
    targets: np.ndarray,
    target_cell: np.ndarray,
    ignore: np.ndarray,
    *,
    good_iou: float = 0.5,
    prior_distance: np.ndarray | None = None,
    low_iou: float = -0.1,
) -> np.ndarray:
    """Greedy one-to-one matching per cell by DIoU, in rounds over all cells at once.

    Parameters
    ----------
    boxes : ndarray, shape (n, 2 * ndim)
        Decoded predictions, (lo, hi) edges in px.
    cell : ndarray of int, shape (n,)
        Cell of each prediction.
    targets : ndarray, shape (t, 2 * ndim)
    target_cell : ndarray of int, shape (t,)
        Cell that owns each target's centre, by true floor; -1 for a centre outside the grid, which then only
        shields its overlapping predictions from the background loss.
    ignore : ndarray of bool, shape (t,)
        Targets in the ignore band: only shield.
    good_iou : float
        A prediction whose IoU with any target exceeds this and that is no target's best is IGNORED.
    prior_distance : ndarray, shape (t, n_slots) or None
        Distance of each target to each box slot's prior; where the best IoU is below ``low_iou`` the nearest
        prior is taken instead. Slots are ``prediction index within its cell``.
    low_iou : float

    Returns
    -------
    ndarray of int32, shape (n,)
        Index of the target, BACKGROUND or IGNORED.
    """
    from models.boxes import diou_pairs, overlapping_pairs

    result = np.full(len(boxes), BACKGROUND, np.int32)
    if len(targets) == 0 or len(boxes) == 0:
        return result
    box, target, iou = overlapping_pairs(boxes, targets)
    result[box[iou > good_iou]] = IGNORED
    if ignore.any():
        result[box[ignore[target] & (iou > 0)]] = IGNORED
    wanted = np.flatnonzero(~ignore & (target_cell >= 0))
    order = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[order], target_cell[wanted])
    last = np.searchsorted(cell[order], target_cell[wanted], side="right")
    counts = last - first
    pair_target = np.repeat(wanted, counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pair_box = order[np.repeat(first, counts) + within]
    quality = diou_pairs(boxes[pair_box], targets[pair_target])
    if prior_distance is not None and len(pair_target):
        # No box overlaps: IoU says nothing, so the nearest prior shall learn. Below any IoU, ordered by
        # distance.
        best = np.full(len(targets), -np.inf)
        np.maximum.at(best, pair_target, quality)
        poor = best[pair_target] < low_iou
        quality = np.where(poor, -10.0 - prior_distance[pair_target, within], quality)
    free = np.ones(len(pair_box), bool)
    while free.any():
        index = np.flatnonzero(free)
        # The best free pair of each cell is locked; its row and column leave the table.
        pick = index[np.lexsort((-quality[index], cell[pair_box[index]]))]
        _, leaders = np.unique(cell[pair_box[pick]], return_index=True)
        locked = pick[leaders]
        result[pair_box[locked]] = pair_target[locked]
        free &= ~np.isin(pair_box, pair_box[locked]) & ~np.isin(pair_target, pair_target[locked])
    return result


def assign_priors(
    boxes: np.ndarray,
    ignore: np.ndarray,
    priors: np.ndarray,
    grid: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    similar: float = 0.5,
    neighbours: bool = True,
) -> np.ndarray:
    """Give boxes of a grid the targets whose shape their priors resemble.

    Parameters
    ----------
    boxes : ndarray, shape (t, 2 * ndim)
        Targets, (lo, hi) edges in px.
    ignore : ndarray of bool, shape (t,)
        Neither demanded nor punished.
    priors : ndarray, shape (n_priors, ndim)
        px.
    grid, stride : tuple of int
        Cells per axis, and px per cell.
    similar : float
        Least overlap (IoU of shapes laid on each other) of a prior that answers; the best one always does.
    neighbours : bool
        Along each axis the cell beside the target's own that is nearer to its centre answers too, so that an object on
        the border of two cells is not left to one of them.

    Returns
    -------
    ndarray of int32, shape (n_priors, *grid)
        Index of the target, BACKGROUND or IGNORED. Where two claim the same box the smaller target wins, and a
        demanded one over one to be ignored.
    """
    ndim = len(grid)
    result = np.full((len(priors), *grid), BACKGROUND, np.int32)
    if len(boxes) == 0:
        return result
    sizes = np.maximum(boxes[:, ndim:] - boxes[:, :ndim], 1e-3)
    shared = np.minimum(sizes[:, None], priors[None]).prod(axis=-1)
    overlap = shared / (sizes.prod(axis=-1)[:, None] + priors.prod(axis=-1)[None] - shared)
    fits = (overlap >= similar) | (overlap == overlap.max(axis=1, keepdims=True))
    places = ((boxes[:, :ndim] + boxes[:, ndim:]) / 2 + 0.5) / np.array(stride)
    # Later writes win.
    order = np.lexsort((-sizes.prod(axis=-1), ~ignore))
    for target in order:
        own = np.clip(np.floor(places[target]).astype(int), 0, np.array(grid) - 1)
        cells = [own]
        if neighbours:
            for axis in range(ndim):
                beside = own.copy()
                beside[axis] += 1 if places[target][axis] - own[axis] >= 0.5 else -1
                if 0 <= beside[axis] < grid[axis]:
                    cells.append(beside)
        for cell in cells:
            for prior in np.flatnonzero(fits[target]):
                result[(prior, *cell)] = IGNORED if ignore[target] else target
    return result
