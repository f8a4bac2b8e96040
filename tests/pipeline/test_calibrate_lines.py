"""Calibration of detectors of lines: probabilities that mean what they say, a threshold that keeps what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.calibrate_lines import (
    Searched,
    as_spectrum,
    calibrate_lines,
    choose_line_threshold,
    draw_spectra,
    fit_lines,
    probabilities,
    probability_curve,
)
from pipeline.reliability import Calibration
from pipeline.scorers.lines import score_lines
from survey_io.simulate.lines import LineModel, simulate_lines


def made_up(count: int = 40, seed: int = 0) -> list[Searched]:
    """Detections whose odds of being a line are exp(1.5 logit - 0.5)."""
    rng = np.random.default_rng(seed)
    searched = []
    for _ in range(count):
        z = 30.0 + 60 * np.arange(50)
        logit = rng.normal(0, 2.5, 50)
        real = rng.random(50) < 1 / (1 + np.exp(0.5 - 1.5 * logit))
        found = {
            "z": z, "width": np.full(50, 8.0), "sign": np.ones(50), "flux": np.full(50, 30.0), "logit": logit,
            "score": 1 / (1 + np.exp(-logit)),
        }  # fmt: skip
        truth = {
            "z": z[real], "width": np.full(real.sum(), 8.0), "flux": np.full(real.sum(), 30.0),
            "snr": np.full(real.sum(), 9.0), "ignore": np.zeros(real.sum(), bool),
        }  # fmt: skip
        searched.append(Searched(found, truth))
    return searched


def test_the_logistic_map_is_recovered():
    calibration = fit_lines(made_up())
    assert calibration.slope == pytest.approx(1.5, abs=0.15) and calibration.intercept == pytest.approx(-0.5, abs=0.15)
    for stated, real, rows in probability_curve(made_up(seed=1), calibration).values():
        assert stated == pytest.approx(real, abs=4 * np.sqrt(0.25 / rows))


def test_the_threshold_keeps_the_reliability():
    searched, calibration = made_up(seed=2), Calibration(slope=1.5, intercept=-0.5)
    limit = choose_line_threshold(searched, calibration)
    score = score_lines(probabilities(searched, calibration), least=5, threshold=limit)
    assert score.reliability >= 0.95 and 0.3 < limit < 0.95
    lower = score_lines(probabilities(searched, calibration), least=5, threshold=limit - 0.1)
    assert lower.reliability < score.reliability


def test_drawn_spectra_are_prepared_and_repeat():
    one, same = draw_spectra(3, 7), draw_spectra(3, 7)
    for (a, prepared), (b, _) in zip(one, same, strict=True):
        np.testing.assert_array_equal(a.flux, b.flux)
        assert prepared.channels.count == len(a.flux)
    sky = simulate_lines(LineModel(channels=500), 1)
    assert as_spectrum(sky, with_error=True).error is sky.rms and as_spectrum(sky, with_error=False).error is None


def test_a_calibration_from_end_to_end():
    said: list[str] = []
    found = calibrate_lines("line-clip", spectra=16, seed=5, report=said.append)
    assert set(found["calibration"]["reliability"]) == {"slope", "intercept"} and 0 < found["threshold"] < 1
    assert found["score"]["held_out_spectra_snr_above_5"]["lines"] > 10 and len(said) == 1
