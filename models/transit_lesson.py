"""Simulated light curves to train on, without end, and those that calibrate and score."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from models.classifier_lesson import Arrays, ClassifierLesson, Examples
from models.transit_views import mirror
from survey_io.simulate.transits import CLASSES, LightCurve, TransitModel, draw_light_curve

if TYPE_CHECKING:
    from torch import nn

    from models.training import TrainOptions

# Light curves held out, and their seeds, far from those of training.
HELD_OUT = {"validation": (1200, 770_101), "test": (2000, 880_101)}
# To search a curve for periods takes twenty times as long as to learn from it: a curve is drawn this often on average,
# out of a store of the last so many, each time as one of its four mirror images.
REPEATS, STORE = 6, 3000
# What the random numbers of a seed, stream and count are for.
_BATCHES, _CURVES = 1, 2


class TransitExamples(Examples):
    """Light curves of `TransitModel`, newly drawn.

    Parameters
    ----------
    net : nn.Module
        With ``prepare`` and ``answers``.
    model : TransitModel, optional
    """

    description = (
        "simulated light curves (survey_io.simulate.transits), transits of total S/N 5 to 500, eclipsing binaries and "
        f"neither, each seen {REPEATS} times"
    )

    def __init__(self, net: nn.Module, *, model: TransitModel | None = None):
        self.prepare, self.answers, self.model = net.prepare, net.answers, model or TransitModel()

    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """See `Examples`."""
        return self.encode([draw_light_curve(self.model, rng) for _ in range(count)])

    def numbered(self, count: int, *, seed: int, first: int, every: int) -> Iterator[Arrays]:
        """See `Examples`: each batch is out of the last curves of its stream, of which `REPEATS`-fold fewer are new.

        A curve is drawn by its number in the stream when it is first needed, so that a run which goes on has the same
        curves; its first batches take as long as without a store.
        """
        stream, begin = first % every, first // every
        # Half the digits are enough for what is compressed, and half the memory: 100 MB.
        store: dict[int, tuple[np.ndarray, dict[str, np.ndarray]]] = {}
        for step in itertools.count(begin):
            end = count + step * -(-count // REPEATS)
            rng = np.random.default_rng([seed, stream, step, _BATCHES])
            rows = rng.integers(max(end - STORE, 0), end, count).tolist()
            new = [row for row in dict.fromkeys(rows) if row not in store]
            if new:
                randoms = [np.random.default_rng([seed, stream, row, _CURVES]) for row in new]
                (inputs,), targets = self.encode([draw_light_curve(self.model, one) for one in randoms])
                for place, row in enumerate(new):
                    values = {name: one[place] for name, one in targets.items()}
                    store[row] = inputs[place].astype(np.float16), values
            for row in [row for row in store if row < end - STORE]:
                del store[row]
            chosen = [store[row] for row in rows]
            given = np.stack([one for one, _ in chosen]).astype(np.float32)
            backwards, swapped = rng.random(2) < 0.5
            given = mirror(given, backwards=backwards, swapped=swapped)
            yield (given,), {name: np.stack([one[name] for _, one in chosen]) for name in chosen[0][1]}

    def encode(self, curves: list[LightCurve]) -> Arrays:
        """Inputs and targets of light curves; "snr" is that of the transits or eclipses, for scores."""
        flux = np.stack([one.flux for one in curves])
        label = np.array([one.label for one in curves])
        quantities = {
            "period": np.array([one.period for one in curves]),
            "depth": np.array([one.depth for one in curves]),
            "duration": 24 * np.array([one.duration for one in curves]),
        }
        values = np.stack([value.encode(quantities[value.name]) for value in self.answers.values], axis=1)
        targets = {
            "classes": np.eye(len(CLASSES))[label],
            "values": np.nan_to_num(values),
            "value_weight": np.isfinite(values) * 1.0,
            "snr": np.array([one.snr for one in curves]),
        }
        inputs = self.prepare(flux, np.isfinite(flux).astype(float))
        return (inputs,), {name: values.astype(np.float32) for name, values in targets.items()}

    def fixed(self, part: str) -> Arrays:
        """See `Examples`; drawn anew at every call, the same each time."""
        return self.encode_all(held_out_curves(part, HELD_OUT[part][0]))

    def encode_all(self, curves: list[LightCurve]) -> Arrays:
        """As `encode`, in pieces."""
        parts = [self.encode(curves[first : first + 16]) for first in range(0, len(curves), 16)]
        inputs = np.concatenate([one[0][0] for one in parts])
        return (inputs,), {name: np.concatenate([one[1][name] for one in parts]) for name in parts[0][1]}


def held_out_curves(part: str, count: int, *, model: TransitModel | None = None) -> list[LightCurve]:
    """The first light curves of a part."""
    seed = HELD_OUT[part][1]
    return [draw_light_curve(model or TransitModel(), np.random.default_rng([seed, number])) for number in range(count)]


def transit_lesson(net: nn.Module, options: TrainOptions) -> ClassifierLesson:
    """The lesson of `models.classifiers.transits`."""
    return ClassifierLesson(TransitExamples(net), net.answers, batch=options.batch)
