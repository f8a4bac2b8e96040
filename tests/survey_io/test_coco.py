"""COCO's layout: boxes, crowds, categories with gaps, and what is answered when it is not as it should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from survey_io.datasets.coco import CLASSES, read_coco
from survey_io.datasets.photographs import check_photographs
from survey_io.datasets.report import DataReport
from survey_io.errors import InputError


def write(root: Path, split: str, *, annotations: list[dict], categories=((1, "person"), (3, "car"), (90, "cat"))):
    from PIL import Image

    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    images = [{"id": 7, "file_name": "000007.jpg", "width": 60, "height": 40}]
    images += [{"id": 9, "file_name": "000009.jpg", "width": 30, "height": 50}]
    for k, one in enumerate(images):
        value = 40 * k + len(split)
        Image.new("RGB", (one["width"], one["height"]), (value,) * 3).save(root / split / one["file_name"])
    named = [{"id": key, "name": name} for key, name in categories]
    content = {"images": images, "annotations": annotations, "categories": named}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def one(image: int, category: int, box: list[float], crowd: int = 0) -> dict:
    return {"id": 1, "image_id": image, "category_id": category, "bbox": box, "area": 1.0, "iscrowd": crowd}


def test_boxes_crowds_and_categories(tmp_path) -> None:
    rows = [one(7, 3, [10, 5, 20, 30]), one(9, 90, [0, 0, 30, 50], crowd=1), one(8, 3, [1, 1, 5, 5])]
    write(tmp_path, "train2017", annotations=[*rows, one(7, 4, [1, 1, 5, 5])])
    report = DataReport("coco")
    photographs = read_coco(tmp_path, ["train2017"], report=report)
    assert photographs.classes == ("person", "car", "cat") and len(photographs) == 2
    first, second = photographs.items
    np.testing.assert_allclose(first.boxes, [[4.5, 9.5, 34.5, 29.5]])
    assert first.labels.tolist() == [1] and second.difficult.tolist() == [True] and first.shape == (40, 60)
    assert [(p.kind, p.count) for p in report.problems] == [("unknown image or category", 2)]
    left, found = check_photographs("coco", {"train": photographs})
    # The whole image, edge to edge, is no fault.
    assert not found.problems and found.counts["train"] == {"person": 0, "car": 1, "cat": 0}
    np.testing.assert_allclose(left["train"].items[1].boxes, [[-0.5, -0.5, 49.5, 29.5]])


def test_what_is_missing_or_different_is_said(tmp_path) -> None:
    write(tmp_path, "train2017", annotations=[])
    with pytest.raises(InputError, match="expected one of train2017"):
        read_coco(tmp_path, ["val2017"])
    write(tmp_path, "val2017", annotations=[], categories=((1, "person"),))
    with pytest.raises(InputError, match="1 categories are not those"):
        read_coco(tmp_path, ["train2017", "val2017"])
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    with pytest.raises(InputError, match="expected images, annotations and categories"):
        read_coco(tmp_path, ["val2017"])


def test_there_are_eighty_classes() -> None:
    assert len(set(CLASSES)) == 80
