"""Endless batches of training fields from a pool of simulated skies: what the loaders of images and cubes share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from models.beam import beam_vector

Batch = tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]


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

    Parameters
    ----------
    batch, seed : int
        Fields per batch; two loaders of one seed give the same batches.
    assigned : tuple of int
        (boxes, *grid) of a field's assignment.
    first, pool, renew : int
        Skies before the first batch, skies kept, and batches after which one is replaced.
    """

    def __init__(self, *, batch: int, seed: int, assigned: tuple[int, ...], first: int, pool: int, renew: int):
        super().__init__()
        self.batch, self.seed, self.assigned = batch, seed, assigned
        self.first, self.pool, self.renew = first, pool, renew

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Any:
        """A new member of the pool."""

    @abstractmethod
    def cut(self, sky: Any, rng: np.random.Generator) -> Field:
        """A field of one of its members."""

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, 0 if worker is None else worker.id])
        skies: list[Any] = []
        step = 0
        while True:
            # The pool fills while training runs, so that the first step does not wait for it.
            if len(skies) < self.first:
                skies += [self.draw(rng) for _ in range(self.first - len(skies))]
            elif len(skies) < self.pool:
                skies.append(self.draw(rng))
            elif step % self.renew == 0:
                skies[int(rng.integers(len(skies)))] = self.draw(rng)
            yield self.make_batch(skies, rng)
            step += 1

    def make_batch(self, skies: list[Any], rng: np.random.Generator) -> Batch:
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
