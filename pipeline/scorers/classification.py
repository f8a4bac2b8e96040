"""How good the scores of a classifier are: average precision, ROC, confusion, and whether probabilities come true.

Every function takes plain arrays. Where ``keep`` is taken, entries that it marks False neither help nor harm: an
object too faint to be demanded, or a class that an object's coverage cannot decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from survey_io.errors import OptionError

__all__ = [
    "Reliability", "average_precision", "balanced_accuracy", "brier_score", "class_average_precision",
    "confusion_matrix", "expected_calibration_error", "log_loss", "reliability_bins", "roc_auc", "scores_by_strength",
    "top_class",
]  # fmt: skip


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, one entry per bin of stated probability; empty bins are left out.

    Attributes
    ----------
    low, high : ndarray, shape (K,)
        Edges of the bins, 0..1.
    stated : ndarray, shape (K,)
        Mean of the probabilities stated.
    measured : ndarray, shape (K,)
        Share that came true.
    error : ndarray, shape (K,)
        Standard error of ``measured`` (binomial, with half a success and half a failure added).
    count : ndarray of int, shape (K,)
    """

    low: np.ndarray
    high: np.ndarray
    stated: np.ndarray
    measured: np.ndarray
    error: np.ndarray
    count: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean of |stated - measured| over the bins, weighted by their counts (Naeini et al. 2015); NaN if empty."""
        total = self.count.sum()
        return float((self.count * np.abs(self.stated - self.measured)).sum() / total) if total else float("nan")


def average_precision(truth: np.ndarray, score: np.ndarray, *, keep: np.ndarray | None = None) -> float:
    """Area under the curve of precision over recall, as the sum of precision times the steps of recall.

    Equal scores are one step: their order, which is chance, does not count.

    Parameters
    ----------
    truth : ndarray of bool, shape (N,)
    score : ndarray, shape (N,)
        Higher for what is more likely true; any monotonic scale.
    keep : ndarray of bool, shape (N,), optional

    Returns
    -------
    float
        0..1; NaN where nothing is true.
    """
    truth, score = _kept(truth, score, keep)
    if not truth.any():
        return float("nan")
    found, drawn = _cumulative(truth, score)
    precision = found / drawn
    steps = np.diff(found, prepend=0) / truth.sum()
    return float((precision * steps).sum())


def class_average_precision(truth: np.ndarray, score: np.ndarray, *, keep: np.ndarray | None = None) -> np.ndarray:
    """`average_precision` of every class; its ``np.nanmean`` is the macro average.

    Parameters
    ----------
    truth : ndarray of bool, shape (N, classes)
    score : ndarray, shape (N, classes)
    keep : ndarray of bool, shape (N, classes), optional

    Returns
    -------
    ndarray, shape (classes,)
        NaN for a class that is nowhere true.
    """
    truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
    if truth.ndim != 2 or truth.shape != score.shape:
        raise OptionError(f"expected truth and scores of one shape (N, classes), came {truth.shape} and {score.shape}")
    keep = np.ones_like(truth) if keep is None else np.asarray(keep, bool)
    return np.array([average_precision(truth[:, k], score[:, k], keep=keep[:, k]) for k in range(truth.shape[1])])


def scores_by_strength(
    truth: np.ndarray, probability: np.ndarray, strength: np.ndarray, limits: Sequence[tuple[float, float]], *,
    keep: np.ndarray | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """How well independent classes are recognised where they show faintly, and where they show strongly.

    Parameters
    ----------
    truth : ndarray of bool, shape (N, classes)
    probability : ndarray, shape (N, classes)
    strength : ndarray, shape (N, classes)
        Of what is true, such as S/N.
    limits : sequence of (float, float)
        Of each part: the true entries with a strength from the first up to the second are set against all false ones.
    keep : ndarray of bool, shape (N, classes), optional

    Returns
    -------
    list of dict
        "low", "high" (None for infinity), "count" of true entries, "macro_average_precision", and "found", the share of
        them with a probability of at least one half.
    """
    truth, probability = np.asarray(truth, bool), np.asarray(probability)
    keep = np.ones_like(truth) if keep is None else np.asarray(keep, bool)
    parts = []
    for low, high in limits:
        inside = truth & keep & (strength >= low) & (strength < high)
        each = class_average_precision(inside, probability, keep=inside | (keep & ~truth))
        known = each[np.isfinite(each)]
        parts.append(
            {
                "low": float(low), "high": float(high) if np.isfinite(high) else None, "count": int(inside.sum()),
                "macro_average_precision": round(float(known.mean()), 4) if known.size else float("nan"),
                "found": round(float((probability[inside] >= 0.5).mean()), 4) if inside.any() else float("nan"),
            }
        )  # fmt: skip
    return parts


def roc_auc(truth: np.ndarray, score: np.ndarray, *, keep: np.ndarray | None = None) -> float:
    """Chance that something true scores higher than something false; ties count half. NaN without both kinds."""
    truth, score = _kept(truth, score, keep)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    _, group, size = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    return float((mean_rank[group][truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def confusion_matrix(truth: np.ndarray, guess: np.ndarray, classes: int) -> np.ndarray:
    """Number of objects of each true class (rows) taken for each class (columns), shape (classes, classes)."""
    truth, guess = np.asarray(truth, np.int64).ravel(), np.asarray(guess, np.int64).ravel()
    if truth.shape != guess.shape:
        raise OptionError(f"{truth.size} true classes but {guess.size} guessed ones")
    for name, values in (("true", truth), ("guessed", guess)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise OptionError(f"{name} classes from {values.min()} to {values.max()}: expected 0 to {classes - 1}")
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Mean over the classes of the share that was recognised; classes without objects do not count."""
    confusion = np.asarray(confusion, np.float64)
    objects = confusion.sum(1)
    return float((np.diag(confusion)[objects > 0] / objects[objects > 0]).mean()) if objects.any() else float("nan")


