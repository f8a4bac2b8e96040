"""Detections: what a detector says of one window or of a whole image, one row each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Detections:
    """Detections in pixels; one index slices all columns.

    Attributes
    ----------
    centre : ndarray of float64, shape (n, ndim)
        Centres in px, array axis order (y, x).
    size : ndarray of float32, shape (n, ndim)
        Apparent extent per axis (FWHM), px.
    logit : ndarray of float32, shape (n,)
        ln(P / (1 - P)) of the detector's own probability.
    anchor : ndarray of int64, shape (n, ndim)
        Pixel that decides which tile owns the detection.
    params : dict of ndarray, shape (n,)
        Whatever else the detector gives, by name: ``flux_snr``, ``major``, ``minor``, ``theta``, their
        ``*_scale``.
    """

    centre: np.ndarray
    size: np.ndarray
    logit: np.ndarray
    anchor: np.ndarray
    params: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logit)

    def __getitem__(self, index) -> Detections:
        return Detections(
            self.centre[index],
            self.size[index],
            self.logit[index],
            self.anchor[index],
            {name: value[index] for name, value in self.params.items()},
        )

    @property
    def score(self) -> np.ndarray:
        """Detector's probability, 0..1."""
        return 1 / (1 + np.exp(-np.clip(self.logit.astype(np.float64), -60, 60)))

    @staticmethod
    def empty(ndim: int, names: Iterable[str] = ()) -> Detections:
        """No detections, with the columns that others of the kind have."""
        return Detections(
            np.empty((0, ndim)),
            np.empty((0, ndim), np.float32),
            np.empty(0, np.float32),
            np.empty((0, ndim), np.int64),
            {name: np.empty(0, np.float32) for name in names},
        )

    @staticmethod
    def concatenate(parts: list[Detections]) -> Detections:
        """All rows of several detections with the same columns, in order; empty parts may lack columns."""
        # Of only empty parts the one with the most columns: a blank tile does not know them.
        parts = [part for part in parts if len(part)] or [max(parts, key=lambda part: len(part.params))]
        return Detections(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("centre", "size", "logit", "anchor")),
            {name: np.concatenate([p.params[name] for p in parts]) for name in parts[0].params},
        )

    def shifted(self, origin: tuple[int, ...]) -> Detections:
        """The same detections with window pixels turned into image pixels."""
        return Detections(
            self.centre + np.array(origin), self.size, self.logit, self.anchor + np.array(origin), self.params
        )

    def sorted(self) -> Detections:
        """Rows by position (first axis first): an order that no tiling, worker or engine can change.

        Positions are rounded to 1e-3 px for the comparison, so that rounding errors do not swap rows.
        """
        keys = np.rint(self.centre * 1e3).astype(np.int64)
        return self[np.lexsort(tuple(keys.T[::-1]))]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Flat dictionary for storage."""
        base = {"centre": self.centre, "size": self.size, "logit": self.logit, "anchor": self.anchor}
        return {**base, **{f"param_{name}": value for name, value in self.params.items()}}

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray]) -> Detections:
        """Inverse of `to_arrays`."""
        params = {name[6:]: value for name, value in arrays.items() if name.startswith("param_")}
        return Detections(arrays["centre"], arrays["size"], arrays["logit"], arrays["anchor"], params)
