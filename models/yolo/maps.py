"""What a network says of one window: where something may be, everywhere; and all about a box, where it is asked for.

Few cells hold a source. An engine that can (one with a method `look`) leaves the last layers, which make the
parameters, to the cells that candidates come from: for the light detectors a tenth of the network's work and most of
its answer's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.yolo.head import HeadSpec
from models.yolo.reflect import partners


class RawMaps(Protocol):
    """The raw answer for one window.

    Attributes
    ----------
    presence : ndarray of float32, shape (boxes, *grid)
        Logits of P.
    """

    presence: np.ndarray

    def vectors(self, box: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """All that is said of some boxes.

        Parameters
        ----------
        box : ndarray of int, shape (n,)
        cells : ndarray of int, shape (n, ndim)

        Returns
        -------
        ndarray of float32, shape (n, box_channels)
        """
        ...


class WholeMaps:
    """A raw map that is there as a whole, (channels, *grid)."""

    def __init__(self, raw: np.ndarray, spec: HeadSpec):
        self._values = raw.reshape(spec.boxes, spec.box_channels, *raw.shape[1:])
        self.presence = self._values[:, spec.slot("presence").start]

    def vectors(self, box: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """See `RawMaps`."""
        return self._values[(box, slice(None), *cells.T)]


@dataclass
class LateMaps:
    """Presence, and the features of every cell from which a head makes the rest.

    Attributes
    ----------
    presence : ndarray of float32, shape (boxes, *grid)
    features : ndarray of float32, shape (*grid, k)
        In whichever memory order.
    head : callable
        ``head(features (n, k)) -> (n, channels)``.
    spec : HeadSpec
    """

    presence: np.ndarray
    features: np.ndarray
    head: Callable[[np.ndarray], np.ndarray]
    spec: HeadSpec

    def vectors(self, box: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """See `RawMaps`."""
        # Boxes of one cell, and neighbours of several sources, share its features.
        grid = self.features.shape[:-1]
        once, which = np.unique(np.ravel_multi_index(tuple(cells.T), grid), return_inverse=True)
        values = self.head(self.features[np.unravel_index(once, grid)])
        return values.reshape(-1, self.spec.boxes, self.spec.box_channels)[which, box]


class ReflectedMaps:
    """Maps of reflected data as maps of the data themselves; see `models.yolo.reflect.reflected`."""

    def __init__(self, maps: RawMaps, spec: HeadSpec):
        self._maps, self._partners, self._offset = maps, np.array(partners(spec)), spec.slot("offset")
        back = (slice(None, None, -1),) * spec.ndim
        self.presence = maps.presence[self._partners][(slice(None), *back)]
        self._last = np.array(self.presence.shape[1:]) - 1

    def vectors(self, box: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """See `RawMaps`."""
        values = self._maps.vectors(self._partners[box], self._last - cells)
        values[:, self._offset] *= -1
        return values


class MeanMaps:
    """The mean of two looks at the same data."""

    def __init__(self, first: RawMaps, second: RawMaps):
        self._looks = first, second
        self.presence = (second.presence + first.presence) * np.float32(0.5)

    def vectors(self, box: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """See `RawMaps`."""
        first, second = (maps.vectors(box, cells) for maps in self._looks)
        return (second + first) * np.float32(0.5)


def look(
    engine: Callable[..., np.ndarray], snr: np.ndarray, *others: np.ndarray, spec: HeadSpec, passes: int = 1
) -> list[RawMaps]:
    """What an engine says of each window of a batch; with two passes the mean of that and of what it says of them
    reflected, as `models.yolo.reflect.look_twice`.

    Parameters
    ----------
    engine : Engine
    snr : ndarray of float32, shape (B, 1, *sides)
    *others : ndarray
        Further inputs, which a reflection leaves as they are.
    spec : HeadSpec
    passes : {1, 2}
    """
    first = _once(engine, spec, snr, *others)
    if passes == 1:
        return first
    back = (slice(None), slice(None), *(slice(None, None, -1),) * spec.ndim)
    second = _once(engine, spec, snr[back], *others)
    return [MeanMaps(one, ReflectedMaps(other, spec)) for one, other in zip(first, second, strict=True)]


def _once(engine: Callable[..., np.ndarray], spec: HeadSpec, *arrays: np.ndarray) -> list[RawMaps]:
    if hasattr(engine, "look"):
        return engine.look(spec, *arrays)
    return [WholeMaps(raw, spec) for raw in engine(*arrays)]
