"""Batches by number: the same from wherever they begin, however many processes make them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.streams import NumberedBatches, make_loader, shuffled_rows

ROOT = Path(__file__).parents[2]


def make(number: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.tensor([number, rng.integers(1 << 30)])


def first(count: int, *, workers: int = 0, **where) -> list[list[int]]:
    loader = make_loader(NumberedBatches(make, seed=5, **where), workers)
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


def test_a_loader_ends_well_where_the_parent_has_a_wait_of_its_own() -> None:
    """As after a flow of Prefect: what the parent waits for at its end is not there in a loader's process."""
    code = """
import threading
import torch
from torch.utils.data import IterableDataset
from models.streams import make_loader

class Numbers(IterableDataset):
    def __iter__(self):
        yield from range(6)

def missing():
    raise RuntimeError("not in this process")

threading._register_atexit(missing)
loader = make_loader(Numbers(), 1)
print(list(loader), flush=True)
del loader
threading._threading_atexits.clear()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert run.returncode == 0 and run.stdout.strip() == "[0, 1, 2, 3, 4, 5]", run.stderr
    assert "unexpectedly" not in run.stderr and "not in this process" not in run.stderr
