"""Calibration makes stated probabilities and errors come true, on examples that it was not fitted to."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.answers import AnswerCalibration, Answers, Value
from models.signature import NetworkInput
from pipeline.calibrate_classifier import calibrate_classifier, fit_calibration, score_answers, score_values
from pipeline.scorers.classification import expected_calibration_error, top_class

STARS = Answers(("A", "B", "C"), values=(Value("v", "", 0.0, 2.0),))
MANY = Answers(("x", "y", "rare"), exclusive=False)


def stars(seed, count=4000):
    """Answers three times too sure of themselves, and errors stated at half of what they are."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = (p.cumsum(1) > rng.random(count)[:, None]).argmax(1)
    value = rng.normal(size=count)
    raw = np.c_[3 * logits, value + 0.4 * rng.normal(size=count), np.full(count, np.log(0.2))]
    targets = {"classes": np.eye(3)[true], "values": value[:, None], "value_weight": np.ones((count, 1))}
    return raw, targets


def test_temperature_and_errors():
    calibration = fit_calibration(*stars(1), STARS)
    assert calibration.slope == pytest.approx((1 / 3,), rel=0.1)
    assert calibration.error_scale == pytest.approx((2.0,), rel=0.1)
    raw, targets = stars(2)
    found = score_answers(raw, targets, STARS, calibration)
    plain = score_answers(raw, targets, STARS, AnswerCalibration())
    assert found["calibration_error"] < 0.03 < plain["calibration_error"]
    assert found["accuracy"] == plain["accuracy"]
    assert found["v"]["within_1_sigma"] == pytest.approx(0.683, abs=0.03)
    # Scatter is in the value's own unit.
    assert found["v"]["scatter"] == pytest.approx(0.8, rel=0.1)
    right, stated = top_class(targets["classes"].argmax(1), calibration.probability(raw, STARS))
    assert expected_calibration_error(right, stated, bins=10) == pytest.approx(found["calibration_error"], abs=1e-4)


def test_each_of_several_classes_is_fitted_and_rare_ones_together():
    def draw(seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(3000, 3)) * 2 + [0, 0, -9]
        true = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        raw = np.c_[logits[:, 0] * 2, logits[:, 1] + 1.5, logits[:, 2]]
        keep = rng.random(logits.shape) < 0.8
        # What is not to be judged is labelled wrongly.
        return raw, {"classes": np.where(keep, true, ~true).astype(float), "class_weight": keep.astype(float)}

    calibration = fit_calibration(*draw(1), MANY)
    assert calibration.slope[:2] == pytest.approx((0.5, 1.0), rel=0.15)
    assert calibration.intercept[:2] == pytest.approx((0.0, -1.5), abs=0.2)
    assert calibration.slope[2] != 1.0
    raw, targets = draw(2)
    assert score_answers(raw, targets, MANY, calibration)["calibration_error"] < 0.02
    assert score_answers(raw, targets, MANY, AnswerCalibration())["calibration_error"] > 0.04


def test_values_without_labels_are_left_out():
    raw, targets = stars(3, 10)
    targets["value_weight"][:] = 0
    assert score_values(raw, targets, STARS, AnswerCalibration()) == {}
    assert fit_calibration(raw, targets, STARS).error_scale == (1.0,)


class Echo(torch.nn.Module):
    """A network that answers what it is given."""

    name = "echo"

    def __init__(self, answers):
        super().__init__()
        self.answers, self.inputs = answers, (NetworkInput("spectrum", (answers.outputs,)),)

    def forward(self, spectrum):
        return spectrum


@pytest.mark.parametrize(("answers", "exclusive"), [(STARS, True), (MANY, False)])
def test_report_draws_the_reliability_diagram(tmp_path, answers, exclusive):
    raw, targets = stars(4, 400)
    if not exclusive:
        raw = raw[:, :3]
        targets = {"classes": targets["classes"], "class_weight": np.ones_like(targets["classes"])}
    examples = SimpleNamespace(fixed=lambda part: ((raw,), targets))
    lines = []
    picture = tmp_path / "r.png"
    found = calibrate_classifier(Echo(answers), examples, engine="torch", report=lines.append, picture=picture)
    assert found["calibration"] and found["score"]["examples"] == 400 and len(lines) == 1
    assert picture.stat().st_size > 5000
