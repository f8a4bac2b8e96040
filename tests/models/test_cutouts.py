"""Cut-outs of photographs: squares where they should be, background where nothing is, and classes that are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.classifiers.cutouts import BACKGROUND
from models.lessons import get_lesson
from models.photo_augment import MARGIN, Scene
from models.photo_cutouts import background_square, cut, square_around
from models.registry import get_model
from models.training import TrainOptions, train
from models.weights import Card, save_weights
from pipeline.judges import get_judge, judge_name
from pipeline.sliding_windows import CANVAS, SlidingFinder, window_boxes
from survey_io.datasets.voc import CLASSES
from survey_io.errors import OptionError

SMALL = {"side": 32, "widths": 0.1}


def test_a_square_is_cut_where_it_lies() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:40] = 255
    exact = cut(image, np.array([9.5, 29.5, 19.5, 39.5]), 20)
    # Interpolation softens the last pixels.
    assert exact.shape == (20, 20, 3) and exact[2:-2, 2:-2].min() > 250 and exact.min() > 120
    wide = cut(image, square_around(np.array([9.5, 29.5, 19.5, 39.5]), grow=2.0), 40)
    assert wide[12:28, 12:28].min() > 200 and wide[:8].max() < 60
    # Beyond the image it is grey, on the side where the image ends.
    corner = cut(image, np.array([-10.5, -10.5, 9.5, 9.5]), 20)
    assert (corner[:10] == MARGIN).all() and (corner[:, :10] == MARGIN).all() and corner[12:, 12:].max() == 0
    flipped = cut(image, np.array([-10.5, -10.5, 9.5, 9.5]), 20, flip=True)
    assert (flipped[:, 10:] == MARGIN).all() and flipped[12:, :8].max() == 0
    square = square_around(np.array([0.0, 0.0, 4.0, 10.0]), shift=(0.5, 0.0))
    np.testing.assert_allclose(square, [2, 0, 12, 10])


def test_background_overlaps_no_box_and_is_none_where_there_is_no_room() -> None:
    rng = np.random.default_rng(1)
    box = np.array([[10.0, 5.0, 30.0, 30.0]], np.float32)
    scene = Scene(np.zeros((50, 80, 3), np.uint8), box, np.zeros(1, int), np.zeros(1, bool))
    found = [one for one in (background_square(scene, rng) for _ in range(100)) if one is not None]
    assert len(found) > 80
    sides = set()
    for square in found:
        shared = np.minimum(square[2:], box[0, 2:]) - np.maximum(square[:2], box[0, :2])
        assert (shared <= 0).any()
        sides.add(round(float(square[2] - square[0])))
    # The whole image overlaps the box; half of it and a quarter find room.
    assert sides == {40, 20}
    full = Scene(scene.image, np.array([[-0.5, -0.5, 49.5, 79.5]], np.float32), scene.labels, scene.difficult)
    assert background_square(full, rng) is None


def test_windows_are_those_of_the_course() -> None:
    boxes = window_boxes()
    assert len(boxes) == 59 and boxes.min() == -0.5 and boxes.max() == CANVAS - 0.5
    assert [(boxes[:, 2] - boxes[:, 0] == side).sum() for side in (288, 144, 72)] == [1, 9, 49]


def test_cutouts_are_learned_judged_and_slid(make_voc, tmp_path) -> None:
    root = make_voc(tmp_path, train=40, test=8)
    options = TrainOptions(
        name="voc-cutouts-background", lesson="cutouts", data=root, output=tmp_path / "out", model_options=SMALL,
        batch=16, steps=80, save_every=80, loaders=0, precision="f32", device="cpu", warm_up=5, learning_rate=5e-3,
        ema=0.9, lesson_options={"train": ["2007_trainval"], "test": ["2007_test"], "validation_share": 0.2},
    )  # fmt: skip
    state = torch.load(train(options, report=lambda _: None), weights_only=True)
    module = get_model(options.name).build(**SMALL)
    module.load_state_dict(state["average"])
    assert (tmp_path / "out" / "step_000080.png").stat().st_size > 5000
    path = tmp_path / "cut.safetensors"
    save_weights(module, Card(model=options.name, options=module.options, threshold=0.5), path)
    found = get_judge(judge_name(options))(path, options, folder=tmp_path / "judged", report=lambda _: None)
    # Three classes of twenty occur; colours tell them apart.
    assert found.value > 0.7 and found.numbers["recall"][BACKGROUND] > 0.5
    sliding = found.numbers["sliding_windows"]
    assert 0 <= sliding["map50"] <= 1 and sliding["images_per_second"] > 0

    lesson = get_lesson("cutouts")(module, options)
    things = SlidingFinder(path, engine="torch").find(lesson.parts.test.items[0].path)
    assert len(things) and things.labels.max() < len(CLASSES)

    plain = tmp_path / "plain.safetensors"
    save_weights(get_model("voc-cutouts").build(**SMALL), Card(model="voc-cutouts", options=SMALL), plain)
    with pytest.raises(OptionError, match="voc-cutouts-background"):
        SlidingFinder(plain)


def test_the_classifier_without_background_sees_things_only(make_voc, tmp_path) -> None:
    root = make_voc(tmp_path)
    options = TrainOptions(
        name="voc-cutouts", lesson="cutouts", data=root, batch=8, model_options=SMALL,
        lesson_options={"train": ["2007_trainval"], "test": ["2007_test"], "validation_share": 0.3},
    )  # fmt: skip
    net = get_model("voc-cutouts").build(**SMALL)
    lesson = get_lesson("cutouts")(net, options)
    (image,), targets = next(iter(lesson.batches(seed=1)))
    assert image.shape == (8, 3, 32, 32) and targets["classes"].shape == (8, 20)
    seen = set(targets["classes"].argmax(dim=1).tolist())
    assert seen <= {CLASSES.index(name) for name in ("cat", "dog", "train")}
    assert "things cut out" in lesson.examples.description and "background" not in lesson.examples.description
