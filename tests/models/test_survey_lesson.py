"""The lesson of surveys: options, data check, and a short training from end to end."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.lessons.survey import SurveyLesson, survey_options
from models.registry import get_model
from models.training import TrainOptions, make_lesson, train
from models.weights import Card, save_weights
from survey_io.datasets.sky_split import TEST, TRAIN
from survey_io.errors import InputError, OptionError

SMALL = {"stem": 4, "width": 8, "wide": 8, "dilations": [1]}


def recipe(data: Path | None, output: Path = Path("unused"), *, own: dict | None = None, **changes) -> TrainOptions:
    values = {
        "lesson": "survey", "data": data, "output": output, "steps": 6, "batch": 2, "size": 64, "precision": "f32",
        "loaders": 0, "save_every": 3, "picture_every": 1000, "warm_up": 2, "device": "cpu", "model_options": SMALL,
        "lesson_options": own or {},
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def lesson(data: Path, **changes) -> SurveyLesson:
    options = recipe(data, **changes)
    return make_lesson(get_model(options.name).build(**options.model_options), options)


def test_parts_and_visibility(small_survey: Path) -> None:
    made = lesson(small_survey)
    report = made.check()
    assert set(report.counts["sky"]) == {"guard", "train", "validation", "test"}
    assert all(count > 5 for count in report.counts["sky"].values())
    # What a threshold finds in this sky: half of the lone sources at an S/N between 3 and 8.
    assert 3 < made.visibility.snr_at(0.5) < 8
    parts = made.splits[0].part_at(made.images[0].sources.y, made.images[0].sources.x)
    sky = made.parts[TRAIN][0]
    tested = made.images[0].sources[parts == TEST]
    y, x = np.rint(tested.y).astype(int), np.rint(tested.x).astype(int)
    assert not sky.usable[np.clip(y, 0, 459), np.clip(x, 0, 149)].any()
    assert "sky.fits" in made.description and "fold 0 of 3" in made.description
    first, second = made.held_out()[0], made.held_out()[0]
    assert torch.equal(first[0], second[0]) and (first[2] >= 0).any()


def test_a_warm_start_from_weights_learns(small_survey: Path, tmp_path: Path) -> None:
    net = get_model("light").build(**SMALL)
    save_weights(net, Card("light", SMALL), tmp_path / "start.safetensors")
    options = recipe(small_survey, tmp_path / "run", start=tmp_path / "start.safetensors", learning_rate=3e-3)
    state = torch.load(train(options, report=lambda _: None), weights_only=True)
    assert state["step"] == 6 and np.isfinite(state["history"][-1]["loss"])
    assert any(not torch.equal(state["model"][name], value) for name, value in net.state_dict().items())
    assert (tmp_path / "run" / "step_000006.png").stat().st_size > 1000
    assert state["history"][-1]["loss"] < state["history"][0]["loss"]


def test_wrong_options_are_refused(small_survey: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown lesson option of 'survey' 'fodl'.*fold"):
        survey_options(recipe(small_survey, own={"fodl": 1}))
    with pytest.raises(OptionError, match="ignored must not be above demanded"):
        survey_options(recipe(small_survey, own={"ignored": 0.9}))
    with pytest.raises(OptionError, match="give --data DIR"):
        lesson(None)
    with pytest.raises(OptionError, match="detectors of images"):
        lesson(small_survey, name="light3d", model_options={})
    with pytest.raises(OptionError, match="too few for 9 folds"):
        lesson(small_survey, own={"folds": 9, "guard": 230})
    with pytest.raises(InputError, match="SDC1 as published"):
        lesson(small_survey, lesson="sdc1")


def test_one_sky_in_two_images_must_not_be_trained_on_and_tested(small_survey: Path, tmp_path: Path) -> None:
    """The second image is the first one turned upside down: its test part is the other's training part."""
    from astropy.io import fits

    for name in ("sky.fits", "sky_truth.ecsv"):
        shutil.copy(small_survey / name, tmp_path / name)
    data, header = fits.getdata(tmp_path / "sky.fits", header=True)
    header["CDELT2"] = -header["CDELT2"]
    fits.writeto(tmp_path / "turned.fits", data[::-1], header)
    shutil.copy(tmp_path / "sky_truth.ecsv", tmp_path / "turned_truth.ecsv")
    with pytest.raises(InputError, match="trained on in one image and reported on in another"):
        lesson(tmp_path)
