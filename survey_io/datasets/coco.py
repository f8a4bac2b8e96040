"""COCO (Lin et al. 2014): ``annotations/instances_{train,val}2017.json`` beside ``train2017/`` and ``val2017/``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from survey_io.errors import InputError

from .photographs import Photograph, PhotographSet
from .report import DataReport

# The names in the order of their ids, which run from 1 to 90 with gaps.
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def read_coco(
    folder: str | Path, splits: Sequence[str], *, report: DataReport | None = None, unknown: str = "drop"
) -> PhotographSet:
    """Read the labels of some splits; no image is opened.

    Parameters
    ----------
    folder : path
        Holds ``annotations`` and a folder of images per split.
    splits : sequence of str
        Such as "train2017".
    report : DataReport, optional
        Is told of boxes of unknown categories or images.
    unknown : str
        "drop" such boxes, or "refuse" the data.

    Returns
    -------
    PhotographSet
        Its classes are those of the file in the order of their ids: of COCO's own files, `CLASSES`. Boxes of COCO count
        px from the image's corner at 0; crowds are difficult.

    Raises
    ------
    InputError
        For a split without a file, which is answered with those there are, and for a file that cannot be read.
    """
    folder = Path(folder)
    report = DataReport(str(folder)) if report is None else report
    classes: tuple[str, ...] | None = None
    items: list[Photograph] = []
    for split in splits:
        path = folder / "annotations" / f"instances_{split}.json"
        if not path.is_file():
            known = sorted(one.stem.removeprefix("instances_") for one in path.parent.glob("instances_*.json"))
            raise InputError(f"{path}: no such file; expected one of {', '.join(known) or '(none)'}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            categories = {entry["id"]: entry["name"] for entry in content["categories"]}
            images = {entry["id"]: entry for entry in content["images"]}
            entries = content["annotations"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: expected images, annotations and categories of COCO: {error!r}") from error
        names = tuple(categories[key] for key in sorted(categories))
        if classes not in (None, names):
            raise InputError(f"{path}: its {len(names)} categories are not those of the splits before it")
        classes = names
        items.extend(_items(split, folder, images, categories, entries, report, unknown))
    return PhotographSet(classes or CLASSES, tuple(items))


def _items(split, folder, images, categories, entries, report: DataReport, unknown: str) -> list[Photograph]:
    order = {key: row for row, key in enumerate(sorted(categories))}
    boxes: dict[int, list[tuple]] = {key: [] for key in images}
    strange = []
    for entry in entries:
        if entry["image_id"] not in images or entry["category_id"] not in categories:
            strange.append(f"annotation {entry.get('id')} of {split}")
            continue
        x, y, wide, high = entry["bbox"]
        # The corner of the first pixel is 0 there and -0.5 here.
        edges = (y - 0.5, x - 0.5, y + high - 0.5, x + wide - 0.5)
        boxes[entry["image_id"]].append((*edges, order[entry["category_id"]], bool(entry.get("iscrowd", 0))))
    report.add("unknown image or category", strange, "refused" if unknown == "refuse" else "dropped")
    found = []
    for key, entry in images.items():
        rows = np.array(boxes[key], float).reshape(-1, 6)
        found.append(
            Photograph(
                name=f"{split}/{Path(entry['file_name']).stem}",
                path=folder / split / Path(entry["file_name"]).name,
                shape=(int(entry["height"]), int(entry["width"])),
                boxes=rows[:, :4].astype(np.float32),
                labels=rows[:, 4].astype(int),
                difficult=rows[:, 5].astype(bool),
            )
        )
    return found
