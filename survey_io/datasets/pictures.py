"""Pictures with labels: what every data set of photographs is read into, how it is split, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from survey_io.datasets.report import DataReport
from survey_io.errors import InputError

__all__ = ["PARTS", "Pictures", "Split", "drop_leaks", "load_pixels", "picture_files", "read_picture", "split_by_name"]

PARTS = ("train", "validation", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_READERS = 4


@dataclass(frozen=True)
class Split:
    """How examples are parted where no split is published: by the hash of their names, never by their order.

    Attributes
    ----------
    validation, test : float
        Shares of all that choose and calibrate, and that are reported on. Without folds.
    folds, fold : int
        With folds, every example is in the test part of exactly one of them; the one after it validates.
    """

    validation: float = 0.1
    test: float = 0.15
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if self.folds and not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds}: expected at least 3 folds, counted from 0")
        if not 0 < self.validation + self.test < 1:
            raise ValueError(f"validation {self.validation:g} and test {self.test:g}: expected shares below 1 together")


@dataclass(frozen=True)
class Pictures:
    """N pictures with their labels, in memory or on disk.

    Attributes
    ----------
    source : str
        What it is, for cards and reports.
    names : ndarray of str, shape (N,)
    part : ndarray of str, shape (N,)
        One of `PARTS`.
    label : ndarray of int, shape (N,)
        Index into ``classes``; -1 where there is none (votes in its place).
    classes : tuple of str
    side : int
        Pixels of a picture's side, as `read` gives it.
    channels : int
        3 (red, green, blue) or 1.
    pixels : ndarray of uint8, shape (N, side, side, channels), optional
        None where they stay on disk.
    files : tuple of Path
        Empty where the pixels come from one large file.
    votes : ndarray of float32, shape (N, 37), optional
        Of Galaxy Zoo, see `survey_io.datasets.galaxy_zoo`.
    report : DataReport
    """

    source: str
    names: np.ndarray
    part: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    side: int
    channels: int = 3
    pixels: np.ndarray | None = None
    files: tuple[Path, ...] = ()
    votes: np.ndarray | None = None
    report: DataReport = field(default_factory=lambda: DataReport("pictures"))

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> Pictures:
        """These pictures only; ``rows`` are indices or a mask."""
        rows = np.arange(len(self))[rows]
        return replace(
            self, names=self.names[rows], part=self.part[rows], label=self.label[rows],
            pixels=None if self.pixels is None else self.pixels[rows],
            files=tuple(self.files[row] for row in rows) if self.files else (),
            votes=None if self.votes is None else self.votes[rows],
        )  # fmt: skip

    def rows(self, part: str) -> np.ndarray:
        """Indices of the pictures of a part."""
        return np.flatnonzero(self.part == part)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of these pictures, shape (n, side, side, channels), uint8."""
        if self.pixels is not None:
            return self.pixels[rows]
        return np.stack([read_picture(self.files[row], side=self.side, channels=self.channels) for row in rows])

    def count(self) -> None:
        """Enter pictures per part and class into the report."""
        for part in PARTS:
            here = self.part == part
            if self.classes:
                counts = np.bincount(self.label[here], minlength=len(self.classes)).tolist()
                self.report.counts[part] = dict(zip(self.classes, counts, strict=True))
            else:
                self.report.counts[part] = {"pictures": int(here.sum())}


def split_by_name(names: Sequence[str], split: Split, *, exact: bool = False) -> np.ndarray:
    """Part of each example, by the hash of its name.

    Parameters
    ----------
    names : sequence of str
    split : Split
    exact : bool
        True: by the rank of the hashes, so that shares are met to one example. False: by their values, so that an
        example stays in its part when others are added.

    Returns
    -------
    ndarray of str, shape (N,)
    """
    # The first 13 hexadecimal digits are exact in a float of 64 bits.
    share = np.array([int(hashlib.sha256(str(name).encode()).hexdigest()[:13], 16) for name in names], np.float64)
    share /= 16.0**13
    if exact:
        share = (np.argsort(np.argsort(share, kind="stable"), kind="stable") + 0.5) / max(len(share), 1)
    part = np.full(len(share), "train", dtype="<U10")
    if split.folds:
        bucket = (share * split.folds).astype(int)
        part[bucket == (split.fold + 1) % split.folds] = "validation"
        part[bucket == split.fold] = "test"
    else:
        part[share < split.test + split.validation] = "validation"
        part[share < split.test] = "test"
    return part


