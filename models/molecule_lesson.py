"""Simulated spectra of molecules to train on, without end, and those that calibrate and score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.classifier_lesson import Arrays, Batch, ClassifierLesson, Examples, to_tensors
from survey_io.line_lists import molecular_lines
from survey_io.simulate.molecules import MoleculeModel, MoleculeSpectrum, draw_spectrum

if TYPE_CHECKING:
    from torch import nn

    from models.training import TrainOptions

# Spectra held out, and their seeds, far from those of training.
HELD_OUT = {"validation": (1200, 770_001), "test": (1200, 880_001)}
# Of the validation part, batches that are looked at during training.
WATCHED = 160


class MoleculeExamples(Examples):
    """Spectra of the sources of `MoleculeModel`, newly drawn.

    Parameters
    ----------
    net : nn.Module
        With ``prepare``.
    """

    description = "simulated LTE spectra of molecular gas (survey_io.simulate.molecules), 35,000 channels each"

    def __init__(self, net: nn.Module, *, model: MoleculeModel | None = None):
        self.prepare, self.model, self.lines = net.prepare, model or MoleculeModel(), molecular_lines()

    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """See `Examples`."""
        return self.encode([draw_spectrum(self.model, rng, lines=self.lines) for _ in range(count)])

    def encode(self, spectra: list[MoleculeSpectrum]) -> Arrays:
        """Inputs and targets of spectra; "class_snr" is the S/N of each species' brightest line, for scores."""
        flux = np.stack([one.flux for one in spectra])
        targets = {
            "classes": np.stack([one.demanded for one in spectra]),
            "class_weight": ~np.stack([one.ignored for one in spectra]),
            "class_snr": np.stack([one.snr for one in spectra]),
        }
        inputs = self.prepare(flux, np.isfinite(flux))
        return (inputs,), {name: values.astype(np.float32) for name, values in targets.items()}

    def fixed(self, part: str) -> Arrays:
        """See `Examples`; drawn anew at every call, the same each time."""
        count, seed = HELD_OUT[part]
        return self.first(part, count, seed)

    def first(self, part: str, count: int, seed: int | None = None) -> Arrays:
        """The first spectra of a part."""
        seed = HELD_OUT[part][1] if seed is None else seed
        made = [self.draw(1, np.random.default_rng([seed, number])) for number in range(count)]
        inputs = np.concatenate([one[0][0] for one in made])
        return (inputs,), {name: np.concatenate([one[1][name] for one in made]) for name in made[0][1]}


class MoleculeLesson(ClassifierLesson):
    """As `ClassifierLesson`, but only the first of the many validation spectra are looked at during training."""

    def __init__(self, net: nn.Module, options: TrainOptions):
        super().__init__(MoleculeExamples(net), net.answers, batch=options.batch)

    def held_out(self) -> list[Batch]:
        """See `models.training.Lesson`."""
        inputs, targets = to_tensors(self.examples.first("validation", WATCHED))
        rows = [slice(first, first + self.batch) for first in range(0, WATCHED, self.batch)]
        return [
            (tuple(one[part] for one in inputs), {name: one[part] for name, one in targets.items()}) for part in rows
        ]
