"""The lesson of things on photographs: its parts, its targets, its batches by number, and that it is learned."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.lessons import get_lesson
from models.lessons.boxes import make_batch
from models.photo_augment import Scene
from models.registry import get_model
from models.training import TrainOptions, train
from models.yolo.assign import BACKGROUND, IGNORED
from models.yolo.photographs import decode_photographs
from survey_io.datasets.voc import CLASSES
from survey_io.errors import OptionError

PRIORS = [[24.0, 24.0], [16.0, 40.0]]
SMALL = {"priors": PRIORS, "size": 96, "widths": 0.25, "dropout": 0.0}


def options(root, output, **changes) -> TrainOptions:
    values = {
        "name": "voc-yolo-light", "lesson": "boxes", "data": root, "output": output, "model_options": SMALL, "batch": 4,
        "steps": 4, "save_every": 4, "loaders": 0, "precision": "f32", "device": "cpu", "warm_up": 2,
        "lesson_options": {"train": ["2007_trainval"], "test": ["2007_test"], "validation_share": 0.3},
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def build(settings: TrainOptions):
    net = get_model(settings.name).build(**settings.model_options)
    return net, get_lesson("boxes")(net, settings)


def test_targets_say_what_the_head_would_have_to_answer(make_voc, tmp_path) -> None:
    _, lesson = build(options(make_voc(tmp_path), tmp_path / "out"))
    head = lesson.head
    batch = next(iter(lesson.batches(seed=3)))
    images, assigned, targets = batch
    assert images.shape == (4, 3, 96, 96) and images.dtype == torch.uint8
    assert assigned.shape == (4, 2, 3, 3) and assigned.min() >= IGNORED
    # Where two things claim the same boxes of the grid, one may be left without.
    answered = set(assigned[assigned >= 0].unique().tolist())
    assert answered <= set(range(len(targets["centre"]))) and len(answered) > 0.7 * len(targets["centre"])
    # Written into a raw map, the targets come back as boxes.
    values = torch.full((4, 2, head.box_channels, 3, 3), -9.0)
    values[:, :, head.slot("classes")] = -9.0
    anchors = torch.from_numpy(head.anchor_positions((3, 3)))
    for image, prior, y, x in torch.nonzero(assigned >= 0).tolist():
        row = assigned[image, prior, y, x]
        cell = values[image, prior, :, y, x]
        cell[head.slot("offset")] = (targets["centre"][row] - anchors[prior, y, x]) / 32
        cell[head.slot("size")] = torch.log(targets["size"][row] / torch.tensor(PRIORS[prior]))
        cell[[head.slot("presence").start, head.slot("objectness").start]] = 9.0
        cell[head.slot("classes")] = 18 * targets["classes"][row] - 9
    for image in range(4):
        found = decode_photographs(values[image].reshape(-1, 3, 3).numpy(), head, least=0.5)
        rows = assigned[image][assigned[image] >= 0].unique()
        centre, size = targets["centre"][rows].numpy(), targets["size"][rows].numpy()
        true = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        order, said = np.lexsort(true.T), np.lexsort(np.round(found.boxes, 3).T)
        np.testing.assert_allclose(found.boxes[said], true[order], atol=1e-3)
        np.testing.assert_array_equal(found.labels[said], targets["classes"][rows].argmax(dim=1).numpy()[order])


def test_difficult_boxes_are_neither_demanded_nor_punished(make_voc, tmp_path) -> None:
    net, _ = build(options(make_voc(tmp_path), tmp_path / "out"))
    image = np.zeros((96, 96, 3), np.uint8)
    box = np.array([[20, 20, 44, 44], [60, 60, 84, 84]], np.float32)
    scene = Scene(image, box, np.array([7, 7]), np.array([True, False]))
    _, assigned, targets = make_batch([scene, replace(scene, difficult=np.array([False, False]))], net.head)
    assert len(targets["centre"]) == 3
    assert assigned[0, 0, 1, 1] == IGNORED and assigned[0, 0, 2, 2] == 0
    assert assigned[1, 0, 1, 1] == 1 and assigned[1, 0, 2, 2] == 2
    assert assigned[0, 0, 0, 2] == BACKGROUND


def test_batches_depend_on_seed_and_number_only(make_voc, tmp_path) -> None:
    _, lesson = build(options(make_voc(tmp_path), tmp_path / "out"))
    row = iter(lesson.batches(seed=5))
    some = [next(row) for _ in range(4)]
    later = next(iter(lesson.batches(seed=5, first=3)))
    assert torch.equal(some[3][0], later[0]) and torch.equal(some[3][1], later[1])
    assert not torch.equal(some[0][0], next(iter(lesson.batches(seed=6)))[0])


def test_parts_are_disjoint_and_canvases_grow(make_voc, tmp_path) -> None:
    settings = options(make_voc(tmp_path), tmp_path / "out", steps=100)
    own = {**settings.lesson_options, "first_size": 32}
    _, lesson = build(settings.model_copy(update={"lesson_options": own}))
    names = [{item.name for item in part.items} for part in (lesson.parts.train, lesson.parts.validation)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 12 and names[1]
    sizes = [lesson.size_of(k) for k in range(101)]
    assert sizes[0] == 32 and sizes[-1] == 96 and sizes == sorted(sizes) and sizes[70] == 96
    twice = settings.model_copy(update={"lesson_options": own, "accumulate": 2})
    assert [build(twice)[1].size_of(k) for k in (2 * 35, 2 * 70)] == [sizes[35], 96]
    assert lesson.check().counts["train"].keys() == set(CLASSES)


def test_unknown_options_and_missing_data_are_one_line(make_voc, tmp_path) -> None:
    settings = options(make_voc(tmp_path), tmp_path / "out")
    with pytest.raises(OptionError, match="did you mean 'mosaic'"):
        build(settings.model_copy(update={"lesson_options": {"mosiac": 1}}))
    with pytest.raises(OptionError, match="--data"):
        build(settings.model_copy(update={"data": None}))[1].check()
    other = settings.model_copy(update={"model_options": {**SMALL, "classes": ["cat", "dog"]}})
    with pytest.raises(OptionError, match=r"20 classes .* answers with 2 \(cat, dog"):
        build(other)[1].check()


def test_shapes_are_learned(make_voc, tmp_path) -> None:
    root = make_voc(tmp_path, train=40, test=4)
    settings = options(root, tmp_path / "out", steps=120, save_every=60, batch=8, learning_rate=4e-3, ema=0.9)
    state = torch.load(train(settings, report=lambda _: None), weights_only=True)
    first, last = state["history"]
    assert last["loss"] < first["loss"]
    assert (tmp_path / "out" / "step_000120.png").stat().st_size > 5000
    assert json.loads((tmp_path / "out" / "history.json").read_text())[-1]["step"] == 120
