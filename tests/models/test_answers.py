"""Answers mean what they say: probabilities, values and errors, there and back."""

import numpy as np
import pytest
import torch

from models.answers import AnswerCalibration, Answers, Value
from models.classifier_lesson import answer_loss

STARS = Answers(("A", "B", "C"), values=(Value("teff", "K", 3.75, 0.15, logarithmic=True), Value("logg", "", 3.0, 1.2)))
MANY = Answers(("x", "y"), exclusive=False)


def test_values_come_back_with_their_errors():
    raw = np.zeros((2, STARS.outputs))
    raw[:, 3] = STARS.values[0].encode(np.array([5000.0, 9000.0]))
    raw[:, 4] = STARS.values[1].encode(np.array([4.4, 2.0]))
    raw[:, 5:] = np.log(0.1)
    found = AnswerCalibration(error_scale=(1.0, 2.0)).values(raw, STARS)
    np.testing.assert_allclose(found["teff"][0], [5000, 9000])
    # A tenth of 0.15 dex, in K.
    np.testing.assert_allclose(found["teff"][1], np.array([5000, 9000]) * 0.015 * np.log(10))
    np.testing.assert_allclose(found["logg"], [[4.4, 2.0], [0.24, 0.24]])


def test_probabilities_of_exclusive_classes_sum_to_one_and_soften_with_temperature():
    raw = np.random.default_rng(0).normal(size=(5, STARS.outputs)) * 5
    sharp = AnswerCalibration().probability(raw, STARS)
    soft = AnswerCalibration(slope=(0.2,)).probability(raw, STARS)
    np.testing.assert_allclose(sharp.sum(1), 1)
    np.testing.assert_allclose(soft.sum(1), 1)
    assert (soft.max(1) < sharp.max(1)).all() and (soft.argmax(1) == sharp.argmax(1)).all()


def test_each_class_of_several_has_its_own_map():
    calibration = AnswerCalibration.from_card(AnswerCalibration((2.0, 1.0), (0.0, -1.0)).for_card())
    np.testing.assert_allclose(
        calibration.probability(np.array([[1.0, 1.0]]), MANY), [[1 / (1 + np.exp(-2.0)), 0.5]]
    )


def test_loss_is_least_at_the_truth_and_ignores_what_has_no_weight():
    targets = {
        "classes": torch.eye(3), "values": torch.tensor([[0.5, 1.0], [9e9, 0.0], [0.0, -1.0]]),
        "value_weight": torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),
    }  # fmt: skip
    raw = torch.cat([10 * torch.eye(3), torch.nan_to_num(targets["values"]), torch.full((3, 2), -2.0)], 1)
    raw[1, 3] = 0.0
    good, parts = answer_loss(raw, targets, STARS)
    worse = raw.clone()
    worse[0, 4] += 1
    assert answer_loss(worse, targets, STARS)[0] > good
    ignored = raw.clone()
    ignored[1, 3] += 5
    assert float(answer_loss(ignored, targets, STARS)[0]) == pytest.approx(float(good))
    assert parts["values"] == pytest.approx(-2.0)


def test_several_classes_at_once_leave_out_what_is_neither_demanded_nor_punished():
    targets = {"classes": torch.tensor([[1.0, 0.0]]), "class_weight": torch.tensor([[1.0, 0.0]])}
    one = answer_loss(torch.tensor([[3.0, -7.0]]), targets, MANY)[0]
    other = answer_loss(torch.tensor([[3.0, 7.0]]), targets, MANY)[0]
    assert float(one) == pytest.approx(float(other)) == pytest.approx(np.log1p(np.exp(-3.0)), rel=1e-5)
