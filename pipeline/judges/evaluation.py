"""The score of a trained network on held-out data, and whether one network is better than another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 200


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

    def error(self, *, draws: int = DRAWS, seed: int = 0) -> float:
        """Standard error of `value` by bootstrap over the units."""
        return self.judged(draws=draws, seed=seed).error

    def judged(self, *, draws: int = DRAWS, seed: int = 0) -> Judged:
        """What is kept of it, enough to compare with another network that was judged on the same units."""
        rng = np.random.default_rng(seed)
        size = len(self.units)
        drawn = tuple(float(self.score(rng.integers(0, size, size))) for _ in range(draws))
        digest = hashlib.sha256("\n".join(self.units).encode()).hexdigest()
        return Judged(
            self.metric, float(self.value), float(np.nanstd(drawn, ddof=1)), self.larger_is_better, size, digest, seed,
            drawn, plain(self.numbers), tuple(str(path) for path in self.pictures),
        )  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """An evaluation as it is kept: plain values.

    Attributes
    ----------
    metric, value, error, larger_is_better
        As `Evaluation` has them.
    units : int
        Number of units.
    digest : str
        SHA-256 over their names.
    seed : int
        Of the bootstrap.
    draws : tuple of float
        The metric of each draw; two networks with the same units and seed have the same rows in each.
    numbers : dict
    pictures : tuple of str
    """

    metric: str
    value: float
    error: float
    larger_is_better: bool
    units: int
    digest: str
    seed: int
    draws: tuple[float, ...]
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON; NaN is None."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Judged:
        """Read what `to_dict` wrote; further entries are left out."""
        known = {entry.name: values[entry.name] for entry in fields(cls)}
        nan = [float("nan") if one is None else one for one in known["draws"]]
        value = float("nan") if known["value"] is None else known["value"]
        error = float("nan") if known["error"] is None else known["error"]
        return cls(
            **{**known, "value": value, "error": error, "draws": tuple(nan), "pictures": tuple(known["pictures"])}
        )


def plain(value: Any) -> Any:
    """Numpy's values as Python's, tuples as lists, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


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


def compare(
    new: Evaluation | Judged, old: Evaluation | Judged, *, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Compare two networks that were judged on the same held-out units.

    Parameters
    ----------
    new, old : Evaluation or Judged
    draws, seed : int
        Of the bootstrap, for what was not drawn yet.

    Raises
    ------
    ValueError
        When metric, direction, units or draws differ: scores of different data say nothing about networks.
    """
    new, old = (one if isinstance(one, Judged) else one.judged(draws=draws, seed=seed) for one in (new, old))
    same = ("metric", "larger_is_better", "units", "digest", "seed")
    if any(getattr(new, name) != getattr(old, name) for name in same) or len(new.draws) != len(old.draws):
        raise ValueError(f"cannot compare {new.metric} of {new.units} units with {old.metric} of {old.units}")
    sign = 1.0 if new.larger_is_better else -1.0
    gains = sign * (np.array(new.draws) - np.array(old.draws))
    gain = sign * (new.value - old.value)
    return Comparison(new.metric, new.value, old.value, gain, float(np.nanstd(gains, ddof=1)))
