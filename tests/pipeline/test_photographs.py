"""Detectors of things on photographs from weights to the score: canvas and back, calibration, judge."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.lessons import get_lesson
from models.registry import get_model
from models.training import TrainOptions, train
from models.weights import Card, load_weights, save_weights
from pipeline.calibrate_photographs import even_odds
from pipeline.judges import compare, find_calibrator, get_judge, judge_name
from pipeline.photographs import PhotographFinder
from pipeline.scorers.average_precision import FoundBoxes, TrueBoxes, VocMatches

SMALL = {"priors": [[24.0, 24.0], [16.0, 40.0]], "size": 96, "widths": 0.25, "dropout": 0.0}


@pytest.fixture(scope="module")
def trained(make_voc, tmp_path_factory):
    """A small detector that was trained for some seconds on shapes, and its recipe."""
    root = make_voc(tmp_path_factory.mktemp("voc"), train=48, test=20)
    options = TrainOptions(
        name="voc-yolo-light", lesson="boxes", data=root, output=root / "out", model_options=SMALL, batch=8, steps=300,
        save_every=300, loaders=0, precision="f32", device="cpu", warm_up=5, learning_rate=5e-3, ema=0.9,
        lesson_options={"test": ["2007_test"], "train": ["2007_trainval"], "validation_share": 0.2, "mosaic": 0.0},
    )  # fmt: skip
    state = torch.load(train(options, report=lambda _: None), weights_only=True)
    module = get_model(options.name).build(**SMALL)
    module.load_state_dict(state["average"])
    path = root / "shapes.safetensors"
    save_weights(module, Card(model="voc-yolo-light", options=SMALL, threshold=0.3), path)
    return path, options


def test_things_are_found_where_they_are_on_images_of_any_shape(trained) -> None:
    path, options = trained
    finder = PhotographFinder(path, engine="torch")
    module, _ = load_weights(path)
    items = get_lesson("boxes")(module, options).parts.test.items
    hits = total = 0
    for item in items:
        found = finder.find(item.path)
        assert (np.diff(found.scores) <= 0).all()
        height, width = item.shape
        assert (found.boxes[:, :2] >= -0.5).all() and (found.boxes[:, 2:] <= [height - 0.5, width - 0.5]).all()
        sure = found.scores > 0.2
        for box, label in zip(item.boxes, item.labels, strict=True):
            total += 1
            same = found.boxes[sure & (found.labels == label)]
            near = np.abs(same - box).max(axis=1) if len(same) else np.array([99.0])
            hits += near.min() < 12
    finder.close()
    assert hits > 0.3 * total


def test_calibration_and_judge_tell_the_same_story_of_other_images(trained, tmp_path) -> None:
    path, options = trained
    _, card = load_weights(path)
    lines: list[str] = []
    found = find_calibrator(options)(path, options, folder=tmp_path, report=lines.append)
    assert 0 < found["threshold"] < 1 and set(found["calibration"]) == {"overlap", "quality"}
    assert found["score"]["validation_map50"] > 0.15 and len(lines) == 1

    judge = get_judge(judge_name(options))
    good = judge(path, options, folder=tmp_path / "good", report=lines.append)
    assert good.metric == "mAP50" and good.value > 0.15 and 0 < good.error() < 0.3 and len(good.units) == 20
    written = json.loads((tmp_path / "good" / "average_precision.json").read_text())
    assert written["map50"] == pytest.approx(good.value) and written["coco"]["AP50"] > 0.1
    assert all(one.stat().st_size > 5000 for one in good.pictures)

    # Weights that know nothing are worse beyond the error.
    torch.manual_seed(0)
    blank = tmp_path / "blank.safetensors"
    save_weights(get_model("voc-yolo-light").build(**SMALL), card, blank)
    bad = judge(blank, options, folder=tmp_path / "bad", report=lines.append)
    assert compare(good, bad).better() and not compare(bad, good).better()


def test_even_odds_is_where_half_are_right() -> None:
    box = np.array([[0, 0, 10, 10]], float)
    true = [TrueBoxes(box, np.zeros(1, int), np.zeros(1, bool))] * 4
    right = [FoundBoxes(box, np.array([score]), np.zeros(1, int)) for score in (0.9, 0.8)]
    wrong = [FoundBoxes(box + 50, np.array([score]), np.zeros(1, int)) for score in (0.7, 0.6)]
    assert even_odds(VocMatches(right + wrong, true, 1), 1) == 0.6
    assert even_odds(VocMatches(wrong + wrong, true, 1), 1) == 0.5
