"""Tiles of cubes: within memory, and of little work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cube_tiles import TILE_VOXELS, least_work
from survey_io.tiles import plan_tiles

HALO, STRIDE = (104, 24, 24), (8, 4, 4)
SIDES = st.tuples(st.integers(1, 4000), st.integers(1, 1500), st.integers(1, 1500))


def voxels(shape, tile):
    tiles = plan_tiles(shape, tile=tile, halo=HALO, stride=STRIDE, clip=True)
    return [int(np.prod([s.stop - s.start for s in one.full])) for one in tiles]


@given(SIDES)
def test_every_tile_fits_into_memory(shape):
    # A side is rounded up to the stride.
    assert max(voxels(shape, least_work(shape, HALO, STRIDE))) <= TILE_VOXELS * 1.05


@pytest.mark.parametrize("shape", [(1024, 512, 512), (2048, 768, 768), (100, 2000, 2000), (6000, 640, 900)])
def test_less_work_than_tiles_of_fixed_sides(shape):
    made = voxels(shape, least_work(shape, HALO, STRIDE))
    fixed = [voxels(shape, (channels, side, side)) for channels, side in ((512, 192), (384, 128))]
    assert sum(made) <= min(sum(one) for one in fixed if max(one) <= TILE_VOXELS)


def test_a_small_cube_is_one_tile():
    assert len(voxels((512, 256, 256), least_work((512, 256, 256), HALO, STRIDE))) == 1