def picture_files(folder: Path) -> list[Path]:
    """Pictures directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith("."))


def read_picture(
    path: str | Path, *, side: int, channels: int = 3, shape: Literal["crop", "pad"] = "crop", central: float = 1.0
) -> np.ndarray:
    """Decode a picture to a square of a given side.

    Parameters
    ----------
    path : path
        Anything Pillow decodes.
    side : int
    channels : int
        3 or 1.
    shape : {"crop", "pad"}
        What becomes of a picture that is not square: its central square, or all of it with black borders.

    central : float
        Share of the square's side that is kept, about its centre.

    Returns
    -------
    ndarray of uint8, shape (side, side, channels)

    Raises
    ------
    InputError
        For a file that is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as opened:
            # JPEG decodes to a half, quarter or eighth of its size at once, which is faster.
            wanted = round(side / central)
            opened.draft("RGB" if channels == 3 else "L", (wanted, wanted))
            picture = opened.convert("RGB" if channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected a picture that can be decoded, got: {error}") from error
    width, height = picture.size
    across = max(1, round(central * (min(width, height) if shape == "crop" else max(width, height))))
    left, top = (width - across) // 2, (height - across) // 2
    if (width, height) != (across, across):
        picture = picture.crop((left, top, left + across, top + across))
    if across != side:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS if across > side else Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, np.uint8)
    return pixels if channels == 3 else pixels[:, :, None]


def load_pixels(pictures: Pictures, *, memory: float = 2.0, verify: bool = True) -> Pictures:
    """Decode all pictures, and keep their pixels where they fit into memory; broken ones are dropped.

    Parameters
    ----------
    pictures : Pictures
        With files.
    memory : float
        GiB that pixels may take.
    verify : bool
        Decode those that stay on disk too, once; else only their headers are looked at.

    Returns
    -------
    Pictures
        Without those that cannot be decoded, which its report tells of.
    """
    size = pictures.side**2 * pictures.channels
    held = len(pictures) * size <= memory * 2**30

    def look(path: Path) -> np.ndarray | bool:
        try:
            if held or verify:
                pixels = read_picture(path, side=pictures.side, channels=pictures.channels)
                return pixels if held else True
            with Image.open(path):
                return True
        except (InputError, OSError):
            return False

    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(look, pictures.files))
    good = np.array([one is not False for one in found], bool)
    pictures.report.add("picture cannot be decoded", pictures.names[~good].tolist(), "dropped")
    pictures = pictures.take(good)
    if held:
        kept = [one for one in found if one is not False]
        empty = np.zeros((0, pictures.side, pictures.side, pictures.channels), np.uint8)
        pictures = replace(pictures, pixels=np.stack(kept) if kept else empty)
    return pictures


def drop_leaks(pictures: Pictures) -> Pictures:
    """Find pictures that are there twice. Of those in two parts only the ones held out stay.

    Pixels are compared where they are in memory, else the bytes of files of equal length. A picture with two different
    labels is wrong at least once: all its copies are dropped.

    Returns
    -------
    Pictures
        With "identical pictures ..." in its report.
    """
    groups = _identical(pictures)
    keep = np.ones(len(pictures), bool)
    across, within, torn = [], [], []
    importance = {"train": 0, "validation": 1, "test": 2}
    for rows in groups:
        names = " = ".join(str(pictures.names[row]) for row in rows[:3])
        if len(set(pictures.label[rows].tolist())) > 1:
            torn.append(names)
            keep[rows] = False
            continue
        level = np.array([importance[part] for part in pictures.part[rows]])
        if len(set(level.tolist())) > 1:
            across.append(names)
            keep[np.asarray(rows)[level < level.max()]] = False
        else:
            within.append(names)
    pictures.report.add("identical pictures of different labels", torn, "dropped")
    pictures.report.add("identical pictures across splits, the one further from training stays", across, "dropped")
    pictures.report.add("identical pictures within a split", within, "kept")
    return pictures if keep.all() else pictures.take(keep)


def _identical(pictures: Pictures) -> list[list[int]]:
    """Groups of rows with the same picture."""
    rows: Iterable[int] = range(len(pictures))
    if pictures.pixels is None:
        sizes = np.array([path.stat().st_size for path in pictures.files])
        _, place, count = np.unique(sizes, return_inverse=True, return_counts=True)
        rows = np.flatnonzero(count[place] > 1).tolist()
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in rows:
        data = pictures.files[row].read_bytes() if pictures.pixels is None else pictures.pixels[row].tobytes()
        groups[hashlib.blake2b(data, digest_size=16).digest()].append(row)
    return [group for group in groups.values() if len(group) > 1]
