"""Which layers of a network may compute in 8 bits: measured by what each alone does to the network's decisions.

The first product and the last stay as they are: the compressed S/N has more than 8 bits of meaning, and the last one
makes the values of the catalogue. Those between are taken as long as their changes together are small, the most work
for the least change first; for the residual networks here what is left out is the layers before the second block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from models.weights import Card

Inputs = Sequence[tuple[np.ndarray, ...]]
# Share of the rows that the changes may carry across the threshold, by the number of rows that lie there: light has
# 0.14 of its rows within a unit of log odds, so that a scatter of 0.036 does it.
MOVED = 0.004
BUDGETS = (0.02, 0.15)
# P between these may still become a row, or not.
UNDECIDED = (-3.0, 4.0)


def choose_layers(
    costs: Sequence[float],
    answers: Callable[[Sequence[int]], list[np.ndarray]],
    module: nn.Module,
    card: Card,
) -> tuple[list[int], dict[int, float]]:
    """The products to quantise: not the first, not the last, and none that changes the decisions much.

    Parameters
    ----------
    costs : sequence of float
        Of the products in a row, in any unit: their multiply-accumulates.
    answers : callable
        Raw answers to some batches with these products quantised; with none, exact ones.
    module : nn.Module
    card : Card
        Its threshold and calibration say where decisions are made.

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
    exact, changes = answers([]), decision_changes(module)
    budget = allowed_change(module, card, exact)
    alone = {}
    for place in range(1, len(costs) - 1):
        moved = np.concatenate([changes(was, one) for was, one in zip(exact, answers([place]), strict=True)])
        alone[place] = float(np.sqrt(np.mean(moved**2))) if len(moved) else 0.0
    kept: list[int] = []
    total = 0.0
    for place in sorted(alone, key=lambda one: alone[one] ** 2 / costs[one]):
        # As independent changes add.
        if total + alone[place] ** 2 <= budget**2:
            total += alone[place] ** 2
            kept.append(place)
    if not kept:
        raise OptionError(
            f"no layer of this network keeps its decisions in 8 bits: one alone changes them by "
            f"{min(alone.values(), default=0):.2g} of a logit and more, expected less than {budget:g}; "
            "take 16 bits or f32"
        )
    return sorted(kept), alone


def allowed_change(module: nn.Module, card: Card, exact: Sequence[np.ndarray]) -> float:
    """Root mean square change of the logits that carries `MOVED` of the rows across the threshold.

    Parameters
    ----------
    module : nn.Module
    card : Card
    exact : sequence of ndarray
        Raw answers to batches like those that the network will meet.
    """
    head, threshold = getattr(module, "head", None), card.threshold or 0.5
    if head is None:
        logits = np.concatenate([raw[:, : len(module.answers.classes)] for raw in exact])
        if module.answers.exclusive:
            first, second = np.sort(logits, axis=1)[:, -1:-3:-1].T
            # Either of the two moves the distance between them.
            return _within(np.concatenate([first - second, second - first]) / np.sqrt(2), 0.0)
        return _within(logits.ravel(), float(np.log(threshold / (1 - threshold))))
    from models.yolo.candidates import find_candidates

    fitted = {"slope": 1.0, "intercept": 0.0, **card.calibration.get("reliability", {})}
    at = (np.log(threshold / (1 - threshold)) - fitted["intercept"]) / fitted["slope"]
    found = [find_candidates(maps, head, beam_px=1.0, min_logit=at - 1).logit for raw in exact for maps in raw]
    # Two looks at the data err independently, or nearly.
    return float(np.clip(_within(np.concatenate(found), at) * card.calibration.get("passes", 1) ** 0.5, *BUDGETS))


def _within(logits: np.ndarray, threshold: float) -> float:
    """`allowed_change` of these logits: a normal scatter s carries 0.8 s times their density there."""
    rows, near = np.count_nonzero(logits >= threshold), np.count_nonzero(np.abs(logits - threshold) < 0.5)
    return float(np.clip(MOVED * rows / (0.8 * near) if near else BUDGETS[1], *BUDGETS))


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
