"""Endless batches of training fields from a pool of simulated skies: what the loaders of images and cubes share."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from models.beam import beam_vector
from models.streams import my_numbers

Batch = tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]
# What the random numbers of a seed, stream and count are for.
_SKY, _SLOT, _FIELDS = 1, 2, 3


@dataclass(frozen=True)
class Field:
    """One training field.

    Attributes
    ----------
    snr : ndarray of float32
        S/N, blanks 0.
    beam : (major, minor, theta)
        px, rad.
    target : dict of ndarray
        As `yolo_loss` takes them, one entry per source, those of the ignore band among them.
    found : ndarray of int
        Row of ``target`` that each anchor answers for, by `assign_centres`.
    ignore : ndarray of bool
        Sources of the ignore band.
    """

    snr: np.ndarray
    beam: tuple[float, float, float]
    target: dict[str, np.ndarray]
    found: np.ndarray
    ignore: np.ndarray


class PooledFields(IterableDataset):
    """A pool of skies is kept and slowly renewed; every field is cut out of one of them.

    Each loader process of each training process has a pool of its own. Which skies it holds at a batch depends on the
    seed, on the pool's place among so many, and on the batch's number only, and so does each sky: a run that goes on
    with as many processes draws those again that it needs, one after the other, and gets the same batches.

    Parameters
    ----------
    batch, seed : int
        Fields per batch; two loaders of one seed give the same batches.
    assigned : tuple of int
        (boxes, *grid) of a field's assignment.
    at_first, pool, renew : int
        Skies before the first batch, skies kept, and batches after which one is replaced.
    first, every : int
        Numbers of the batches: see `models.streams.NumberedBatches`.
    """

    def __init__(
        self, *, batch: int, seed: int, assigned: tuple[int, ...], at_first: int, pool: int, renew: int,
        first: int = 0, every: int = 1,
    ):  # fmt: skip
        super().__init__()
        self.batch, self.seed, self.assigned = batch, seed, assigned
        self.at_first, self.pool, self.renew = at_first, pool, renew
        self.first, self.every = first, every

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Any:
        """A new member of the pool."""

    @abstractmethod
    def cut(self, sky: Any, rng: np.random.Generator) -> Field:
        """A field of one of its members."""

    def __iter__(self) -> Iterator[Batch]:
        number, pools = my_numbers(self.first, self.every)
        stream, begin = number % pools, number // pools

        def random(count: int, use: int) -> np.random.Generator:
            return np.random.default_rng([self.seed, stream, count, use])

        # Numbers of the skies in the pool; as it fills while training runs, the first step does not wait for it.
        members: list[int] = []
        drawn = 0
        skies = _Skies(lambda member: self.draw(random(member, _SKY)))
        for step in itertools.count():
            new = max(self.at_first - len(members), int(len(members) < self.pool))
            if new:
                members += range(drawn, drawn + new)
            elif step % self.renew == 0:
                members[int(random(step, _SLOT).integers(len(members)))] = drawn
                new = 1
            drawn += new
            if step >= begin:
                skies.hold(members)
                yield self.make_batch(skies, random(step, _FIELDS))

    def make_batch(self, skies: Sequence[Any], rng: np.random.Generator) -> Batch:
        """S/N (B, 1, *sides), beams (B, 4), assignment (B, boxes, *grid) and targets of one batch."""
        images, beams, assigned, rows = [], [], [], []
        offset = 0
        for _ in range(self.batch):
            field = self.cut(skies[int(rng.integers(len(skies)))], rng)
            demanded = ~field.ignore
            # Only demanded targets enter the table; their rows are counted over the batch.
            number = np.cumsum(demanded) - 1 + offset
            found = field.found
            found = np.where(found >= 0, number[np.maximum(found, 0)] if len(number) else found, found)
            offset += int(demanded.sum())
            rows.append({name: value[demanded] for name, value in field.target.items()})
            images.append(field.snr[None])
            beams.append(beam_vector(field.beam))
            assigned.append(found.reshape(self.assigned))
        columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        targets = {name: torch.from_numpy(value.astype(np.float32)) for name, value in columns.items()}
        return (
            torch.from_numpy(np.stack(images).astype(np.float32, copy=False)),
            torch.from_numpy(np.stack(beams)),
            torch.from_numpy(np.stack(assigned).astype(np.int64)),
            targets,
        )


class _Skies(Sequence):
    """The skies of a pool by their slots, each drawn when it is first looked at: some are replaced before."""

    def __init__(self, draw: Callable[[int], Any]):
        self.draw, self.members = draw, []
        self.drawn: dict[int, Any] = {}

    def hold(self, members: list[int]) -> None:
        """Have these members, and forget those that were drawn of others."""
        self.members = members
        for member in set(self.drawn) - set(members):
            del self.drawn[member]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, slot: int) -> Any:
        member = self.members[slot]
        if member not in self.drawn:
            self.drawn[member] = self.draw(member)
        return self.drawn[member]
