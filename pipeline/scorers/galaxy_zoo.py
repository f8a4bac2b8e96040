"""How well the votes of Galaxy Zoo are foretold: the Kaggle challenge's error, and the answers question by question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survey_io.datasets.galaxy_tree import ANSWERS, QUESTIONS, conditional_fractions, question_shares
from survey_io.errors import OptionError

__all__ = ["QuestionScore", "galaxy_errors", "galaxy_zoo_rmse", "mean_fractions", "question_scores"]


@dataclass(frozen=True)
class QuestionScore:
    """How one question was answered, over the galaxies that enough people were asked it about.

    Attributes
    ----------
    name : str
    count : int
        Galaxies that count.
    accuracy : float
        Share of them whose most frequent answer was foretold; NaN without any.
    commonest : float
        Share of them with the answer that most of them have: what always saying that one scores.
    rmse : float
        Error of the conditional fractions.
    sure_count, sure_accuracy : int, float
        The same for galaxies that more than 80% of people agree on.
    """

    name: str
    count: int
    accuracy: float
    commonest: float
    rmse: float
    sure_count: int
    sure_accuracy: float


def galaxy_errors(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean squared error over the 37 cumulative fractions of each galaxy, shape (N,).

    Parameters
    ----------
    truth, predicted : ndarray, shape (N, 37)
        Cumulative fractions, in the order of `survey_io.datasets.galaxy_tree.KAGGLE_COLUMNS`.

    Raises
    ------
    OptionError
        For other shapes, or what is no number.
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if truth.shape != predicted.shape or truth.ndim != 2 or truth.shape[1] != len(ANSWERS):
        raise OptionError(f"expected fractions of shape (N, 37) twice, came {truth.shape} and {predicted.shape}")
    if not (np.isfinite(truth).all() and np.isfinite(predicted).all()):
        raise OptionError("fractions of votes hold NaN: questions that nobody reached have the cumulative fraction 0")
    return ((truth - predicted) ** 2).mean(axis=1)


def galaxy_zoo_rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Root of the mean squared error over all galaxies and all 37 cumulative fractions: the challenge's metric."""
    errors = galaxy_errors(truth, predicted)
    return float(np.sqrt(errors.mean())) if len(errors) else float("nan")


def mean_fractions(training: np.ndarray, count: int) -> np.ndarray:
    """The same answer for ``count`` galaxies, the mean of those trained on: what a network has to beat."""
    return np.broadcast_to(np.asarray(training, np.float64).mean(axis=0), (count, len(ANSWERS)))


def question_scores(
    truth: np.ndarray, predicted: np.ndarray, *, reached: float = 0.5, sure: float = 0.8
) -> list[QuestionScore]:
    """Score each question by itself.

    Parameters
    ----------
    truth, predicted : ndarray, shape (N, 37)
        Cumulative fractions.
    reached : float
        A galaxy counts for a question that at least this share of people was asked about it.
    sure : float
        Share of one answer above which people agree.
    """
    galaxy_errors(truth, predicted)
    share = question_shares(truth)
    true, said = conditional_fractions(truth), conditional_fractions(predicted)
    found = []
    for i, one in enumerate(QUESTIONS):
        use = share[:, i] >= reached
        wanted, came = true[use, one.place], np.nan_to_num(said[use, one.place])
        right = wanted.argmax(axis=1) == came.argmax(axis=1) if use.any() else np.zeros(0, bool)
        agreed = wanted.max(axis=1, initial=0.0) > sure
        most = np.bincount(wanted.argmax(axis=1), minlength=len(one.answers)).max() if use.any() else 0
        found.append(
            QuestionScore(
                one.name, int(use.sum()), _share(right), float(most / use.sum()) if use.any() else float("nan"),
                float(np.sqrt(((wanted - came) ** 2).mean())) if use.any() else float("nan"),
                int(agreed.sum()), _share(right[agreed]),
            )
        )  # fmt: skip
    return found


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if right.size else float("nan")
