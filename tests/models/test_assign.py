"""Association of predictions and targets by hand; the oracles are in tests/properties."""

from __future__ import annotations

import numpy as np

from models.boxes import from_centres
from models.yolo.assign import BACKGROUND, IGNORED, assign_best, assign_centres

LINE = np.arange(10, dtype=float)[:, None]


def centres(where, radius, *, priority=None, ignore=None) -> list[int]:
    n = len(where)
    return assign_centres(
        LINE,
        np.array(where, float).reshape(n, 1),
        np.array(radius, float),
        np.zeros(n) if priority is None else np.array(priority, float),
        np.zeros(n, bool) if ignore is None else np.array(ignore),
    ).tolist()


def test_anchors_within_the_radius_answer() -> None:
    assert centres([4.2], [1.5]) == [-1, -1, -1, 0, 0, 0, -1, -1, -1, -1]
    assert centres([], []) == [BACKGROUND] * 10
    assert centres([4.5], [0.2]) == [BACKGROUND] * 10


def test_equals_share_by_distance_and_a_brighter_one_takes_all() -> None:
    assert centres([2.0, 5.0], [3.0, 3.0])[:8] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert centres([2.0, 5.0], [3.0, 3.0], priority=[0.0, 9.0])[:9] == [0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_the_ignore_band_yields_to_demanded_targets() -> None:
    got = centres([2.0, 4.0], [1.0, 1.0], priority=[20.0, 0.0], ignore=[True, False])
    assert got == [-1, IGNORED, IGNORED, 1, 1, 1, -1, -1, -1, -1]


def best(boxes, targets, *, cell=None, target_cell=None, ignore=None, **options) -> list[int]:
    boxes, targets = np.array(boxes, float), np.array(targets, float)
    n, t = len(boxes), len(targets)
    return assign_best(
        boxes.reshape(n, -1),
        np.zeros(n, int) if cell is None else np.array(cell),
        targets.reshape(t, -1),
        np.zeros(t, int) if target_cell is None else np.array(target_cell),
        np.zeros(t, bool) if ignore is None else np.array(ignore),
        **options,
    ).tolist()


def test_the_best_pair_goes_first_and_each_box_serves_one() -> None:
    # Target 0 overlaps box 0 best, but target 1 overlaps it better still.
    boxes = [[0, 4], [1, 7]]
    targets = [[0.5, 4.5], [0, 4.1]]
    assert best(boxes, targets) == [1, 0]


def test_more_targets_than_boxes_leave_the_worst_without() -> None:
    assert best([[0, 4]], [[0, 3], [0, 4], [1, 4]]) == [1]


def test_a_cell_serves_only_its_own_targets() -> None:
    assert best([[0, 4], [0, 4]], [[0, 4]], cell=[0, 1], target_cell=[1]) == [IGNORED, 0]


def test_boxes_that_overlap_well_are_spared_and_others_are_not() -> None:
    boxes = [[0, 10], [1, 11], [7, 17], [30, 40]]
    assert best(boxes, [[0, 10]]) == [0, IGNORED, BACKGROUND, BACKGROUND]
    assert best(boxes, [[0, 10]], good_iou=0.1) == [0, IGNORED, IGNORED, BACKGROUND]


def test_a_target_outside_the_grid_only_shields() -> None:
    boxes = [[-5, 5], [20, 30]]
    assert best(boxes, [[-5, 5]], target_cell=[-1]) == [IGNORED, BACKGROUND]


def test_the_ignore_band_shields_whatever_it_touches() -> None:
    boxes = [[0, 10], [9, 19], [30, 40]]
    assert best(boxes, [[0, 10]], ignore=[True]) == [IGNORED, IGNORED, BACKGROUND]
    # A demanded target still gets its box there.
    assert best(boxes, [[0, 10], [9, 18]], ignore=[True, False]) == [IGNORED, 1, BACKGROUND]


def test_without_overlap_the_nearest_prior_learns() -> None:
    boxes, target = [[0, 2], [3, 5], [6, 8]], [[20, 22]]
    assert best(boxes, target) == [BACKGROUND, BACKGROUND, 0]
    prior_distance = np.array([[2.0, 0.5, 1.0]])
    assert best(boxes, target, prior_distance=prior_distance) == [BACKGROUND, 0, BACKGROUND]
    # With a good overlap the priors do not matter.
    assert best(boxes, [[0, 2]], prior_distance=prior_distance)[0] == 0


def test_nothing_to_match_is_all_background() -> None:
    none, some = np.empty((0, 4)), from_centres(np.zeros((3, 2)), np.ones((3, 2)))
    free = np.zeros(3, int), np.zeros(3, bool)
    got = assign_best(some, free[0], none, np.empty(0, int), np.empty(0, bool))
    assert got.tolist() == [BACKGROUND] * 3
    assert len(assign_best(none, np.empty(0, int), some, *free)) == 0
