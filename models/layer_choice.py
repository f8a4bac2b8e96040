"""Which layers of a network may compute in 8 bits: measured by what each alone does to the network's decisions.

The first product and the last stay as they are: the compressed S/N has more than 8 bits of meaning, and the last one
makes the values of the catalogue. Of those between, the ones that change the decisions most are left out until the
changes together are small; for the residual networks here that is the layers before the second block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

Inputs = Sequence[tuple[np.ndarray, ...]]
# Of the decisions' logits, root mean square of all layers together: 0.14 rows per row and logit lie at the threshold of
# light, so that a scatter of 0.035 moves 0.4% of them across.
BUDGET = 0.035
# P between these may still become a row, or not.
UNDECIDED = (-3.0, 4.0)


def choose_layers(
    count: int,
    answers: Callable[[Sequence[int]], list[np.ndarray]],
    changes: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    budget: float = BUDGET,
) -> tuple[list[int], dict[int, float]]:
    """The products to quantise: all but the first, the last, and those that change the decisions most.

    Parameters
    ----------
    count : int
        Products in a row.
    answers : callable
        Raw answers to some batches with these products quantised; with none, exact ones.
    changes : callable
        Of `decision_changes`.
    budget : float
        Root mean square of the changes that all layers together may make, added as independent ones.

    Returns
    -------
    layers : list of int
        In order.
    alone : dict of float
        Root mean square change by each inner product alone.

    Raises
    ------
    OptionError
        When there is no layer that may be quantised.
    """
    exact = answers([])
    alone = {}
    for place in range(1, count - 1):
        moved = np.concatenate([changes(was, one) for was, one in zip(exact, answers([place]), strict=True)])
        alone[place] = float(np.sqrt(np.mean(moved**2))) if len(moved) else 0.0
    kept: list[int] = []
    total = 0.0
    for place in sorted(alone, key=lambda one: alone[one]):
        total += alone[place] ** 2
        if total > budget**2:
            break
        kept.append(place)
    if not kept:
        raise OptionError(
            f"no layer of this network keeps its decisions in 8 bits: one alone changes them by "
            f"{min(alone.values(), default=0):.2g} of a logit and more, expected less than {budget:g}; "
            "take 16 bits or f32"
        )
    return sorted(kept), alone


def decision_changes(module: nn.Module) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """How much the logits that decide about rows differ between exact and other raw answers, as a flat array.

    Of a detector that is P, where something may be; of a classifier its classes.
    """
    head = getattr(module, "head", None)
    if head is None:
        classes = len(module.answers.classes)

        def of_classes(exact: np.ndarray, came: np.ndarray) -> np.ndarray:
            change = (came - exact)[:, :classes]
            # Of exclusive classes what all share changes nothing.
            return (change - change.mean(axis=1, keepdims=True) * module.answers.exclusive).ravel()

        return of_classes
    presence = head.slot("presence").start

    def of_presence(exact: np.ndarray, came: np.ndarray) -> np.ndarray:
        layout = (len(exact), head.boxes, head.box_channels, *exact.shape[2:])
        one, other = (raw.reshape(layout)[:, :, presence] for raw in (exact, came))
        return (other - one)[(one > UNDECIDED[0]) & (one < UNDECIDED[1])]

    return of_presence


def halves(samples: Inputs) -> tuple[Inputs, Inputs]:
    """Batches that set ranges, and batches on which changes are seen."""
    half = max(1, len(samples) // 2)
    return samples[:half], samples[half:] or samples
