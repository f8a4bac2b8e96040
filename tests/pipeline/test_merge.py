"""Tiles own detections as they own pixels, and suppression does not know the tiles."""

from __future__ import annotations

import numpy as np
import pytest

from models.detections import Detections
from pipeline.merge import owned, suppress, suppress_overlaps
from survey_io.tiles import plan_tiles


def make(centre: np.ndarray, *, logit: np.ndarray | None = None, size: float = 3.0) -> Detections:
    n, ndim = centre.shape
    logit = np.zeros(n) if logit is None else logit
    anchor = np.floor(centre + 0.5).astype(np.int64)
    return Detections(
        centre, np.full((n, ndim), size, np.float32), logit.astype(np.float32), anchor, {"tag": np.arange(n)}
    )


@pytest.mark.parametrize(("shape", "tile"), [((97, 130), 32), ((20, 30, 41), 16), ((200,), 33)])
def test_each_detection_has_one_owner(shape: tuple[int, ...], tile: int) -> None:
    rng = np.random.default_rng(0)
    # Centres may lie outside of the pixel that owns them.
    found = make(rng.uniform(-0.5, np.array(shape) - 0.51, (400, len(shape))))
    found.centre = found.centre + rng.normal(0, 3, found.centre.shape)
    parts = [owned(found, t.core) for t in plan_tiles(shape, tile=tile, halo=8, stride=4)]
    tags = np.concatenate([part.params["tag"] for part in parts])
    assert sorted(tags) == list(range(400))
    assert sum(len(part) > 0 for part in parts) > 3


def test_the_first_pixel_of_a_core_is_its_own_and_the_one_past_its_end_is_not() -> None:
    found = make(np.array([[9.0, 5.0], [10.0, 5.0], [19.0, 5.0], [20.0, 5.0]]))
    assert owned(found, (slice(10, 20), slice(0, 9))).params["tag"].tolist() == [1, 2]


def test_two_within_half_a_beam_are_one() -> None:
    found = make(np.array([[0.0, 0.0], [0.0, 1.9], [0.0, 4.0]]), logit=np.array([1.0, 2.0, 0.0]))
    assert suppress(found, 4.0).params["tag"].tolist() == [1, 2]
    assert suppress(found, 3.6).params["tag"].tolist() == [0, 1, 2]


def test_an_extended_one_swallows_worse_ones_within_its_extent() -> None:
    found = make(np.array([[0.0, 0.0], [6.0, 0.0], [8.0, 0.0]]), logit=np.array([3.0, 1.0, 1.0]))
    found.size[0, 1] = 40.0
    # 0.35 of its half size is 7 px.
    assert suppress(found, 4.0).params["tag"].tolist() == [0, 2]


def test_rounding_of_scores_and_order_of_rows_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    found = make(rng.uniform(0, 60, (500, 2)), logit=rng.normal(0, 2, 500))
    reference = suppress(found, 4.0)
    order = rng.permutation(500)
    shuffled = found[order]
    # Engines differ in the last digits of a score.
    shuffled.logit = (np.round(shuffled.logit, 3) + rng.uniform(-2e-5, 2e-5, 500)).astype(np.float32)
    found.logit = np.round(found.logit, 3)
    assert suppress(shuffled, 4.0).params["tag"].tolist() == suppress(found, 4.0).params["tag"].tolist()
    assert 50 < len(reference) < 300
    rows = [tuple(c) for c in np.round(reference.centre, 3)]
    assert rows == sorted(rows)


def test_what_is_kept_lies_apart_and_what_fell_lies_near_a_better_one() -> None:
    rng = np.random.default_rng(2)
    found = make(rng.uniform(0, 50, (400, 2)), logit=rng.permutation(400) / 50)
    kept = suppress(found, 5.0)
    distance = np.linalg.norm(kept.centre[:, None] - kept.centre[None], axis=-1) + 99 * np.eye(len(kept))
    assert distance.min() >= 2.5
    for i in set(range(400)) - set(kept.params["tag"].tolist()):
        near = np.linalg.norm(kept.centre - found.centre[i], axis=1) < 2.5
        assert (kept.logit[near] > found.logit[i]).any()


def test_nothing_stays_nothing() -> None:
    assert len(suppress(Detections.empty(2, ["a"]), 4.0)) == 0
    assert len(owned(Detections.empty(2, ["a"]), (slice(0, 5), slice(0, 5)))) == 0


def test_lines_are_one_by_their_overlap_and_not_by_a_common_width() -> None:
    centre = np.array([[100.0], [104.0], [100.5], [180.0], [200.0], [230.0]])
    found = make(centre, logit=np.array([2.0, 1.0, 0.5, 3.0, 1.0, 2.0]))
    found.size[:, 0] = (10, 10, 90, 60, 60, 60)
    # Equal ones nearer than half their width are one, and so are wide ones; a far wider one under a narrow one is not.
    assert sorted(suppress_overlaps(found).params["tag"]) == [0, 2, 3, 5]
    assert len(suppress_overlaps(found[:0])) == 0


def test_what_is_left_of_lines_does_not_depend_on_their_order() -> None:
    rng = np.random.default_rng(4)
    found = make(rng.uniform(0, 900, (200, 1)), logit=rng.normal(0, 2, 200))
    found.size[:, 0] = np.exp(rng.uniform(0.7, 4, 200))
    order = rng.permutation(200)
    kept, again = suppress_overlaps(found), suppress_overlaps(found[order])
    np.testing.assert_array_equal(kept.params["tag"], again.params["tag"])
    assert 20 < len(kept) < 180 and (np.diff(kept.centre[:, 0]) >= 0).all()
