"""Windows of a cube are the same however few channels are mapped at once."""

from __future__ import annotations

import numpy as np
import pytest

import survey_io.cube_source
from survey_io.cube import open_cube
from survey_io.simulate.hi import HiModel, simulate_hi, write_hi


@pytest.mark.parametrize("mapped", [1, 200_000, 10**9])
def test_windows_do_not_depend_on_what_is_mapped(tmp_path, monkeypatch, mapped):
    model = HiModel(shape=(40, 24, 30))
    cube, galaxies = simulate_hi(model, seed=2)
    source = open_cube(write_hi(model, cube, galaxies, tmp_path)["cube"]).pixels
    monkeypatch.setattr(survey_io.cube_source, "MAPPED_BYTES", mapped)
    window = (slice(3, 38), slice(5, 20), slice(-2, 31))
    read = source.read(window)
    assert read.shape == (35, 15, 33) and read.flags.c_contiguous
    np.testing.assert_array_equal(read[:, :, 2:32], cube[3:38, 5:20])
    thinned = source.read((slice(2, 39), slice(0, 24), slice(0, 30)), every=3)
    np.testing.assert_array_equal(thinned, cube[2:39:3])
    assert np.isnan(read[:, :, :2]).all() and np.isnan(read[:, :, 32:]).all()
