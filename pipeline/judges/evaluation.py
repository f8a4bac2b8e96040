"""The score of a trained network on held-out data, and whether one network is better than another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a held-out part.

    Attributes
    ----------
    metric : str
        Name of what is compared, such as "mAP50" or "accuracy".
    units : tuple of str
        Names of what is drawn with replacement for errors: images, skies, stars. Two networks judged on the same data
        have the same units in the same order.
    score : callable
        ``score(rows)`` is the metric over the units of these indices, which may repeat.
    larger_is_better : bool
    numbers : dict
        Further results for the card and the report.
    pictures : tuple of Path
        Drawn on the way.
    """

    metric: str
    units: tuple[str, ...]
    score: Callable[[np.ndarray], float]
    larger_is_better: bool = True
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()

    @property
    def value(self) -> float:
        """The metric over all units."""
        return self.score(np.arange(len(self.units)))

    def error(self, *, draws: int = 200, seed: int = 0) -> float:
        """Standard error of `value` by bootstrap over the units."""
        rng = np.random.default_rng(seed)
        size = len(self.units)
        return float(np.std([self.score(rng.integers(0, size, size)) for _ in range(draws)], ddof=1))


@dataclass(frozen=True)
class Comparison:
    """A new network against one in use, on the same units.

    Attributes
    ----------
    new, old : float
        The metric of each.
    gain : float
        How much better the new one is, positive where it is, whatever the metric's direction.
    error : float
        Standard error of the gain, by bootstrap over the units with the same draws for both.
    """

    metric: str
    new: float
    old: float
    gain: float
    error: float

    def better(self, *, sigma: float = 1.0) -> bool:
        """Whether the gain is beyond ``sigma`` standard errors (and beyond nothing at all)."""
        return bool(self.gain > max(sigma * self.error, 0.0))


def compare(new: Evaluation, old: Evaluation, *, draws: int = 200, seed: int = 0) -> Comparison:
    """Compare two networks that were judged on the same held-out units.

    Raises
    ------
    ValueError
        When metric, direction or units differ: scores of different data say nothing about networks.
    """
    if (new.metric, new.larger_is_better, new.units) != (old.metric, old.larger_is_better, old.units):
        raise ValueError(f"cannot compare {new.metric} of {len(new.units)} units with {old.metric} of {len(old.units)}")
    sign = 1.0 if new.larger_is_better else -1.0
    rng = np.random.default_rng(seed)
    size = len(new.units)
    gains = []
    for _ in range(draws):
        rows = rng.integers(0, size, size)
        gains.append(sign * (new.score(rows) - old.score(rows)))
    value, other = new.value, old.value
    return Comparison(new.metric, value, other, sign * (value - other), float(np.std(gains, ddof=1)))
