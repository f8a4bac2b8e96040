"""How a cube is cut into tiles: little work, and no more memory than there is."""

from __future__ import annotations

from itertools import product

import numpy as np

from pipeline.cube_finders import CubeFinderSpec
from survey_io.tiles import Tile, plan_tiles

# Voxels of all tiles that are in memory at once, with their halos: with the network, its second look and what changing
# shapes leave unused they take up to 45 bytes each. And the sides (channels, pixels) of a tile of about half as many.
TILE_VOXELS, TILE_SIDES = 70_000_000, (512, 192)
# No tile is cut shorter than this.
LEAST_SIDES = (64, 64, 64)
# A quarter of the negated cube is searched, in blocks of these sides, but no less and no more than so many voxels.
NEGATIVE_BLOCK = (1024, 128, 128)
NEGATIVE_SHARE, NEGATIVE_VOXELS = 0.25, (8_000_000, 32_000_000)


def plan_cube_tiles(
    shape: tuple[int, int, int], finder: CubeFinderSpec, sides: tuple[int, int] | None, voxels: int
) -> list[Tile]:
    """Tiles with the sides that were asked for, or those of the least work of at most so many voxels."""
    tile = (sides[0], sides[1], sides[1]) if sides else least_work(shape, finder.halo, finder.stride, voxels)
    return plan_tiles(shape, tile=tile, halo=finder.halo, stride=finder.stride, clip=True)


def least_work(
    shape: tuple[int, ...], halo: tuple[int, ...], stride: tuple[int, ...], voxels: int = TILE_VOXELS
) -> tuple[int, ...]:
    """Sides of tiles, with their halos at most so many voxels, whose halos are the fewest voxels in all."""
    axes = []
    for n, h, s, least in zip(shape, halo, stride, LEAST_SIDES, strict=True):
        # By the number of tiles along the axis: their side, the longest with its halo, and all together. Halos end
        # at the cube's border.
        counts = range(1, max(1, n // max(least, h)) + 1)
        found = {-(-n // count // s) * s: None for count in counts}
        axes.append([
            (side, min(n, side + min(-(-n // side) - 1, 2) * h), n + 2 * h * (-(-n // side) - 1)) for side in found
        ])  # fmt: skip
    plans = [
        (np.prod([one[2] for one in plan], dtype=float), *(one[0] for one in plan))
        for plan in product(*axes)
        if np.prod([one[1] for one in plan], dtype=float) <= voxels
    ]
    smallest = tuple(one[-1][0] for one in axes)
    return min(plans)[1:] if plans else smallest


def negative_cube_tiles(shape: tuple[int, int, int], finder: CubeFinderSpec) -> tuple[list[Tile], float]:
    """Blocks of the cube for the search of the negated cube, evenly spread, and their share of its volume.

    They depend on the cube's shape only, so that probabilities do not depend on the tiling.
    """
    tiles = plan_tiles(shape, tile=NEGATIVE_BLOCK, halo=finder.halo, stride=finder.stride, clip=True)
    wanted = float(np.clip(NEGATIVE_SHARE * np.prod(shape, dtype=float), *NEGATIVE_VOXELS))
    each = float(np.prod([min(n, side) for n, side in zip(shape, NEGATIVE_BLOCK, strict=True)]))
    count = max(1, min(len(tiles), round(wanted / each)))
    chosen = [tiles[int((i + 0.5) * len(tiles) / count)] for i in range(count)]
    volume = sum(int(np.prod([s.stop - s.start for s in tile.core])) for tile in chosen)
    return chosen, volume / float(np.prod(shape))