def top_class(truth: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the likeliest of several exclusive classes was the true one, and how likely it was said to be.

    The two go into `reliability_bins` and `expected_calibration_error`.

    Parameters
    ----------
    truth : ndarray of int, shape (N,)
    probability : ndarray, shape (N, classes)

    Returns
    -------
    right : ndarray of bool, shape (N,)
    stated : ndarray, shape (N,)
    """
    probability = np.asarray(probability, np.float64)
    best = probability.argmax(1)
    return best == np.asarray(truth), probability.max(1)


def reliability_bins(
    truth: np.ndarray, probability: np.ndarray, *, bins: int = 15, keep: np.ndarray | None = None, equal: bool = False
) -> Reliability:
    """Probabilities stated against shares that came true.

    Parameters
    ----------
    truth : ndarray of bool
        Any shape: of several independent classes all decisions are taken together.
    probability : ndarray
        Of the same shape, 0..1.
    bins : int
    keep : ndarray of bool, optional
    equal : bool
        Bins of equal count in place of equal width: where nearly all probabilities lie near 0 or 1.
    """
    truth, probability = _kept(truth, probability, keep)
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        low, high = probability.min(), probability.max()
        raise OptionError(f"probabilities from {low:g} to {high:g}: expected 0 to 1; scores must be calibrated first")
    edges = np.linspace(0, 1, bins + 1)
    if equal and probability.size:
        edges = np.unique(np.concatenate([[0.0], np.quantile(probability, edges[1:-1]), [1.0]]))
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(place, minlength=len(edges) - 1)
    filled = count > 0
    count_filled = count[filled]
    stated = np.bincount(place, probability, minlength=len(count))[filled] / count_filled
    right = np.bincount(place, truth, minlength=len(count))[filled]
    share = (right + 0.5) / (count_filled + 1)
    error = np.sqrt(share * (1 - share) / count_filled)
    return Reliability(edges[:-1][filled], edges[1:][filled], stated, right / count_filled, error, count_filled)


def expected_calibration_error(
    truth: np.ndarray, probability: np.ndarray, *, bins: int = 15, keep: np.ndarray | None = None
) -> float:
    """Mean difference between stated and measured, over bins of equal width weighted by their counts."""
    return reliability_bins(truth, probability, bins=bins, keep=keep).expected_calibration_error


def log_loss(truth: np.ndarray, probability: np.ndarray, *, keep: np.ndarray | None = None) -> float:
    """Mean -ln of the probability given to what came true, of independent decisions; capped at 27.6 (1e-12)."""
    truth, probability = _kept(truth, probability, keep)
    given = np.where(truth, probability, 1 - probability)
    return float(-np.log(np.maximum(given, 1e-12)).mean()) if given.size else float("nan")


def brier_score(truth: np.ndarray, probability: np.ndarray, *, keep: np.ndarray | None = None) -> float:
    """Mean squared difference between probability and truth, of independent decisions."""
    truth, probability = _kept(truth, probability, keep)
    return float(((probability - truth) ** 2).mean()) if truth.size else float("nan")


def _kept(truth: np.ndarray, score: np.ndarray, keep: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
    if truth.shape != score.shape:
        raise OptionError(f"expected truth and scores of one shape, came {truth.shape} and {score.shape}")
    if keep is None:
        truth, score = truth.ravel(), score.ravel()
    else:
        keep = np.asarray(keep, bool)
        if keep.shape != truth.shape:
            raise OptionError(f"expected a keep mask of shape {truth.shape}, came {keep.shape}")
        truth, score = truth[keep], score[keep]
    if np.isnan(score).any():
        raise OptionError(f"{int(np.isnan(score).sum())} of {score.size} scores are NaN: leave them out by keep")
    return truth, score


def _cumulative(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True entries and all entries at or above each distinct score, from the highest down."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), score.size - 1)
    return np.cumsum(truth[order])[last].astype(float), last + 1.0
