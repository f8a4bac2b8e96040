"""Association against plain loops, in one, two and three dimensions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boxes import diou_pairs, from_centres, iou_pairs
from models.yolo.assign import BACKGROUND, IGNORED, assign_best, assign_centres
from models.yolo.head import HeadSpec


def loop_centres(anchors, centres, radius, priority, ignore) -> np.ndarray:
    result = np.full(len(anchors), BACKGROUND)
    for i, anchor in enumerate(anchors):
        best = None
        for t in range(len(centres)):
            distance = np.linalg.norm(anchor - centres[t])
            if distance > radius[t]:
                continue
            rank = (not ignore[t], priority[t] - 3 * distance / radius[t])
            if best is None or rank > best[0]:
                best = (rank, t)
        if best is not None:
            result[i] = IGNORED if ignore[best[1]] else best[1]
    return result


@given(st.integers(1, 3), st.integers(0, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=80)
def test_assign_centres_is_the_loop(ndim: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = {1: 60, 2: 12, 3: 6}[ndim]
    anchors = np.stack(np.meshgrid(*[np.arange(side)] * ndim, indexing="ij"), -1).reshape(-1, ndim) + 0.5
    # Some targets lie outside.
    centres = rng.uniform(-3, side + 3, (count, ndim))
    radius, priority = rng.uniform(0.3, 4, count), rng.normal(0, 2, count)
    ignore = rng.random(count) < 0.3
    got = assign_centres(anchors.astype(float), centres, radius, priority, ignore)
    np.testing.assert_array_equal(got, loop_centres(anchors, centres, radius, priority, ignore))


def loop_best(boxes, cell, targets, target_cell, ignore, good_iou, prior_distance, low_iou) -> np.ndarray:
    """The greedy rule cell by cell: take the best free pair, strike its row and column, repeat."""
    result = np.full(len(boxes), BACKGROUND)
    for i in range(len(boxes)):
        for t in range(len(targets)):
            iou = iou_pairs(boxes[i], targets[t])
            if iou > good_iou or (ignore[t] and iou > 0):
                result[i] = IGNORED
    for c in np.unique(cell):
        mine = [i for i in range(len(boxes)) if cell[i] == c]
        owned = [t for t in range(len(targets)) if target_cell[t] == c and not ignore[t]]
        table = {}
        for t in owned:
            row = {i: float(diou_pairs(boxes[i], targets[t])) for i in mine}
            if prior_distance is not None and max(row.values()) < low_iou:
                row = {i: -10 - prior_distance[t, slot] for slot, i in enumerate(mine)}
            table.update({(t, i): value for i, value in row.items()})
        while table:
            t, i = max(table, key=table.get)
            result[i] = t
            table = {pair: value for pair, value in table.items() if pair[0] != t and pair[1] != i}
    return result


@given(st.integers(1, 3), st.integers(0, 14), st.booleans(), st.sampled_from([0.1, 0.5]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=80)
def test_assign_best_is_the_greedy_loop(ndim, count, with_priors, good_iou, seed) -> None:
    rng = np.random.default_rng(seed)
    spec = HeadSpec((4,) * ndim, ((0.5,) * ndim,) * 3, ((1.0,) * ndim,) * 3, (), ())
    grid = {1: (6,), 2: (3, 2), 3: (2, 2, 1)}[ndim]
    anchors = spec.anchor_positions(grid)
    cells = np.broadcast_to(np.arange(np.prod(grid)).reshape(grid), (3, *grid)).reshape(-1)
    n = len(cells)
    size = rng.uniform(1, 9, (n, ndim))
    boxes = from_centres(anchors.reshape(n, ndim) + rng.normal(0, 2, (n, ndim)), size)
    # Crowded, and some centres outside of the grid.
    centre = rng.uniform(-3, 4 * np.array(grid) + 2, (count, ndim))
    targets = from_centres(centre, rng.uniform(1, 9, (count, ndim)))
    index = np.floor((centre + 0.5) / 4).astype(int)
    inside = ((index >= 0) & (index < grid)).all(axis=1)
    home = np.full(count, -1)
    home[inside] = np.ravel_multi_index(tuple(index[inside].T), grid)
    ignore = rng.random(count) < 0.25
    distance = rng.uniform(0, 3, (count, 3)) if with_priors else None
    order = rng.permutation(n)
    boxes, cells = boxes[order], cells[order]
    got = assign_best(boxes, cells, targets, home, ignore, good_iou=good_iou, prior_distance=distance)
    expected = loop_best(boxes, cells, targets, home, ignore, good_iou, distance, -0.1)
    np.testing.assert_array_equal(got, expected)
    served = got[got >= 0]
    assert len(np.unique(served)) == len(served)
    assert (home[served] == cells[got >= 0]).all()
