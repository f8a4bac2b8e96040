"""Non-maximum suppression on the device: the set that `models.boxes.nms` keeps, by a sorted grid and vector rounds."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

# Pairs that are looked at together: 16 MB of distances in float64.
_PAIRS = 2_000_000


def near_pairs(centre: Tensor, radius: Tensor) -> Tensor:
    """All pairs (i, j) of places nearer to each other than the larger of their radii, int64 (p, 2).

    Parameters
    ----------
    centre : Tensor of float64, shape (n, ndim)
    radius : Tensor of float64, shape (n,)
    """
    count, ndim = centre.shape
    nothing = torch.empty((0, 2), dtype=torch.int64, device=centre.device)
    if count < 2:
        return nothing
    # Cells as wide as the largest radius: what is nearer lies in the same or in a neighbouring one.
    cell = ((centre - centre.amin(0)) / radius.max().clamp(min=1e-9)).floor().to(torch.int64) + 1
    widths = cell.amax(0) + 2
    steps = torch.ones(ndim, dtype=torch.int64, device=centre.device)
    for axis in range(ndim - 2, -1, -1):
        steps[axis] = steps[axis + 1] * widths[axis + 1]
    keys, order = torch.sort((cell * steps).sum(1))
    centre, radius = centre[order], radius[order]
    found = []
    for offset in product((-1, 0, 1), repeat=ndim):
        if offset < (0,) * ndim:
            # The pair is found from its other end.
            continue
        shift = int((torch.tensor(offset) * steps.cpu()).sum())
        if shift == 0:
            # Of the own cell only what comes later.
            first = torch.arange(1, count + 1, device=keys.device)
        else:
            first = torch.searchsorted(keys, keys + shift)
        last = torch.searchsorted(keys, keys + shift, right=True)
        found += _nearer(centre, radius, first, (last - first).clamp(min=0))
    return order[torch.cat(found)] if found else nothing


def _nearer(centre: Tensor, radius: Tensor, first: Tensor, many: Tensor) -> list[Tensor]:
    """Pairs of each row with ``many`` rows from ``first`` on that are near enough, in chunks of bounded size."""
    ends = many.cumsum(0)
    total = int(ends[-1])
    found = []
    for begin in range(0, total, _PAIRS):
        place = torch.arange(begin, min(begin + _PAIRS, total), device=many.device)
        one = torch.searchsorted(ends, place, right=True)
        other = first[one] + place - (ends[one] - many[one])
        distance = (centre[one] - centre[other]).square().sum(1).sqrt()
        near = distance < torch.maximum(radius[one], radius[other])
        found.append(torch.stack([one[near], other[near]], 1))
    return found


def rank_of(centre: Tensor, score: Tensor) -> Tensor:
    """Place of each row from best to worst; ties go by the last axis first, as numpy.lexsort((*centre.T, -score))."""
    order = torch.arange(len(score), device=score.device)
    for key in (*centre.T, -score):
        order = order[torch.sort(key[order], stable=True).indices]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=score.device)
    return rank


def nms(centre: Tensor, radius: Tensor, score: Tensor, uncertain: Tensor | None = None) -> Tensor:
    """Greedy non-maximum suppression by distance: exact, and independent of the order of rows.

    Parameters
    ----------
    centre : Tensor of float64, shape (n, ndim)
    radius : Tensor of float64, shape (n,)
        px.
    score : Tensor, shape (n,)
    uncertain : Tensor of bool, shape (n,), optional
        Rows that something not among these may suppress. Only what falls whatever that is is removed, so that a later
        call with all rows keeps what it would have kept without this one.

    Returns
    -------
    Tensor of bool, shape (n,)
        True for what is kept, or may be.
    """
    count = len(score)
    pairs = near_pairs(centre, radius)
    rank = rank_of(centre, score)
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    better = torch.where(swap, pairs[:, 1], pairs[:, 0])
    worse = torch.where(swap, pairs[:, 0], pairs[:, 1])
    undecided = torch.ones(count, dtype=torch.bool, device=score.device)
    kept = torch.zeros_like(undecided)
    while True:
        # Whoever has no better undecided neighbour is kept; its worse neighbours fall.
        blocked = torch.zeros_like(undecided)
        blocked[worse[undecided[better] & undecided[worse]]] = True
        winners = undecided & ~blocked
        if uncertain is not None:
            winners &= ~uncertain
        if not winners.any():
            return kept | undecided
        kept |= winners
        fallen = torch.zeros_like(undecided)
        fallen[worse[winners[better]]] = True
        undecided &= ~winners & ~fallen
