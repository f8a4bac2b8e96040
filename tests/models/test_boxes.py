"""Box geometry: known overlaps, and suppression against the classic loop."""

from __future__ import annotations

import numpy as np
import pytest

from models.boxes import clip, diou_pairs, from_centres, iou_pairs, nms, nms_overlap, overlapping_pairs


def box(*values: float) -> np.ndarray:
    return np.array([values], float)


# YOLO-CIANNA carries a 2D box as a 3D one that is a pixel deep; these values are worked out by hand.
VECTORS = [
    (box(0, 0, 0, 4, 4, 1), box(2, 2, 0, 6, 6, 1), 0.142857, -0.188185),
    (box(0, 0, 0, 4, 4, 4), box(2, 2, 2, 6, 6, 6), 0.066667, -0.266667),
    (box(0, 0, 0, 4, 4, 1), box(10, 0, 0, 14, 4, 1), 0.0, -0.685189),
    (box(0, 0, 4, 4), box(2, 2, 6, 6), 0.142857, -0.190476),
    (box(0, 10), box(5, 15), 1 / 3, 1 / 3 - 1 / 3),
    (box(0, 0, 4, 4), box(0, 0, 4, 4), 1.0, 1.0),
]


@pytest.mark.parametrize(("a", "b", "iou", "diou"), VECTORS)
def test_overlaps_known_by_hand(a: np.ndarray, b: np.ndarray, iou: float, diou: float) -> None:
    for one, other in ((a, b), (b, a)):
        assert iou_pairs(one, other)[0] == pytest.approx(iou, abs=1e-6)
        assert diou_pairs(one, other)[0] == pytest.approx(diou, abs=1e-6)


def test_pairs_broadcast_to_a_table() -> None:
    a, b = np.vstack([VECTORS[3][0], box(2, 2, 6, 6)]), VECTORS[3][1]
    table = iou_pairs(a[:, None], b[None])
    assert table.shape == (2, 1)
    np.testing.assert_allclose(table[:, 0], [1 / 7, 1.0])


def test_boxes_without_extent_do_not_divide_by_zero() -> None:
    assert iou_pairs(box(1, 1, 1, 1), box(1, 1, 1, 1))[0] == 0
    assert np.isfinite(diou_pairs(box(1, 1, 1, 1), box(1, 1, 1, 1))[0])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_boxes_of_centres_have_their_size_and_middle(ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    centre, size = rng.normal(0, 9, (5, ndim)), rng.uniform(1, 4, (5, ndim))
    made = from_centres(centre, size)
    assert made.shape == (5, 2 * ndim)
    np.testing.assert_allclose(made[:, ndim:] - made[:, :ndim], size)
    np.testing.assert_allclose((made[:, ndim:] + made[:, :ndim]) / 2, centre)


def test_clipping_stops_at_the_outer_edges_of_pixels() -> None:
    got = clip(np.array([[-3.0, 2.0, 30.0, 8.0], [1.0, -9.0, 2.0, 99.0]]), (10, 20))
    np.testing.assert_allclose(got, [[-0.5, 2.0, 9.5, 8.0], [1.0, -0.5, 2.0, 19.5]])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_overlapping_pairs_are_those_of_the_full_table(ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    a, b = (from_centres(rng.uniform(0, 12 * 3 / ndim, (n, ndim)), rng.uniform(0.5, 9, (n, ndim))) for n in (40, 30))
    table = iou_pairs(a[:, None], b[None])
    i, j, iou = overlapping_pairs(a, b)
    expected = {(x, y) for x, y in zip(*np.nonzero(table > 0), strict=True)}
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected and len(i) == len(expected) > 20
    np.testing.assert_allclose(iou, table[i, j])


def test_overlapping_pairs_of_nothing_are_none() -> None:
    none, some = np.empty((0, 4)), np.array([[0.0, 0, 1, 1]])
    for a, b in ((none, some), (some, none), (some, some + 50)):
        assert [len(part) for part in overlapping_pairs(a, b)] == [0, 0, 0]


def test_suppression_by_hand() -> None:
    centre = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0], [9.0, 9.0]])
    score = np.array([0.9, 0.8, 0.7, 0.1])
    # The middle one falls to the first, so it cannot take the third along.
    np.testing.assert_array_equal(nms(centre, np.full(4, 4.0), score), [True, False, True, True])
    # The radius of the better or of the worse one is enough.
    np.testing.assert_array_equal(nms(centre, np.array([1.0, 1, 7, 1]), score), [True, True, False, True])


def test_suppression_of_none_and_of_one() -> None:
    assert nms(np.empty((0, 2)), np.empty(0), np.empty(0)).shape == (0,)
    assert nms(np.zeros((1, 2)), np.ones(1), np.zeros(1)).tolist() == [True]


def test_a_chain_of_many_is_settled_exactly() -> None:
    # Each falls to its left neighbour unless that one has fallen: every second stays.
    n = 401
    kept = nms(np.arange(n, dtype=float)[:, None], np.full(n, 1.5), -np.arange(n, dtype=float))
    np.testing.assert_array_equal(kept, np.arange(n) % 2 == 0)


def test_suppression_by_overlap() -> None:
    centre = np.array([[10.0], [12.0], [15.0], [10.5], [40.0]])
    size = np.array([[6.0], [6.0], [6.0], [60.0], [2.0]])
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    # 10 and 12 overlap by half; 15 overlaps 12, which falls, but hardly 10; a far wider one is another.
    np.testing.assert_array_equal(nms_overlap(centre, size, score, iou=0.3), [True, False, True, True, True])
    assert nms_overlap(np.empty((0, 1)), np.empty((0, 1)), np.empty(0), iou=0.3).shape == (0,)


@pytest.mark.parametrize("ndim", [1, 2])
def test_what_overlap_keeps_does_not_depend_on_the_order(ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    centre, size, score = rng.uniform(0, 30, (90, ndim)), rng.uniform(1, 9, (90, ndim)), rng.integers(0, 20, 90)
    kept = nms_overlap(centre, size, score, iou=0.2)
    order = rng.permutation(90)
    np.testing.assert_array_equal(nms_overlap(centre[order], size[order], score[order], iou=0.2), kept[order])
    boxes = from_centres(centre, size)
    table = iou_pairs(boxes[:, None], boxes[None])
    np.fill_diagonal(table, 0)
    # No two that are kept overlap, and whoever falls overlaps one that is kept and not worse.
    assert not (table[kept][:, kept] > 0.2).any()
    for row in np.flatnonzero(~kept):
        assert ((table[row] > 0.2) & kept & (score >= score[row])).any()
