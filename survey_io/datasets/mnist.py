"""Handwritten digits in the idx format of MNIST (LeCun et al. 1998), packed with gzip or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from survey_io.datasets.pictures import Pictures, Split, drop_leaks, split_by_name
from survey_io.datasets.report import DataReport
from survey_io.errors import InputError

DIGITS = tuple(str(digit) for digit in range(10))
# Of the published training part, what chooses and calibrates: 5,000 of 60,000.
_VALIDATION = 1 / 12
_UNSIGNED_BYTE = 8


def read_mnist(folder: str | Path, *, split: Split | None = None) -> Pictures:
    """Read ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same of ``t10k``.

    With both the published split holds, and some of its training part validate. Where there is only one of them it is
    parted by the hash of each digit's place, as ``split`` says.

    Raises
    ------
    InputError
        When neither is there, or a file is not of that format.
    """
    folder = Path(folder)
    parts = {name: _pair(folder, name) for name in ("train", "t10k")}
    found = {name: pair for name, pair in parts.items() if pair is not None}
    if not found:
        raise InputError(
            f"{folder}: expected train-images-idx3-ubyte and train-labels-idx1-ubyte, or those of t10k, packed or not"
        )
    names = [f"{name}/{i:05d}" for name, (pixels, _) in found.items() for i in range(len(pixels))]
    if len(found) == 2:
        part = split_by_name(names, Split(_VALIDATION, 0.0))
        part[len(found["train"][0]) :] = "test"
    else:
        part = split_by_name(names, split or Split(0.08, 0.2), exact=True)
    pixels = np.concatenate([pair[0] for pair in found.values()])
    label = np.concatenate([pair[1] for pair in found.values()])
    report = DataReport(f"MNIST ({folder.name})")
    wrong = label >= len(DIGITS)
    report.add("label beyond 9", [names[i] for i in np.flatnonzero(wrong)], "dropped")
    digits = Pictures(
        "handwritten digits of MNIST", np.array(names), part, label.astype(int), DIGITS, pixels.shape[1], 1,
        pixels[..., None], report=report,
    ).take(~wrong)  # fmt: skip
    digits = drop_leaks(digits)
    digits.count()
    return digits


def _pair(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels (N, 28, 28) and labels (N,) of a part; None where it is not there."""
    images, labels = (_find(folder, f"{name}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    if images is None or labels is None:
        return None
    pixels, label = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2] or label.shape != pixels.shape[:1]:
        raise InputError(
            f"{folder}: {images.name} of shape {pixels.shape} and {labels.name} of {label.shape}: not a pair"
        )
    return pixels, label


def _find(folder: Path, name: str) -> Path | None:
    # Some copies write a dot before "idx".
    names = (name, name.replace("-idx", ".idx"))
    return next(
        (folder / f"{one}{end}" for one in names for end in ("", ".gz") if (folder / f"{one}{end}").is_file()), None
    )


def read_idx(path: str | Path) -> np.ndarray:
    """An array of unsigned bytes from a file in idx format.

    Raises
    ------
    InputError
        For a damaged file, or another type of number.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a file in idx format, got: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE:
        raise InputError(
            f"{path}: expected a file in idx format with unsigned bytes, got the magic number {data[:4].hex()}"
        )
    begin = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, begin, 4))
    if len(data) - begin != math.prod(shape):
        raise InputError(
            f"{path}: expected {math.prod(shape):,} bytes for the shape {shape}, got {len(data) - begin:,}"
        )
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)
