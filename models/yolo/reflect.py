"""A second look: the data reflected through their centre, whose answers are turned back and averaged with the first.

Sources have no preferred direction, networks are only nearly free of one: two looks err less than one. Through the
centre and not in a mirror, since that leaves every angle as it is: position angles of images, which count to 180
degrees, and the receding side of cubes, whose turn on the sky and turn of the channels cancel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.yolo.head import HeadSpec


def reflected(raw: np.ndarray, spec: HeadSpec) -> np.ndarray:
    """Raw maps of reflected data as raw maps of the data themselves.

    Parameters
    ----------
    raw : ndarray, shape (B, channels, *grid)
        Of data reversed along all axes, whose sides are multiples of the stride.
    spec : HeadSpec

    Returns
    -------
    ndarray, of the same shape
    """
    grid = raw.shape[2:]
    back = (slice(None, None, -1),) * len(grid)
    boxes = raw.reshape(len(raw), spec.boxes, spec.box_channels, *grid)
    turned = boxes[(slice(None), partners(spec), slice(None), *back)].copy()
    turned[:, :, spec.slot("offset")] *= -1
    return turned.reshape(raw.shape)


def look_twice(engine: Callable[..., np.ndarray], snr: np.ndarray, *others: np.ndarray, spec: HeadSpec) -> np.ndarray:
    """Mean of an engine's answers to data and to their reflection.

    Parameters
    ----------
    engine : callable
        ``engine(snr, *others) -> raw``.
    snr : ndarray, shape (B, 1, *sides)
    *others : ndarray
        Further inputs, which the reflection leaves as they are.
    spec : HeadSpec

    Returns
    -------
    ndarray, shape (B, channels, *grid)
    """
    back = (slice(None), slice(None), *(slice(None, None, -1),) * (snr.ndim - 2))
    second = reflected(engine(np.ascontiguousarray(snr[back]), *others), spec)
    second += engine(snr, *others)
    second *= 0.5
    return second


def partners(spec: HeadSpec) -> list[int]:
    """For each box the one that takes its place when a cell is reflected: opposite anchor, same prior, same rank."""

    def keys(anchors: tuple) -> list[tuple]:
        found = []
        for anchor, prior in zip(anchors, spec.priors, strict=True):
            key = (tuple(round(float(one), 4) for one in anchor), tuple(prior))
            found.append((key, sum(key == other for other, _ in found)))
        return found

    places = {key: box for box, key in enumerate(keys(spec.anchors))}
    opposite = keys(tuple(tuple(1 - one for one in anchor) for anchor in spec.anchors))
    if any(key not in places for key in opposite):
        raise ValueError(f"anchors {spec.anchors} are not symmetric about the cell's centre: no second look")
    return [places[key] for key in opposite]
