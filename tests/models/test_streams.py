"""Batches by number: the same from wherever they begin, however many processes make them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.streams import NumberedBatches, shuffled_rows


def make(number: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.tensor([number, rng.integers(1 << 30)])


def first(count: int, *, workers: int = 0, **where) -> list[list[int]]:
    loader = DataLoader(NumberedBatches(make, seed=5, **where), batch_size=None, num_workers=workers)
    return [batch.tolist() for batch in itertools.islice(loader, count)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_batch_depends_on_its_number_only(workers: int) -> None:
    whole = first(9)
    assert [number for number, _ in whole] == list(range(9)) and len({value for _, value in whole}) == 9
    assert first(9, workers=workers) == whole
    assert first(4, workers=workers, first=5) == whole[5:]


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_the_numbers(workers: int) -> None:
    whole = first(9)
    assert first(3, workers=workers, first=1, every=3) == whole[1::3]
    assert first(2, workers=workers, first=3 + 2, every=3) == whole[5::3]


def test_an_epoch_has_every_row_once() -> None:
    rows = np.concatenate([shuffled_rows(10, 4, seed=3, number=number) for number in range(10)])
    epochs = rows.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # A batch that is larger than an epoch goes through several.
    assert sorted(shuffled_rows(3, 7, seed=3, number=0)[:6]) == [0, 0, 1, 1, 2, 2]
    assert not np.array_equal(shuffled_rows(50, 50, seed=3, number=0), shuffled_rows(50, 50, seed=4, number=0))
