"""The decision tree of Galaxy Zoo 2 as data: 11 questions, 37 answers (Willett et al. 2013, MNRAS 435, 2835).

Fractions come in two kinds. Conditional ones (Hart et al. 2016) sum to 1 within a question: of the people who were
asked, the share that gave each answer. Cumulative ones (the Kaggle challenge) are these times the share that led to the
question, and sum to that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "ANSWERS", "KAGGLE_COLUMNS", "QUESTIONS", "Question", "conditional_fractions", "cumulative_fractions",
    "question_shares",
]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes
    ----------
    number : int
        1 to 11, as in "t01" and in Kaggle's "Class1.1".
    name : str
    answers : tuple of str
    ids : tuple of int
        The answers' numbers in the catalogue: 1 for "a01".
    first : int
        Place of its first answer among the 37.
    parent : int or None
        Place among the 37 of the answer that leads here. None where all who see the galaxy count: question 1, and 6
        ("anything odd?"), whose cumulative fractions the challenge does not multiply by those who were asked.
    """

    number: int
    name: str
    answers: tuple[str, ...]
    ids: tuple[int, ...]
    first: int
    parent: int | None

    @property
    def place(self) -> slice:
        """Where its answers are among the 37."""
        return slice(self.first, self.first + len(self.answers))

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of its answers in the catalogue: "t01_smooth_or_features_a01_smooth"."""
        return tuple(
            f"t{self.number:02d}_{self.name}_a{one:02d}_{answer}"
            for one, answer in zip(self.ids, self.answers, strict=True)
        )


# Number, name, answers with their numbers, and (question, answer) that leads to it.
_TABLE: tuple[tuple[int, str, dict[str, int], tuple[int, str] | None], ...] = (
    (1, "smooth_or_features", {"smooth": 1, "features_or_disk": 2, "star_or_artifact": 3}, None),
    (2, "edgeon", {"yes": 4, "no": 5}, (1, "features_or_disk")),
    (3, "bar", {"bar": 6, "no_bar": 7}, (2, "no")),
    (4, "spiral", {"spiral": 8, "no_spiral": 9}, (2, "no")),
    (5, "bulge_prominence", {"no_bulge": 10, "just_noticeable": 11, "obvious": 12, "dominant": 13}, (2, "no")),
    (6, "odd", {"yes": 14, "no": 15}, None),
    (7, "rounded", {"completely_round": 16, "in_between": 17, "cigar_shaped": 18}, (1, "smooth")),
    (
        8, "odd_feature",
        {"ring": 19, "lens_or_arc": 20, "disturbed": 21, "irregular": 22, "other": 23, "merger": 24, "dust_lane": 38},
        (6, "yes"),
    ),
    (9, "bulge_shape", {"rounded": 25, "boxy": 26, "no_bulge": 27}, (2, "yes")),
    (10, "arms_winding", {"tight": 28, "medium": 29, "loose": 30}, (4, "spiral")),
    (11, "arms_number", {"1": 31, "2": 32, "3": 33, "4": 34, "more_than_4": 36, "cant_tell": 37}, (4, "spiral")),
)  # fmt: skip


def _questions() -> tuple[Question, ...]:
    made: list[Question] = []
    first = 0
    for number, name, answers, led in _TABLE:
        parent = None
        if led is not None:
            before = made[led[0] - 1]
            parent = before.first + before.answers.index(led[1])
        made.append(Question(number, name, tuple(answers), tuple(answers.values()), first, parent))
        first += len(answers)
    return tuple(made)


QUESTIONS = _questions()
# The 37 answers by the catalogue's names, and Kaggle's names of the same in the same order.
ANSWERS = tuple(stem for question in QUESTIONS for stem in question.stems)
KAGGLE_COLUMNS = tuple(f"Class{one.number}.{i + 1}" for one in QUESTIONS for i in range(len(one.answers)))


def cumulative_fractions(conditional: np.ndarray) -> np.ndarray:
    """Kaggle's columns out of conditional fractions, both (..., 37); what is NaN counts as not reached, 0."""
    conditional = np.nan_to_num(np.asarray(conditional, np.float64))
    found = np.zeros_like(conditional)
    for one in QUESTIONS:
        share = 1.0 if one.parent is None else found[..., one.parent, None]
        found[..., one.place] = share * conditional[..., one.place]
    return found


def conditional_fractions(cumulative: np.ndarray) -> np.ndarray:
    """Fractions that sum to 1 within each question, out of cumulative ones or of counts; NaN where nobody was asked."""
    cumulative = np.asarray(cumulative, np.float64)
    found = np.empty_like(cumulative)
    with np.errstate(invalid="ignore", divide="ignore"):
        for one in QUESTIONS:
            part = cumulative[..., one.place]
            found[..., one.place] = part / part.sum(axis=-1, keepdims=True)
    return found


def question_shares(cumulative: np.ndarray) -> np.ndarray:
    """Share of people, or with counts their number, that answered each question, shape (..., 11)."""
    cumulative = np.asarray(cumulative, np.float64)
    return np.stack([cumulative[..., one.place].sum(axis=-1) for one in QUESTIONS], axis=-1)
