"""Endless batches by number: number k depends on the seed and k only, so that a run goes on exactly where it stopped.

A lesson whose ``batches(seed=..., first=..., every=...)`` gives `NumberedBatches` (or splits its numbers with
`my_numbers`) can be resumed exactly, on any number of loader processes, and split over several training processes:
process r of R takes the numbers r, r + R, r + 2 R, ...
"""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

# Streams of random numbers that one seed and number have beside the batch's own.
_ORDER = 7


def my_numbers(first: int, every: int) -> tuple[int, int]:
    """First number and step of the batches that this loader process makes, of all of first, first + every, ...

    A DataLoader takes from its processes in turn, so that they come in order.
    """
    worker = get_worker_info()
    if worker is None:
        return first, every
    return first + worker.id * every, every * worker.num_workers


class NumberedBatches(IterableDataset):
    """Endless batches, each made by its number.

    Parameters
    ----------
    make : callable
        ``make(number, rng)`` gives the batch of a number; whatever is random in it comes from ``rng``, which is new for
        each number. It must not depend on the batches made before.
    seed : int
    first, every : int
        The numbers first, first + every, first + 2 every, ... are made.
    """

    def __init__(self, make: Callable[[int, np.random.Generator], Any], *, seed: int, first: int = 0, every: int = 1):
        super().__init__()
        self.make, self.seed, self.first, self.every = make, seed, first, every

    def __iter__(self) -> Iterator[Any]:
        for number in itertools.count(*my_numbers(self.first, self.every)):
            yield self.make(number, np.random.default_rng([self.seed, number]))


def make_loader(batches: IterableDataset, processes: int, **settings: Any) -> DataLoader:
    """A loader of ready batches with so many processes of its own; 0: none.

    Further settings are those of ``DataLoader``.
    """
    if processes:
        settings = {"num_workers": processes, "prefetch_factor": 4, "worker_init_fn": _leave_at_once} | settings
    return DataLoader(batches, batch_size=None, **settings)


def _leave_at_once(_: int) -> None:
    """A process of a loader ends when its work does, without what its parent does at its own end.

    A forked process inherits that: of Prefect a wait for threads that it does not have, which would end it with status
    1, and of that torch makes an error in the parent.
    """
    Finalize(None, _leave, exitpriority=-1000)


def _leave() -> None:
    failed = sys.exc_info()[0] is not None
    if failed:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(failed))


def shuffled_rows(count: int, batch: int, *, seed: int, number: int) -> np.ndarray:
    """Rows of a batch by its number, where each epoch has all ``count`` rows once, in an order of its own.

    Batches run on over the end of an epoch, so that all have ``batch`` rows.

    Returns
    -------
    ndarray of int, shape (batch,)
    """
    places = np.arange(number * batch, (number + 1) * batch)
    epochs = places // count
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = np.random.default_rng([seed, int(epoch), _ORDER]).permutation(count)[places[here] % count]
    return rows
