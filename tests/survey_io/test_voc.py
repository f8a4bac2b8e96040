"""PASCAL VOC's layout, and what a check of photographs finds in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from survey_io.datasets.photographs import check_photographs, part_of, read_photograph, split_by_name
from survey_io.datasets.report import DataReport
from survey_io.datasets.voc import CLASSES, find_devkit, read_voc
from survey_io.errors import InputError


def place(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2007"


def change(root: Path, name: str, old: str, new: str) -> None:
    path = place(root) / "Annotations" / f"{name}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_boxes_are_where_the_shapes_are(make_voc, tmp_path) -> None:
    photographs = read_voc(make_voc(tmp_path), ["2007_trainval", "2007_test"])
    assert len(photographs) == 18 and photographs.classes == CLASSES and len(CLASSES) == 20
    for item in photographs.items:
        image = read_photograph(item.path).astype(int)
        assert image.shape[:2] == item.shape
        for box, label in zip(item.boxes, item.labels, strict=True):
            channel = {"cat": 0, "dog": 1, "train": 2}[CLASSES[label]]
            centre = np.round((box[:2] + box[2:]) / 2).astype(int)
            pixel = image[tuple(centre)]
            # Another shape may lie on top; the middle of the last one is its own colour.
            if box is item.boxes[-1]:
                assert pixel.argmax() == channel
        y_lo, x_lo, y_hi, x_hi = item.boxes[-1]
        if CLASSES[item.labels[-1]] == "dog":
            inside = image[int(y_lo + 0.5), int(x_lo + 0.5)]
            assert inside.argmax() == 1 and inside[1] > 150
            last = image[int(y_hi - 0.5), int(x_hi - 0.5)]
            assert last.argmax() == 1 and last[1] > 150


def test_parts_of_persons_and_floats_and_missing_flags_are_read_as_meant(make_voc, tmp_path) -> None:
    root = make_voc(tmp_path, train=1, test=1)
    path = place(root) / "Annotations" / "000000.xml"
    path.write_text(
        "<annotation><size><width>96</width><height>50</height></size><object><name>person</name>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
        "<bndbox><ymax>40.5</ymax><xmax>30</xmax><xmin>11</xmin><ymin>21.5</ymin></bndbox></object></annotation>"
    )
    (item,) = read_voc(root, ["2007_trainval"]).items
    np.testing.assert_allclose(item.boxes, [[20, 9.5, 40, 29.5]])
    assert CLASSES[item.labels[0]] == "person" and not item.difficult[0]


def test_a_missing_list_is_answered_with_those_there_are(make_voc, tmp_path) -> None:
    root = make_voc(tmp_path)
    with pytest.raises(InputError, match="expected one of 2007_test, 2007_trainval"):
        read_voc(root, ["2007_train"])
    with pytest.raises(InputError, match="layout of the VOC archives"):
        find_devkit(tmp_path / "VOCdevkit" / "VOC2007")


def test_every_fault_is_counted_shown_and_handled(make_voc, tmp_path) -> None:
    root = make_voc(tmp_path)
    images = place(root) / "JPEGImages"
    (images / "000000.jpg").write_bytes((images / "000000.jpg").read_bytes()[:600])
    (images / "000001.jpg").write_bytes(b"not an image")
    shutil.copy(images / "000013.jpg", images / "000002.jpg")
    change(root, "000003", "<name>", "<name>un")
    (place(root) / "Annotations" / "000004.xml").write_text("<annotation><size>")
    text = (place(root) / "Annotations" / "000005.xml").read_text()
    start, end = text.index("<object>"), text.index("</object>") + 9
    flat = "<xmin>20</xmin><ymin>5</ymin><xmax>19</xmax><ymax>9</ymax>"
    wide = "<xmin>-30</xmin><ymin>5</ymin><xmax>19</xmax><ymax>900</ymax>"
    boxes = "".join(f"<object><name>cow</name><bndbox>{box}</bndbox></object>" for box in (flat, wide))
    (place(root) / "Annotations" / "000005.xml").write_text(text[:start] + boxes + text[end:])

    report = DataReport("early")
    train = read_voc(root, ["2007_trainval"], report=report)
    test = read_voc(root, ["2007_test"], report=report)
    assert [(one.kind, one.count, one.action) for one in report.problems] == [
        ("label cannot be read", 1, "dropped"), ("unknown class", 1, "dropped")
    ]  # fmt: skip
    left, found = check_photographs("voc", {"train": train, "test": test})
    told = {one.kind: one for one in found.problems}
    assert told["image cannot be decoded"].count == 2
    assert told["in train and test"].examples == ("VOC2007/000002",)
    assert told["box of no area"].examples == ("VOC2007/000005 box 1",)
    assert told["box beyond its image"].action == "mended"
    names = {item.name for item in left["train"].items}
    assert not names & {"VOC2007/000000", "VOC2007/000001", "VOC2007/000002"} and len(left["test"]) == 6
    (cow,) = [item for item in left["train"].items if item.name == "VOC2007/000005"]
    row = np.flatnonzero(cow.labels == CLASSES.index("cow"))
    np.testing.assert_allclose(cow.boxes[row], [[3.5, -0.5, cow.shape[0] - 0.5, 18.5]])
    assert found.counts["train"]["cow"] == 1
    assert any("in train and test: 1 dropped (VOC2007/000002)" in line for line in found.lines())
    found.require()

    refused = check_photographs("voc", {"train": train, "test": test}, faults="refuse")[1]
    with pytest.raises(InputError, match="entries, such as"):
        refused.require()


def test_a_name_stays_in_its_part_whatever_the_others_are(make_voc, tmp_path) -> None:
    items = read_voc(make_voc(tmp_path, train=60, test=1), ["2007_trainval"]).items
    parts = (("validation", 0.3), ("train", 0.7))
    found = split_by_name(items, parts)
    assert 5 < len(found["validation"]) < 30 and sum(map(len, found.values())) == 60
    few = split_by_name(items[::-3], parts)
    assert {one.name for one in few["validation"]} <= {one.name for one in found["validation"]}
    assert part_of("x", (("only", 0.5),)) == "only"


def test_the_real_reduced_set(shared_data) -> None:
    folder = shared_data / "voc"
    if not folder.is_dir():
        pytest.skip("no VOC here")
    photographs = read_voc(folder, ["2007_val"])
    assert len(photographs) == 600 and sum(len(item.boxes) for item in photographs.items) > 1400
