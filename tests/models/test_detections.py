"""Rows of detections stay together, whatever is done to them."""

from __future__ import annotations

import numpy as np
import pytest

from models.detections import Detections


def make(n: int, ndim: int = 2, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 100, (n, ndim))
    tag = np.arange(n, dtype=np.float32)
    return Detections(
        centre, np.tile(tag[:, None], ndim), tag, centre.astype(np.int64), {"tag": tag, "flux_snr": 2 * tag}
    )


def same_rows(found: Detections) -> bool:
    tag = found.params["tag"]
    return (
        np.array_equal(found.logit, tag)
        and np.array_equal(found.size[:, 0], tag)
        and np.array_equal(found.params["flux_snr"], 2 * tag)
        and np.array_equal(found.anchor, found.centre.astype(np.int64))
    )


@pytest.mark.parametrize("index", [slice(2, 5), np.array([4, 0, 4]), np.arange(8) % 2 == 0])
def test_one_index_slices_all_columns(index) -> None:
    part = make(8)[index]
    assert same_rows(part) and part.params["tag"].tolist() == np.arange(8)[index].tolist()


def test_scores_are_probabilities_even_of_extreme_logits() -> None:
    found = make(4)
    found.logit = np.array([0.0, np.log(3.0), 1e4, -1e4], np.float32)
    np.testing.assert_allclose(found.score, [0.5, 0.75, 1.0, 0.0], atol=1e-7)
    assert len(found) == 4


def test_concatenation_keeps_order_and_forgets_empty_parts() -> None:
    parts = [make(3), Detections.empty(2), make(2, seed=1)]
    whole = Detections.concatenate(parts)
    assert same_rows(whole) and whole.params["tag"].tolist() == [0, 1, 2, 0, 1]
    np.testing.assert_array_equal(whole.centre[:3], parts[0].centre)


def test_concatenation_of_only_empty_parts_keeps_their_columns() -> None:
    # A blank tile does not know which columns the detector gives; its neighbours do.
    whole = Detections.concatenate([Detections.empty(2), Detections.empty(2, ["major", "theta"])])
    assert len(whole) == 0 and list(whole.params) == ["major", "theta"]
    assert whole.centre.shape == (0, 2)


def test_shifting_moves_positions_and_anchors_alone() -> None:
    found = make(5)
    moved = found.shifted((10, -3))
    np.testing.assert_allclose(moved.centre - found.centre, np.tile([10, -3], (5, 1)))
    np.testing.assert_array_equal(moved.anchor - found.anchor, np.tile([10, -3], (5, 1)))
    np.testing.assert_array_equal(moved.size, found.size)
    assert moved.params["tag"] is found.params["tag"]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_sorting_is_by_position_first_axis_first(ndim: int) -> None:
    found = make(40, ndim)
    found.centre = np.round(found.centre / 20) * 20
    found.anchor = found.centre.astype(np.int64)
    ordered = found.sorted()
    rows = [tuple(row) for row in ordered.centre]
    assert rows == sorted(rows) and same_rows(ordered)


def test_sorting_is_blind_to_rounding_errors() -> None:
    found = make(2)
    found.centre = np.array([[5.0 + 1e-9, 1.0], [5.0, 9.0]])
    assert found.sorted().centre[:, 1].tolist() == [1.0, 9.0]


def test_storage_gives_back_what_it_took() -> None:
    found = make(6, 3)
    back = Detections.from_arrays({**found.to_arrays(), "blank": np.zeros(3)})
    assert same_rows(back) and list(back.params) == list(found.params)
    np.testing.assert_array_equal(back.centre, found.centre)
