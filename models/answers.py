"""What a classifier's outputs mean: probabilities of classes, and values with uncertainties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Natural logs of predicted uncertainties are clamped here before exp: a wild output must not become inf.
LOG_SCALE_RANGE = (-5.0, 3.0)


@dataclass(frozen=True)
class Value:
    """One regressed quantity.

    Attributes
    ----------
    name, unit : str
        As the catalogue spells them; "" for numbers without unit.
    offset, scale : float
        The network's 0 and 1 stand for ``offset`` and ``offset + scale``.
    logarithmic : bool
        Whether ``offset`` and ``scale`` are decimal logs of the quantity.
    """

    name: str
    unit: str
    offset: float
    scale: float
    logarithmic: bool = False

    def encode(self, quantity: np.ndarray) -> np.ndarray:
        """The quantity in the network's terms; NaN stays NaN."""
        quantity = np.asarray(quantity, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return ((np.log10(quantity) if self.logarithmic else quantity) - self.offset) / self.scale

    def decode(self, raw: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quantity and its standard error out of the network's terms."""
        value, error = self.offset + self.scale * raw, self.scale * sigma
        if not self.logarithmic:
            return value, error
        return 10**value, 10**value * np.log(10) * error


@dataclass(frozen=True)
class Answers:
    """Layout of a classifier's outputs: a logit for each class, then for each value its mean, then its ln sigma.

    Attributes
    ----------
    classes : tuple of str
    exclusive : bool
        True: one of the classes holds (softmax); False: any number of them (sigmoid each).
    values : tuple of Value
    """

    classes: tuple[str, ...]
    exclusive: bool = True
    values: tuple[Value, ...] = ()

    @property
    def outputs(self) -> int:
        """Length of an answer."""
        return len(self.classes) + 2 * len(self.values)

    def parts(self, raw: Any) -> tuple[Any, Any, Any]:
        """Logits (..., classes), means and ln sigmas (..., values) of raw answers: arrays or tensors."""
        first, count = len(self.classes), len(self.values)
        return raw[..., :first], raw[..., first : first + count], raw[..., first + count :]


@dataclass(frozen=True)
class AnswerCalibration:
    """Turns raw answers into probabilities that hold and errors that cover; fitted on held-out data.

    Attributes
    ----------
    slope : tuple of float
        Logits are multiplied by these: one for all exclusive classes (1 / temperature), else one a class. Empty: 1.
    intercept : tuple of float
        Added after that, one a class. Empty: 0.
    error_scale : tuple of float
        Factor of each value's standard error. Empty: 1.
    """

    slope: tuple[float, ...] = ()
    intercept: tuple[float, ...] = ()
    error_scale: tuple[float, ...] = ()

    def for_card(self) -> dict[str, list[float]]:
        """Rounded, as a card keeps it."""
        return {name: [round(float(one), 4) for one in values] for name, values in vars(self).items()}

    @classmethod
    def from_card(cls, values: dict[str, list[float]]) -> AnswerCalibration:
        """As `for_card` wrote it; what is missing stays at its default."""
        return cls(**{name: tuple(one) for name, one in values.items()})

    def logits(self, raw: np.ndarray, answers: Answers) -> np.ndarray:
        """Calibrated logits, shape (N, classes), float64."""
        found = answers.parts(np.asarray(raw, np.float64))[0]
        if self.slope:
            found = found * np.asarray(self.slope)
        return found + np.asarray(self.intercept) if self.intercept else found

    def probability(self, raw: np.ndarray, answers: Answers) -> np.ndarray:
        """Calibrated probabilities, shape (N, classes); those of exclusive classes sum to 1."""
        logits = self.logits(raw, answers)
        if not answers.exclusive:
            return 1 / (1 + np.exp(-np.clip(logits, -40, 40)))
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)

    def values(self, raw: np.ndarray, answers: Answers) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By name, the regressed quantities and their standard errors, shape (N,) each."""
        _, mean, log_sigma = answers.parts(np.asarray(raw, np.float64))
        sigma = np.exp(np.clip(log_sigma, *LOG_SCALE_RANGE))
        if self.error_scale:
            sigma = sigma * np.asarray(self.error_scale)
        return {
            value.name: value.decode(mean[..., i], sigma[..., i]) for i, value in enumerate(answers.values)
        }  # fmt: skip
