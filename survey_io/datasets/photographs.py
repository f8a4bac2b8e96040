"""Photographs with labelled boxes: what VOC, COCO and folders of cut-outs have in common, and the checks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from survey_io.errors import InputError

from .report import DataReport

# A box that loses less than this much of a pixel to the image's edge is rounding, not a fault.
_ROUNDING = 0.6


@dataclass(frozen=True)
class Photograph:
    """One image and what is in it.

    Attributes
    ----------
    name : str
        Unique within its dataset.
    path : Path
    shape : tuple of int
        (height, width), px.
    boxes : ndarray of float32, shape (n, 4)
        (y_lo, x_lo, y_hi, x_hi): edges in px, pixel centres at integers from 0, so that the image begins at -0.5.
    labels : ndarray of int, shape (n,)
        Index of the class.
    difficult : ndarray of bool, shape (n,)
        Neither demanded nor punished: VOC's "difficult", COCO's crowds.
    """

    name: str
    path: Path
    shape: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray

    def take(self, rows: np.ndarray, boxes: np.ndarray | None = None) -> Photograph:
        """The same photograph with some of its boxes, or with these in their place."""
        chosen = self.boxes[rows] if boxes is None else boxes
        return replace(self, boxes=chosen, labels=self.labels[rows], difficult=self.difficult[rows])


@dataclass(frozen=True)
class PhotographSet:
    """One split of a dataset, with the classes that its labels count."""

    classes: tuple[str, ...]
    items: tuple[Photograph, ...]

    def __len__(self) -> int:
        return len(self.items)


def read_photograph(path: Path) -> np.ndarray:
    """Decode an image as RGB, turned as its EXIF tag says.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    InputError
        For a file that is missing or cannot be decoded whole.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: cannot be decoded: {' '.join(str(error).split())}") from error


def mend_boxes(item: Photograph) -> tuple[Photograph, dict[str, list[str]]]:
    """Clip boxes to their image and leave out those without area.

    Returns
    -------
    item : Photograph
    faults : dict of list of str
        "box beyond its image" and "box of no area", an entry (the image's name and the box) for each.
    """
    height, width = item.shape
    limits = np.array([height, width, height, width]) - 0.5
    clipped = np.clip(item.boxes, -0.5, limits).astype(np.float32)
    beyond = (np.abs(clipped - item.boxes) > _ROUNDING).any(axis=1)
    sides = clipped[:, 2:] - clipped[:, :2]
    empty = (sides <= 0).any(axis=1) | (item.boxes[:, 2:] <= item.boxes[:, :2]).any(axis=1)

    def named(which: np.ndarray) -> list[str]:
        return [f"{item.name} box {row + 1}" for row in np.flatnonzero(which)]

    rows = np.flatnonzero(~empty)
    faults = {"box beyond its image": named(beyond & ~empty), "box of no area": named(empty)}
    return item.take(rows, clipped[rows]), faults


def check_photographs(name: str, splits: dict[str, PhotographSet], *, faults: str = "mend") -> tuple[
    dict[str, PhotographSet], DataReport
]:  # fmt: skip
    """Look at every image and box, and leave out or mend what is faulty.

    Every image is decoded once, which takes some milliseconds each.

    Parameters
    ----------
    name : str
        Of the dataset, for the report.
    splits : dict of PhotographSet
        In order of importance: a photograph that is in two splits stays in the last of them only, so that what is
        reported on stays whole and what is trained on loses it.
    faults : str
        "mend": clip boxes to the image, leave out what cannot be used; "refuse": any fault stops the training.

    Returns
    -------
    splits : dict of PhotographSet
        What is left.
    report : DataReport
    """
    report = DataReport(name)
    found: dict[str, list[str]] = {}
    kept: dict[str, list[Photograph]] = {}
    owner: dict[str, str] = {}
    for split, photographs in reversed(splits.items()):
        kept[split] = []
        for item in photographs.items:
            try:
                pixels = read_photograph(item.path)
            except InputError as error:
                found.setdefault("image cannot be decoded", []).append(_short(item, error))
                continue
            if pixels.shape[:2] != item.shape:
                found.setdefault("image of another size than its label says", []).append(item.name)
                item = replace(item, shape=pixels.shape[:2])
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            if owner.setdefault(digest, split) != split:
                found.setdefault(f"in {split} and {owner[digest]}", []).append(item.name)
                continue
            item, boxes = mend_boxes(item)
            for kind, names in boxes.items():
                found.setdefault(kind, []).extend(names)
            if len(item.boxes) == 0:
                found.setdefault("image without a usable box", []).append(item.name)
            kept[split].append(item)
    actions = {"box beyond its image": "mended", "image without a usable box": "kept"}
    actions["image of another size than its label says"] = "mended"
    for kind, names in found.items():
        usual = actions.get(kind, "dropped")
        report.add(kind, sorted(names), "refused" if faults == "refuse" and usual != "kept" else usual)
    left = {split: PhotographSet(splits[split].classes, tuple(kept[split])) for split in splits}
    for split, photographs in left.items():
        report.counts[split] = count_labels(photographs)
    return left, report


def count_labels(photographs: PhotographSet) -> dict[str, int]:
    """Boxes per class that are demanded, in the order of the classes."""
    total = np.zeros(len(photographs.classes), int)
    for item in photographs.items:
        np.add.at(total, item.labels[~item.difficult], 1)
    return dict(zip(photographs.classes, total.tolist(), strict=True))


def part_of(name: str, parts: Sequence[tuple[str, float]]) -> str:
    """The part that a name belongs to for good: by its hash, whatever the order or the number of the others.

    Parameters
    ----------
    name : str
    parts : sequence of (str, float)
        Names and shares; what the shares leave goes to the last.
    """
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    for part, share in parts:
        if place < share:
            return part
        place -= share
    return parts[-1][0]


def split_by_name(items: Iterable[Photograph], parts: Sequence[tuple[str, float]]) -> dict[str, list[Photograph]]:
    """Divide photographs by the hash of their names, see `part_of`."""
    found: dict[str, list[Photograph]] = {part: [] for part, _ in parts}
    for item in items:
        found[part_of(item.name, parts)].append(item)
    return found


def _short(item: Photograph, error: InputError) -> str:
    return f"{item.name} ({str(error).split(': ', 1)[-1][:60]})"
