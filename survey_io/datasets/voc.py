"""PASCAL VOC (Everingham et al. 2010, IJCV 88, 303): ``VOCdevkit/VOC2007/{Annotations,ImageSets,JPEGImages}``."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from survey_io.errors import InputError

from .photographs import Photograph, PhotographSet
from .report import DataReport

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# A person may carry parts with boxes of their own, and the sizes of boxes are written as floats in 2012.
_SIDES = ("ymin", "xmin", "ymax", "xmax")


def find_devkit(folder: str | Path) -> Path:
    """The folder that holds VOC2007 or VOC2012: the one given, or ``VOCdevkit`` in it.

    Raises
    ------
    InputError
        When neither holds a folder VOC<year>.
    """
    folder = Path(folder)
    for place in (folder / "VOCdevkit", folder):
        if list(place.glob("VOC20*")):
            return place
    raise InputError(f"{folder}: no VOCdevkit/VOC<year> in it; expected the layout of the VOC archives")


def read_voc(
    folder: str | Path, splits: Sequence[str], *, report: DataReport | None = None, unknown: str = "drop"
) -> PhotographSet:
    """Read the labels of some splits; no image is opened.

    Parameters
    ----------
    folder : path
        ``VOCdevkit`` or the folder around it.
    splits : sequence of str
        Such as "2007_trainval": a year and the name of a list in ImageSets/Main.
    report : DataReport, optional
        Is told of labels that cannot be read and of classes that VOC does not have.
    unknown : str
        "drop" boxes of unknown classes, or "refuse" the data.

    Returns
    -------
    PhotographSet
        With `CLASSES`. Boxes of VOC count pixels from 1 and include both ends; here they are edges, see `Photograph`.

    Raises
    ------
    InputError
        When a year or list is missing; the message names those there are.
    """
    devkit = find_devkit(folder)
    report = DataReport(str(devkit)) if report is None else report
    items, strange, unread = [], [], []
    for split in splits:
        year, _, part = split.partition("_")
        place = devkit / f"VOC{year}"
        listing = place / "ImageSets" / "Main" / f"{part}.txt"
        if not listing.is_file():
            known = sorted(f"{one.parents[2].name[3:]}_{one.stem}" for one in devkit.glob("VOC*/ImageSets/Main/*.txt"))
            # The lists of single classes (cat_train) say nothing new.
            known = [one for one in known if one.count("_") == 1]
            raise InputError(f"{listing}: no such list; expected one of {', '.join(known) or '(none)'}")
        for name in listing.read_text().split():
            try:
                item, odd = _read_annotation(place / "Annotations" / f"{name}.xml", place / "JPEGImages", name)
            except (OSError, ElementTree.ParseError, ValueError, AttributeError) as error:
                unread.append(f"{name} ({' '.join(str(error).split())[:60]})")
                continue
            strange.extend(f"{one} in {name}" for one in odd)
            items.append(item)
    report.add("label cannot be read", unread, "refused" if unknown == "refuse" else "dropped")
    report.add("unknown class", strange, "refused" if unknown == "refuse" else "dropped")
    return PhotographSet(CLASSES, tuple(items))


def _read_annotation(path: Path, images: Path, name: str) -> tuple[Photograph, list[str]]:
    root = ElementTree.parse(path).getroot()
    size = root.find("size")
    shape = (int(size.findtext("height")), int(size.findtext("width")))
    boxes, labels, difficult, odd = [], [], [], []
    for entry in root.findall("object"):
        label = (entry.findtext("name") or "").strip()
        if label not in CLASSES:
            odd.append(repr(label))
            continue
        corner = entry.find("bndbox")
        y_lo, x_lo, y_hi, x_hi = (float(corner.findtext(side)) for side in _SIDES)
        # 1-based and inclusive: the first pixel, 1, spans -0.5 to 0.5.
        boxes.append((y_lo - 1.5, x_lo - 1.5, y_hi - 0.5, x_hi - 0.5))
        labels.append(CLASSES.index(label))
        difficult.append((entry.findtext("difficult") or "0").strip() not in ("", "0"))
    photograph = Photograph(
        name=f"{path.parents[1].name}/{name}",
        path=images / f"{name}.jpg",
        shape=shape,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, int),
        difficult=np.array(difficult, bool),
    )
    return photograph, odd
