"""Calibration and judgement of a network on a survey: nothing of the test part enters what is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from models.train_options import TrainOptions
from models.weights import load_weights, save_weights
from pipeline.calibrate_survey import calibrate_survey, choose_threshold, fit_scales, with_truth
from pipeline.catalogue import recommend
from pipeline.detect import analyse
from pipeline.judges import compare, get_judge
from pipeline.options import DetectOptions
from pipeline.survey_score import find_sources
from survey_io.datasets.sky_split import TEST, split_sky
from survey_io.datasets.survey import find_survey, open_survey_image


def recipe(data: Path, **own) -> TrainOptions:
    return TrainOptions(lesson="survey", data=data, lesson_options={"block": 60, "guard": 30, **own})


def test_a_calibration_and_its_judgement(small_survey: Path, tmp_path: Path) -> None:
    options = recipe(small_survey)
    found = calibrate_survey("light", options, report=lambda _: None)
    assert 0.3 <= found["threshold"] <= 0.95
    assert {"reliability", "fit_from", "flux_weight", "scale"} <= set(found["calibration"])
    numbers = found["score"]["survey_validation"]
    assert numbers["rows"] >= numbers["matched"] > 5
    module, card = load_weights("light")
    path = tmp_path / "own.safetensors"
    save_weights(module, replace(card, threshold=found["threshold"], calibration=found["calibration"]), path)
    judge = get_judge("survey")
    old = judge("light", options, folder=tmp_path, report=lambda _: None)
    new = judge(str(path), options, folder=tmp_path, report=lambda _: None)
    assert new.metric == "survey score" and new.units == old.units and len(new.units) > 5
    assert new.value == pytest.approx(new.numbers["score"], abs=0.01) and new.value > 5
    assert new.score(np.arange(3)) + new.score(np.arange(3, len(new.units))) == pytest.approx(new.value)
    found = compare(new, old)
    assert found.gain == pytest.approx(new.value - old.value) and 0 < found.error < new.value
    assert (tmp_path / "own_survey.json").is_file()


def test_nothing_of_the_test_part_is_chosen_by(small_survey: Path, tmp_path: Path) -> None:
    """A truth that is spoilt in the test part gives the same calibration."""
    options = recipe(small_survey)
    first = calibrate_survey("light", options, report=lambda _: None)
    image = open_survey_image(find_survey(small_survey)[0])
    split = split_sky(image.area, fold=0, folds=3, guard=30, validation=0.2)
    s = image.sources
    tested = np.zeros(len(image.truth), bool)
    tested[s.row[split.part_at(s.y, s.x) == TEST]] = True
    table = image.truth.table.copy()
    # Far enough from the border that no source beyond it can take a match over it.
    deep = np.zeros(len(table), bool)
    deep[s.row[s.y < split.edges[1] - 8]] = True
    table["flux"][tested & deep] *= 0.01
    folder = tmp_path / "spoilt"
    folder.mkdir()
    for name in ("sky.fits", "sky_primary_beam.fits"):
        (folder / name).symlink_to(small_survey / name)
    table.write(folder / "sky_truth.ecsv")
    second = calibrate_survey("light", recipe(folder), report=lambda _: None)
    assert second["threshold"] == first["threshold"] and second["calibration"] == first["calibration"]


def test_factors_make_the_median_right_or_earn_most() -> None:
    rng = np.random.default_rng(1)
    truth = np.exp(rng.normal(0, 1, 4000))
    table = Table({"real": np.ones(4000, bool), "snr": np.full(4000, 30.0), "true_flux": truth, "true_maj": truth})
    table["flux"] = truth / 1.2 * np.exp(rng.normal(0, 0.05, 4000))
    table["maj_net"] = truth * 1.4 * np.exp(rng.normal(0, 0.6, 4000))
    median = fit_scales(table, exact=False)
    assert median["flux"] == pytest.approx(1.2, rel=0.02) and median["maj_net"] == pytest.approx(1 / 1.4, rel=0.05)
    earned = fit_scales(table, exact=True)
    # With a wide scatter too little costs less than too much.
    assert earned["flux"] == pytest.approx(1.2, rel=0.05) and earned["maj_net"] < 0.95 * median["maj_net"]
    assert fit_scales(table[:10], exact=False) == {}


def test_factors_reach_the_recommended_columns(small_survey: Path) -> None:
    image = open_survey_image(find_survey(small_survey)[0])
    table = find_sources(image, "light", threshold=0.5).table
    calibration = {"flux_weight": {"snr": [1.0, 1e4], "weight": [1.0, 1.0]}, "scale": {"flux": 1.5, "maj_net": 0.5}}
    calibration["fit_from"] = {"major": 1e9, "minor": 1e9, "angle": 1e9}
    changed = recommend(table, calibration)
    good = np.asarray(table["flags"]) == 0
    np.testing.assert_allclose(changed["flux_best"][good], 1.5 * table["flux"][good], rtol=1e-5)
    np.testing.assert_allclose(changed["maj_best"], 0.5 * table["maj_net"], rtol=1e-5)
    assert (changed["min_best"] <= changed["maj_best"] * (1 + 1e-6)).all()
    # What was measured stays.
    np.testing.assert_array_equal(changed["flux"], table["flux"])


def test_recommending_again_gives_what_detection_recommended(small_survey: Path) -> None:
    image = open_survey_image(find_survey(small_survey)[0])
    table = analyse(image.observation, DetectOptions(model="light", threshold=0.5)).table
    _, card = load_weights("light")
    again = recommend(table, card.calibration)
    for name in ("flux_best", "maj_best", "min_best", "pa_best"):
        np.testing.assert_allclose(again[name], table[name], rtol=1e-5)


def test_the_threshold_follows_the_matches(small_survey: Path) -> None:
    """Where stated probabilities are too high, the threshold rises; where they are too low, it falls."""
    image = open_survey_image(find_survey(small_survey)[0])
    split = split_sky(image.area, fold=1, folds=3, guard=20, validation=0.5)
    table = with_truth(find_sources(image, "light", threshold=0.0).table, image)
    _, card = load_weights("light")
    chosen = []
    for turn in (-1.5, 0.0, 1.5):
        moved = table.copy()
        odds = np.log(np.clip(table["p_real"], 1e-6, 1 - 1e-6) / (1 - np.clip(table["p_real"], 1e-6, 1 - 1e-6))) + turn
        moved["p_real"] = 1 / (1 + np.exp(-odds))
        chosen.append(choose_threshold([moved], [image], [split], card.calibration, side=60, exact=False)[0])
    assert chosen[0] < chosen[1] < chosen[2]
