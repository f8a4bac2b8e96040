"""The shapes that a TensorRT plan serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.signature import network_inputs
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

# (Least, most likely, largest) of a batch and of free sides, by the number of free sides: an engine takes memory for
# the largest, 2 GB per layer of sdc1 in 16 bits.
_BATCHES = {0: (1, 64, 256), 1: (1, 16, 64), 2: (1, 4, 8), 3: (1, 2, 4)}
_SIDES = {1: (64, 4096, 65536), 2: (64, 512, 2048), 3: (32, 64, 128)}


@dataclass(frozen=True)
class Profile:
    """The shapes that a plan serves, best near the middle one.

    Attributes
    ----------
    shapes : tuple
        One (input's name, least, most likely and largest shape) per input, the batch first.
    """

    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        for name, *three in self.shapes:
            ranks = {len(shape) for shape in three}
            rising = len(ranks) == 1 and all(0 < a <= b <= c for a, b, c in zip(*three, strict=True))
            if not rising:
                raise OptionError(
                    f"profile of input {name!r}: expected sides of at least 1 that grow from the least over the most "
                    f"likely to the largest shape, got {' '.join('x'.join(map(str, shape)) for shape in three)}"
                )

    def holds(self, arrays: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether inputs of these shapes, by name, lie within."""
        return all(
            len(arrays[name]) == len(low)
            and all(a <= side <= b for a, side, b in zip(low, arrays[name], high, strict=True))
            for name, low, _, high in self.shapes
        )

    def grown(self, arrays: Mapping[str, tuple[int, ...]]) -> Profile:
        """The profile whose ends reach these shapes too."""
        return Profile(
            tuple(
                (name, tuple(map(min, low, arrays[name])), best, tuple(map(max, high, arrays[name])))
                for name, low, best, high in self.shapes
            )
        )


def make_profile(
    module: nn.Module,
    *,
    batch: tuple[int, int, int] | None = None,
    sides: tuple[int, int, int] | None = None,
) -> Profile:
    """The shapes to build a network for.

    Parameters
    ----------
    module : nn.Module
    batch : tuple of int or None
        Least, most likely and largest; None: the more the smaller the items are, (1, 64, 256) for classifiers.
    sides : tuple of int or None
        The same of every side of free length, in pixels or channels, rounded up to the network's strides; None: what
        suits images (64, 512, 2048), cubes (32, 64, 128) or spectra (64, 4096, 65536).

    Raises
    ------
    OptionError
        When they do not grow.
    """
    shapes = []
    inputs = network_inputs(module)
    batch = batch or _BATCHES[sum(isinstance(side, str) for side in inputs[0].shape)]
    for one in inputs:
        free = [axis for axis, side in enumerate(one.shape) if isinstance(side, str)]
        lengths = sides or _SIDES.get(len(free), batch)
        strides = dict(zip(free, np.broadcast_to(module.head.stride, len(free)).tolist(), strict=True)) if free else {}
        three = [
            (count, *(-(-length // strides[axis]) * strides[axis] if axis in strides else one.shape[axis]
                      for axis in range(len(one.shape))))
            for count, length in zip(batch, lengths, strict=True)
        ]  # fmt: skip
        shapes.append((one.name, *three))
    return Profile(tuple(shapes))
