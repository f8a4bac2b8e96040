"""What the answers of a network to Galaxy Zoo's questions mean, and how likely they make the votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from survey_io.datasets.galaxy_tree import ANSWERS, QUESTIONS, cumulative_fractions

# Ln of how many independent votes a question's votes are worth at most and at least.
CONCENTRATION = (0.0, 6.0)


@dataclass(frozen=True)
class VoteAnswers:
    """Layout of the outputs: a logit for each of the 37 answers, then, with dispersion, a number for each question.

    Attributes
    ----------
    dispersion : bool
        Whether the votes of a question are Dirichlet-multinomial, with a concentration of its own for each galaxy, or
        multinomial.
    """

    dispersion: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The answers by the catalogue's names."""
        return ANSWERS

    @property
    def outputs(self) -> int:
        """Length of an answer."""
        return len(ANSWERS) + (len(QUESTIONS) if self.dispersion else 0)

    def conditional(self, raw: np.ndarray) -> np.ndarray:
        """Fractions that sum to 1 within each question, shape (..., 37): Hart's columns."""
        raw = np.asarray(raw, np.float64)
        found = np.empty((*raw.shape[:-1], len(ANSWERS)))
        for one in QUESTIONS:
            part = raw[..., one.place]
            odds = np.exp(part - part.max(axis=-1, keepdims=True))
            found[..., one.place] = odds / odds.sum(axis=-1, keepdims=True)
        return found

    def cumulative(self, raw: np.ndarray) -> np.ndarray:
        """The same times the share that leads to each question, shape (..., 37): Kaggle's columns."""
        return cumulative_fractions(self.conditional(raw))

    def concentration(self, raw: np.ndarray) -> np.ndarray | None:
        """Concentrations (..., 11): a fraction p has the variance p (1 - p) / (1 + concentration). None without."""
        if not self.dispersion:
            return None
        return np.exp(np.clip(np.asarray(raw, np.float64)[..., len(ANSWERS) :], *CONCENTRATION))


def cumulative_tensor(raw: Tensor) -> Tensor:
    """As `VoteAnswers.cumulative`, in torch with gradients, shape (B, 37)."""
    parts: list[Tensor] = []
    for one in QUESTIONS:
        share = torch.softmax(raw[:, one.place], dim=1)
        if one.parent is not None:
            # Parents come first in the tree, so that theirs is made already.
            share = share * torch.cat(parts, dim=1)[:, one.parent, None]
        parts.append(share)
    return torch.cat(parts, dim=1)


def votes_loss(
    raw: Tensor, votes: Tensor, answers: VoteAnswers, *, squared: float = 0.0
) -> tuple[Tensor, dict[str, float]]:
    """Negative log likelihood of the votes, question by question, per vote of the first question.

    A question that was not reached has no votes and does not count. Cumulative fractions stand for counts of one person
    in all: a question then weighs as much as the share that was asked.

    Parameters
    ----------
    raw : Tensor, shape (B, answers.outputs)
    votes : Tensor, shape (B, 37)
        Counts, or cumulative fractions.
    answers : VoteAnswers
        With dispersion the votes must be counts.
    squared : float
        Weight of the squared errors of the 37 cumulative fractions beside the likelihood.

    Returns
    -------
    loss : Tensor
    parts : dict of float
        "likelihood", "rmse" over the 37 cumulative fractions.
    """
    raw = raw.float()
    people = votes[:, QUESTIONS[0].place].sum(dim=1).clamp(min=1e-6)
    total = torch.zeros(len(raw), device=raw.device)
    for i, one in enumerate(QUESTIONS):
        seen = votes[:, one.place]
        if answers.dispersion:
            strength = raw[:, len(ANSWERS) + i].clamp(*CONCENTRATION).exp()[:, None]
            total = total - _dirichlet_multinomial(seen, strength * torch.softmax(raw[:, one.place], dim=1))
        else:
            total = total - (seen * functional.log_softmax(raw[:, one.place], dim=1)).sum(dim=1)
    likelihood = (total / people).mean()
    wanted = true_fractions(votes)
    error = (cumulative_tensor(raw) - wanted).square()
    loss = likelihood + squared * error.sum(dim=1).mean()
    return loss, {"likelihood": float(likelihood.detach()), "rmse": float(error.detach().mean().sqrt())}


def true_fractions(votes: Tensor) -> Tensor:
    """Cumulative fractions (B, 37) of counts or of cumulative fractions themselves."""
    parts: list[Tensor] = []
    for one in QUESTIONS:
        seen = votes[:, one.place]
        share = seen / seen.sum(dim=1, keepdim=True).clamp(min=1e-12)
        if one.parent is not None:
            share = share * torch.cat(parts, dim=1)[:, one.parent, None]
        parts.append(share)
    return torch.cat(parts, dim=1)


def _dirichlet_multinomial(counts: Tensor, alpha: Tensor) -> Tensor:
    """Log likelihood of counts (B, K) under concentrations (B, K), without the term that depends on counts only."""
    total, whole = counts.sum(dim=1), alpha.sum(dim=1)
    return (
        torch.lgamma(whole) - torch.lgamma(total + whole)
        + (torch.lgamma(counts + alpha) - torch.lgamma(alpha)).sum(dim=1)
    )  # fmt: skip
