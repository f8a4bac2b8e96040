"""Judges by name, what is kept of an evaluation, and comparisons that hold only on the same units."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.lessons import list_lessons
from models.registry import get_model, list_models
from models.train_options import TrainOptions
from pipeline.judges import (
    Evaluation,
    Judged,
    compare,
    default_name,
    find_calibrator,
    judge_name,
    judge_with,
    list_judges,
)
from survey_io.errors import OptionError


def evaluation(values: list[float], *, metric: str = "accuracy", larger: bool = True, first: int = 0) -> Evaluation:
    array = np.array(values)
    units = tuple(f"unit {first + i}" for i in range(len(array)))
    return Evaluation(metric, units, lambda rows: float(array[rows].mean()), larger_is_better=larger)


def test_every_lesson_and_every_trainable_model_of_the_sky_has_a_judge() -> None:
    assert set(list_lessons()) <= set(list_judges())
    for name in list_models():
        entry = get_model(name)
        if entry.has_weights and entry.reads != "photograph":
            assert default_name(name) in list_judges()
            assert find_calibrator(TrainOptions(name=name)) is not None
    assert judge_name(TrainOptions(name="sdc1")) == "default:detector2d"
    assert judge_name(TrainOptions(name="sdc1", lesson="survey")) == "survey"


def test_what_is_kept_compares_as_the_evaluation_does() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(0.5, 0.1, 60), rng.normal(0.6, 0.1, 60)
    one, other = evaluation(list(new)), evaluation(list(old))
    read = Judged.from_dict(json.loads(json.dumps(one.judged().to_dict(), allow_nan=False)))
    assert read == one.judged()
    found = compare(read, other)
    assert found == compare(one, other) and found.better() and not found.better(sigma=1e3)
    assert found.gain == pytest.approx(new.mean() - old.mean())
    # Of means over units the error is known: that of the mean difference.
    assert found.error == pytest.approx(np.std(new - old) / np.sqrt(60), rel=0.2)
    assert read.error == pytest.approx(np.std(new) / np.sqrt(60), rel=0.2)
    smaller = compare(evaluation(list(new), larger=False), evaluation(list(old), larger=False))
    assert smaller.gain == pytest.approx(-found.gain) and not smaller.better()


@pytest.mark.parametrize(
    "other", [evaluation([1.0, 2.0], metric="rmse"), evaluation([1.0, 2.0], first=1), evaluation([1.0, 2.0, 3.0]),
              evaluation([1.0, 2.0], larger=False)],
)  # fmt: skip
def test_different_units_are_not_compared(other: Evaluation) -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        compare(evaluation([1.0, 2.0]), other)


def test_values_that_are_no_numbers_are_kept() -> None:
    kept = evaluation([float("nan"), 1.0]).judged(draws=20)
    values = kept.to_dict()
    json.dumps(values, allow_nan=False)
    assert values["value"] is None and np.isnan(Judged.from_dict(values).value)


def test_equal_weights_are_no_gain() -> None:
    assert not compare(evaluation([1.0, 2.0]), evaluation([1.0, 2.0])).better(sigma=0)


def test_lines_are_judged_on_spectra_of_their_own(tmp_path: Path) -> None:
    found = judge_with("lines", TrainOptions(name="lines"), {"spectra": 24}, folder=tmp_path, report=lambda _: None)
    assert found.metric == "f1" and len(found.units) == 24 and found.value > 0.6
    assert found.numbers["reliability"] > 0.8 and found.score(np.arange(12)) != found.score(np.arange(12, 24))
    with pytest.raises(OptionError, match="judge option of 'default:detector1d' 'spectre'.*did you mean 'spectra'"):
        judge_with("lines", TrainOptions(name="lines"), {"spectre": 1}, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given", "metric"),
    [
        ("light", {"skies": 1, "size": 384}, "sdc1_score_per_source"),
        ("light3d", {"cubes": 1, "channels": 96, "side": 64}, "sdc2_score_per_galaxy"),
    ],
)  # fmt: skip
def test_the_shipped_detectors_are_judged(tmp_path: Path, name: str, given: dict, metric: str) -> None:
    found = judge_with(name, TrainOptions(name=name), given, folder=tmp_path, report=lambda _: None)
    assert found.metric == metric and 0.3 < found.value < 1
