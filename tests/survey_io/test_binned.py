"""Block means with the reading interface of a file."""

from __future__ import annotations

import numpy as np
import pytest

from survey_io.background import ArrayPixels
from survey_io.binned import BinnedPixels


def test_means_of_whole_blocks() -> None:
    image = np.random.default_rng(1).normal(size=(12, 20)).astype(np.float32)
    binned = BinnedPixels(ArrayPixels(image), 4)
    assert binned.shape == (3, 5)
    got = binned.read((slice(0, 3), slice(0, 5)))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, image.reshape(3, 4, 5, 4).mean(axis=(1, 3)), rtol=1e-5, atol=1e-6)


def test_blanks_do_not_count_and_a_blank_block_stays_blank() -> None:
    image = np.ones((4, 6), np.float32)
    image[0, 0], image[1, 1] = np.nan, 7.0
    image[2:, 2:4] = np.nan
    got = BinnedPixels(ArrayPixels(image), 2).read((slice(0, 2), slice(0, 3)))
    np.testing.assert_allclose(got, [[3.0, 1.0, 1.0], [1.0, np.nan, 1.0]])


def test_the_last_block_may_be_ragged_and_what_lies_outside_is_blank() -> None:
    image = np.arange(15, dtype=np.float32).reshape(3, 5)
    binned = BinnedPixels(ArrayPixels(image), 2)
    assert binned.shape == (2, 3)
    got = binned.read((slice(-1, 3), slice(-1, 4)))
    assert np.isnan(got[0]).all() and np.isnan(got[:, 0]).all() and np.isnan(got[-1]).all()
    np.testing.assert_allclose(got[1:3, 1:4], [[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]])


def test_faint_means_on_a_high_level_are_kept() -> None:
    image = np.full((64, 64), 1e4, np.float32)
    image[::2] += 1.0
    assert BinnedPixels(ArrayPixels(image), 64).read((slice(0, 1), slice(0, 1))) == pytest.approx(10000.5)


def test_positions_in_blocks_are_centres_of_blocks() -> None:
    binned = BinnedPixels(ArrayPixels(np.zeros((12, 12), np.float32)), 4)
    # Block 0 holds pixels 0 to 3, whose middle is 1.5.
    np.testing.assert_allclose(binned.to_fine(np.array([0.0, 1.0, -0.5])), [1.5, 5.5, -0.5])
