"""Judges of pictures: numbers against labels that are known, the same units for every network."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from models.registry import get_model
from models.training import TrainOptions
from models.weights import Card, save_weights
from pipeline.judges import compare, find_calibrator, get_judge, judge_name
from survey_io.datasets.galaxy_tree import KAGGLE_COLUMNS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shades(tmp_path):
    """Dark and bright pictures in folders of these names."""
    for k in range(60):
        name, level = ("dark", 40 + k % 20) if k % 2 else ("bright", 180 + k)
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((36, 36, 3), level, np.uint8)).save(tmp_path / "data" / name / f"{k}.png")
    return tmp_path / "data"


def answer_by_brightness(net, path, *, sign=1.0):
    """Weights whose answer is the brightness of the picture, which the first channel of the trunk carries."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.trunk[1].weight[0, :, 1, 1] = 1.0
        net.trunk[2].weight[0] = 1.0
        for block in net.trunk[4:]:
            if hasattr(block.beside, "__len__"):
                block.beside[0].weight[0, 0] = 1.0
                block.beside[1].weight[0] = 1.0
        net.answer[-1].weight[0, 0] = 8 * sign
        net.answer[-1].bias[0] = -4 * sign
    save_weights(net, Card(net.name, net.options), path)
    return path


def test_a_classifier_is_judged_by_its_test_pictures(shades, tmp_path):
    model = {"classes": ["bright", "dark"], "side": 32, "width": 4}
    options = TrainOptions(name="photographs", lesson="images", data=shades, model_options=model,
                           lesson_options={"test": 0.4})  # fmt: skip
    judge = get_judge(judge_name(options))
    weights = [
        answer_by_brightness(get_model("photographs").build(**model), tmp_path / f"{sign}.safetensors", sign=sign)
        for sign in (1, -1)
    ]
    lines = []
    good, bad = (judge(path, options, folder=tmp_path / path.stem, report=lines.append) for path in weights)
    assert good.metric == "accuracy" and good.value == 1.0 and good.numbers["balanced_accuracy"] == 1.0
    assert bad.value == 0.0 and bad.units == good.units and len(good.units) == good.numbers["examples"] > 10
    assert np.trace(good.numbers["confusion"]) == len(good.units)
    assert all(path.is_file() for path in bad.pictures) and [path.name for path in bad.pictures][-1] == "mistakes.png"
    assert compare(good, bad).better() and not compare(bad, good).better()
    assert lines[0].startswith("photographs: accuracy 1.0000")
    found = find_calibrator(options)(weights[0], options, folder=tmp_path, report=lines.append)
    assert found["score"]["accuracy"] == 1.0 and found["score"]["examples"] == len(good.units)
    # All were right: the fitted probabilities are nearer to 1.
    assert found["calibration"]["slope"][0] > 1 and (tmp_path / "1_reliability.png").is_file()


def test_votes_are_judged_against_the_mean(tmp_path):
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for k in range(60):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "images" / f"{k}.png")
        smooth = 0.9 if k % 3 else 0.2
        row = np.zeros(37)
        row[:2], row[4], row[14], row[15] = (smooth, 1 - smooth), 1 - smooth, 1, smooth
        rows.append([k, *row, ("train", "val", "test")[k % 3]])
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["GalaxyID", *KAGGLE_COLUMNS, "split"], *rows])
    model = {"side": 32, "width": 4}
    net = get_model("galaxy-votes").build(**model)
    with torch.no_grad():
        net.answer[-1].weight.zero_()
        net.answer[-1].bias.zero_()
        # Always the answers of the galaxies that are in training and validation: 0.2 and 0.9.
        net.answer[-1].bias[:3] = torch.log(torch.tensor([0.9, 0.1, 1e-9]))
    save_weights(net, Card(net.name, net.options), tmp_path / "votes.safetensors")
    options = TrainOptions(name="galaxy-votes", lesson="votes", data=folder, model_options=model)
    found = get_judge(judge_name(options))(tmp_path / "votes.safetensors", options, folder=tmp_path / "out")
    assert found.metric == "rmse37" and not found.larger_is_better and len(found.units) == 20
    # All of the test part are 0.9 smooth, all of the training part 0.2.
    assert found.numbers["rmse37_of_the_training_mean"] == pytest.approx(np.sqrt(4 * 0.7**2 / 37), rel=1e-5)
    assert found.value == pytest.approx(found.numbers["rmse37"])
    first = found.numbers["questions"][0]
    assert first["accuracy"] == 1.0 and first["count"] == 20 and first["rmse"] < 1e-4
    table = (tmp_path / "out" / "votes.csv").read_text().splitlines()
    assert table[0].startswith("GalaxyID,Class1.1") and len(table) == 21
    assert found.pictures[0].is_file()
    told = find_calibrator(options)(tmp_path / "votes.safetensors", options, folder=tmp_path / "out")
    assert told["score"]["rmse37"] == pytest.approx(found.value, abs=1e-4) and told["calibration"] == {}
    assert told["score"]["accuracy_by_question"]["smooth_or_features"] == 1.0
