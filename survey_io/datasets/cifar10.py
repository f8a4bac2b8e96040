"""CIFAR-10 (Krizhevsky 2009) in its binary version: 32 px colour photographs of ten kinds of things."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from survey_io.datasets.pictures import Pictures, Split, drop_leaks, split_by_name
from survey_io.datasets.report import DataReport
from survey_io.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE = 32
_RECORD = 1 + 3 * _SIDE**2
# Of the published training part, what chooses and calibrates: 5,000 of 50,000.
_VALIDATION = 0.1


def read_cifar10(folder: str | Path, *, split: Split | None = None) -> Pictures:
    """Read ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.

    Parameters
    ----------
    folder : path
        That of the files, or the one in which ``cifar-10-batches-bin`` lies.
    split : Split, optional
        For a folder without ``test_batch.bin``.

    Raises
    ------
    InputError
        When the files are missing or damaged. The version for Python is pickled, which can run code, and is not read.
    """
    folder = Path(folder)
    inside = folder / "cifar-10-batches-bin"
    folder = inside if inside.is_dir() else folder
    train = sorted(folder.glob("data_batch_*.bin"))
    if not train:
        pickled = any(folder.rglob("data_batch_1"))
        hint = "; only the pickled version for Python is there, which is never loaded" if pickled else ""
        raise InputError(f"{folder}: expected data_batch_1.bin to data_batch_5.bin of CIFAR-10's binary version{hint}")
    test = [path for path in (folder / "test_batch.bin",) if path.is_file()]
    names: list[str] = []
    blocks = []
    for path in (*train, *test):
        block = _records(path)
        names += [f"{path.stem}/{i:05d}" for i in range(len(block))]
        blocks.append(block)
    records = np.concatenate(blocks)
    if test:
        part = split_by_name(names, Split(_VALIDATION, 0.0))
        part[len(records) - len(blocks[-1]) :] = "test"
    else:
        part = split_by_name(names, split or Split())
    report = DataReport(f"CIFAR-10 ({folder.name})")
    wrong = records[:, 0] >= len(CLASSES)
    report.add("label beyond 9", [names[i] for i in np.flatnonzero(wrong)], "dropped")
    # All of red, then green, then blue.
    pixels = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    pictures = Pictures(
        "photographs of CIFAR-10", np.array(names), part, records[:, 0].astype(int), CLASSES, _SIDE, 3,
        np.ascontiguousarray(pixels), report=report,
    ).take(~wrong)  # fmt: skip
    pictures = drop_leaks(pictures)
    pictures.count()
    return pictures


def _records(path: Path) -> np.ndarray:
    """Label and pixels of each photograph, shape (N, 3073)."""
    size = path.stat().st_size
    if not size or size % _RECORD:
        raise InputError(f"{path}: {size:,} bytes are no whole number of records of {_RECORD}: damaged")
    return np.fromfile(path, np.uint8).reshape(-1, _RECORD)
