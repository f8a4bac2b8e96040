"""Overlapping tiles whose cores cover every pixel exactly once, in any number of dimensions.

Tile origins lie on a grid anchored at pixel 0 in steps of the network's stride, and every tile is read with
its full halo, also beyond the image's border (blank there), or up to the border in every tiling. So a cell sees the
same input in every tiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

Window = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One piece of work.

    Attributes
    ----------
    index : int
        Position in the plan.
    core : tuple of slice
        Pixels that this tile owns, within the image.
    full : tuple of slice
        What is read: the core and its halo, sides multiples of the stride; may reach outside the image.
    """

    index: int
    core: Window
    full: Window

    @property
    def origin(self) -> tuple[int, ...]:
        """First pixel of ``full`` on each axis; may be negative."""
        return tuple(s.start for s in self.full)


def round_up(value: int, step: int) -> int:
    """Smallest multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step


def plan_tiles(
    shape: Sequence[int],
    *,
    tile: int | Sequence[int],
    halo: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    clip: bool = False,
    even: bool = False,
) -> list[Tile]:
    """Cover an array with tiles.

    Parameters
    ----------
    shape : sequence of int
        Pixels per axis, each at least 1.
    tile, halo, stride : int or sequence of int
        Side of a core, reach of the overlap and cell size in px, per axis or one for all; tile and halo are
        rounded up to multiples of the stride.
    clip : bool
        End halos at the array's border, rounded up to the stride, for networks that pad there: as independent of the
        tiling, and cheaper where the array is not much larger than a halo. Otherwise tiles reach outside.
    even : bool
        Share an axis out in equal parts of at most ``tile``; unless clipped, all tiles get one ``full`` shape.

    Returns
    -------
    list of Tile
        In raster order.

    Raises
    ------
    ValueError
        For a side, tile or stride below 1 or a negative halo.
    """
    ndim = len(shape)
    tile, halo, stride = ((v,) * ndim if isinstance(v, int) else tuple(v) for v in (tile, halo, stride))
    if min(shape) < 1 or min(tile) < 1 or min(stride) < 1 or min(halo) < 0:
        raise ValueError(
            f"tiles need sides, tile and stride of at least 1 px and a halo of at least 0, got shape "
            f"{tuple(shape)}, tile {tile}, stride {stride}, halo {halo}"
        )
    axes = []
    for size, t, h, s in zip(shape, tile, halo, stride, strict=True):
        step, reach = round_up(t, s), round_up(h, s)
        if even:
            step = round_up(-(-size // -(-size // step)), s)
        axes.append(
            [
                (
                    slice(a, min(a + step, size)),
                    slice(max(a - reach, 0), min(a + step + reach, round_up(size, s)))
                    if clip
                    else slice(a - reach, a + round_up(step if even else min(step, size - a), s) + reach),
                )
                for a in range(0, size, step)
            ]
        )
    return [
        Tile(index, tuple(core for core, _ in spans), tuple(full for _, full in spans))
        for index, spans in enumerate(product(*axes))
    ]
