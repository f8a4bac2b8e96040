"""The spatial split: every place is tested once, and nothing that is trained on comes near it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_io.datasets.sky_split import GUARD, TEST, TRAIN, VALIDATION, SkySplit, split_sky
from survey_io.errors import OptionError


def parts_of(split: SkySplit, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return split.part_at(rows, columns)


@settings(max_examples=40, deadline=None)
@given(
    ny=st.integers(300, 700), nx=st.integers(40, 700), folds=st.integers(1, 4), guard=st.integers(4, 30),
    validation=st.floats(0.05, 0.4), origin=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)  # fmt: skip
def test_nothing_leaks(ny, nx, folds, guard, validation, origin) -> None:
    area = (slice(origin[0], origin[0] + ny), slice(origin[1], origin[1] + nx))
    tested = np.zeros((origin[0] + ny + 5, origin[1] + nx + 5), int)
    for fold in range(folds):
        split = split_sky(area, fold=fold, folds=folds, guard=guard, validation=validation)
        parts = parts_of(split, tested.shape)
        tested += parts == TEST
        along = [np.flatnonzero((parts == part).any(axis=1 - split.axis)) for part in (TRAIN, TEST, VALIDATION)]
        assert all(len(one) for one in along)
        for other in along[1:]:
            nearest = np.abs(along[0][:, None] - other[None, :]).min()
            # Whole pixels between the two; a strip's edge may cut one.
            assert nearest >= guard
    inside = tested[area]
    assert tested.sum() == inside.sum()
    assert (inside == 1).all() if folds > 2 else set(np.unique(inside)) <= {0, 1}


def test_windows_are_the_part_and_blocks_are_the_windows() -> None:
    split = split_sky((slice(7, 507), slice(3, 203)), fold=1, folds=3, guard=20)
    parts = parts_of(split, (520, 220))
    for part in (TRAIN, VALIDATION, TEST):
        seen = np.zeros(parts.shape, int)
        for window in split.windows(part):
            seen[window] += 1
        np.testing.assert_array_equal(seen == 1, parts == part)
        blocks = np.zeros(parts.shape, int)
        for block in split.blocks(part, 60):
            assert all(20 <= span.stop - span.start <= 95 for span in block)
            blocks[block] += 1
        np.testing.assert_array_equal(blocks, seen)
    assert (parts[:7] == GUARD).all() and (parts[:, 203:] == GUARD).all()
    # The longer axis is cut, whichever it is.
    assert split.axis == 0
    assert split_sky((slice(0, 100), slice(0, 400)), fold=0, folds=3, guard=20).axis == 1


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(OptionError, match="too few for 3 folds"):
        split_sky((slice(0, 120), slice(0, 90)), fold=0, folds=3, guard=70, name="tiny")
    with pytest.raises(OptionError, match="expected 0 to 2"):
        split_sky((slice(0, 900), slice(0, 900)), fold=3, folds=3, guard=20)
