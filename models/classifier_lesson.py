"""What classifiers of spectra learn from, and their loss: soft classes, several classes at once, values with errors."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import IterableDataset

from models.answers import LOG_SCALE_RANGE, Answers
from models.precision import autocast
from models.streams import my_numbers

# Inputs and targets of a batch. The targets are "classes" (B, K), 0 to 1; optionally "class_weight" (B, K), 0 where a
# class is neither demanded nor punished; "values" (B, V) in the network's terms with "value_weight" (B, V).
Batch = tuple[tuple[Tensor, ...], dict[str, Tensor]]
Arrays = tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]


class Examples:
    """Where a classifier's examples come from.

    Attributes
    ----------
    description : str
        What it is, for the card of weights that were trained on it.
    """

    description: str = ""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Arrays:
        """A batch to train on, augmented or newly simulated; it depends on ``rng`` only."""

    def numbered(self, count: int, *, seed: int, first: int, every: int) -> Iterator[Arrays]:
        """The batches first, first + every, ... to train on, each of which depends on the seed and its number only."""
        for number in itertools.count(first, every):
            yield self.draw(count, np.random.default_rng([seed, number]))

    @abstractmethod
    def fixed(self, part: str) -> Arrays:
        """All examples of the part "validation", which chooses and calibrates, or "test", which is reported on.

        Neither shares a star, a template or a seed with what `draw` gives.
        """


class DrawnBatches(IterableDataset):
    """Endless batches of examples by their numbers, as `models.streams.NumberedBatches`; two of one seed are equal."""

    def __init__(self, examples: Examples, *, batch: int, seed: int, first: int = 0, every: int = 1):
        super().__init__()
        self.examples, self.batch, self.seed, self.first, self.every = examples, batch, seed, first, every

    def __iter__(self) -> Iterator[Batch]:
        first, every = my_numbers(self.first, self.every)
        yield from map(to_tensors, self.examples.numbered(self.batch, seed=self.seed, first=first, every=every))


def to_tensors(arrays: Arrays) -> Batch:
    """The same in torch, float32."""
    inputs, targets = arrays
    return (
        tuple(torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in inputs),
        {name: torch.from_numpy(np.ascontiguousarray(one, np.float32)) for name, one in targets.items()},
    )


def answer_loss(
    raw: Tensor, targets: dict[str, Tensor], answers: Answers, *, value_share: float = 0.3
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the classes plus the negative log likelihood of the values (Laplace, with predicted scale).

    Parameters
    ----------
    raw : Tensor, shape (B, answers.outputs)
    targets : dict of Tensor
        See `Batch`.
    answers : Answers
    value_share : float
        Weight of the values' mean term beside that of the classes.

    Returns
    -------
    loss : Tensor
    parts : dict of float
        "classes" and "values".
    """
    logits, mean, log_sigma = answers.parts(raw.float())
    wanted = targets["classes"]
    if answers.exclusive:
        loss = -(wanted * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()
    else:
        each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        weight = targets.get("class_weight", torch.ones_like(each))
        loss = (each * weight).sum() / weight.sum().clamp(min=1)
    parts = {"classes": float(loss.detach())}
    if answers.values:
        log_sigma = log_sigma.clamp(*LOG_SCALE_RANGE)
        # Labels of the literature have outliers, which a normal distribution would chase.
        each = (mean - targets["values"]).abs() * torch.exp(-log_sigma) + log_sigma
        weight = targets["value_weight"]
        values = (each * weight).sum() / weight.sum().clamp(min=1)
        loss = loss + value_share * values
        parts["values"] = float(values.detach())
    return loss, parts


class ClassifierLesson:
    """How a classifier is trained: see `models.training.Lesson`."""

    def __init__(self, examples: Examples, answers: Answers, *, batch: int):
        self.examples, self.answers, self.batch = examples, answers, batch

    def batches(self, *, seed: int, first: int = 0, every: int = 1) -> DrawnBatches:
        """See `models.training.Lesson`."""
        return DrawnBatches(self.examples, batch=self.batch, seed=seed, first=first, every=every)

    def held_out(self) -> list[Batch]:
        """The validation part in batches."""
        inputs, targets = to_tensors(self.examples.fixed("validation"))
        rows = torch.arange(len(inputs[0])).split(self.batch)
        return [
            (tuple(one[part] for one in inputs), {name: one[part] for name, one in targets.items()}) for part in rows
        ]

    def loss(
        self, net: nn.Module, batch: Batch, device: torch.device, precision: str
    ) -> tuple[Tensor, dict[str, float]]:
        """See `models.training.Lesson`."""
        inputs, targets = batch
        with autocast(device, precision):
            raw = net(*(one.to(device, non_blocking=True) for one in inputs))
        targets = {name: one.to(device) for name, one in targets.items()}
        # Members of an ensemble answer one by one while they learn.
        members = [answer_loss(one, targets, self.answers) for one in (raw if raw.ndim == 3 else raw[None])]
        loss = torch.stack([one for one, _ in members]).mean()
        parts = {name: sum(one[name] for _, one in members) / len(members) for name in members[0][1]}
        if self.answers.exclusive:
            raw = raw.mean(dim=0) if raw.ndim == 3 else raw
            right = raw[:, : len(self.answers.classes)].argmax(dim=1) == targets["classes"].argmax(dim=1)
            parts["accuracy"] = float(right.float().mean())
        return loss, parts

    @torch.no_grad()
    def draw(self, net: nn.Module, batch: Batch, path: Path) -> None:
        """Picture of a batch's first spectra, all their channels, with the true and the answered classes."""
        from matplotlib.figure import Figure

        inputs, targets = batch
        device = next(net.parameters()).device
        net.eval()
        logits = self.answers.parts(net(*(one[:6].to(device) for one in inputs)).float().cpu())[0]
        net.train()
        chance = torch.softmax(logits, dim=1) if self.answers.exclusive else torch.sigmoid(logits)
        figure = Figure(figsize=(14, 2.6 * len(chance)))
        axes = figure.subplots(len(chance), 1, squeeze=False)[:, 0]
        for i, axis in enumerate(axes):
            for channel in inputs[0][i]:
                axis.plot(channel.numpy(), lw=0.5)
            true = [name for name, one in zip(self.answers.classes, targets["classes"][i], strict=True) if one > 0.5]
            said = [f"{self.answers.classes[k]} {float(chance[i, k]):.2f}" for k in chance[i].argsort(descending=True)]
            axis.set_title(f"true: {', '.join(true)}; answered: {', '.join(said[: len(true) + 2])}", fontsize=9)
        figure.tight_layout()
        figure.savefig(path, dpi=60)
