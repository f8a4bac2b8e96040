"""Probabilities and their correction by what is found in the negated image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reliability import COUNTED, LIKELY, Calibration, ImageReliability, count_above, fit_shift

PLAIN = Calibration(confusion=0.0)


def fit(
    logit: np.ndarray, negative: np.ndarray, calibration: Calibration = PLAIN, *, searched=1.0, beams=1e5
) -> ImageReliability:
    return fit_shift(logit, negative, searched, beams, calibration)


def catalogue(rng: np.random.Generator, *, real: int = 2000, false: int = 400) -> np.ndarray:
    return np.concatenate([rng.normal(4.5, 1.5, real), rng.normal(-0.5, 1.0, false)])


def test_probability_is_the_logistic_of_the_odds() -> None:
    assert Calibration().probability(np.array([0.0, np.log(3.0)])) == pytest.approx([0.5, 0.75])
    bent = Calibration(slope=2.0, intercept=-1.0)
    assert bent.probability(0.5) == pytest.approx(0.5)
    assert bent.probability(0.5, shift=np.log(3.0)) == pytest.approx(0.75)
    assert np.isfinite(Calibration().probability(np.array([-1e9, 1e9]))).all()


def test_as_many_negatives_as_expected_ask_for_no_shift() -> None:
    logit = catalogue(np.random.default_rng(0))
    expected = fit(logit, np.empty(0)).expected
    got = fit(logit, np.full(round(expected), 1.0))
    assert got.negatives == round(expected) and abs(got.shift) < 0.05


def test_more_negatives_make_detections_less_probable() -> None:
    logit = catalogue(np.random.default_rng(1))
    shifts = [fit(logit, np.full(n, 2.0)).shift for n in (0, 20, 60, 150, 400, 900)]
    assert all(a > b for a, b in zip(shifts, shifts[1:], strict=False))
    assert shifts[0] > 0.2 and shifts[-1] < -0.5


def test_the_shift_makes_expected_and_found_false_detections_meet() -> None:
    logit = catalogue(np.random.default_rng(2))
    wide = Calibration(shift_width=50.0, confusion=0.0)
    got = fit(logit, np.full(500, 2.0), wide)
    counted = logit[wide.probability(logit) > COUNTED]
    assert (1 - wide.probability(counted, got.shift)).sum() == pytest.approx(500, rel=0.03)


def test_few_negatives_hardly_move_it_and_a_narrow_prior_holds_it() -> None:
    logit = catalogue(np.random.default_rng(3), real=20, false=6)
    few = fit(logit, np.full(10, 2.0))
    many = fit(np.tile(logit, 100), np.full(1000, 2.0))
    assert many.shift < few.shift < 0
    narrow = fit(logit, np.full(10, 2.0), Calibration(shift_width=0.05, confusion=0.0))
    assert abs(narrow.shift) < 0.05


def test_negatives_below_what_is_counted_do_not_count() -> None:
    logit = catalogue(np.random.default_rng(4))
    assert fit(logit, np.full(500, -4.0)).negatives == 0


@given(st.floats(-3, 2), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_a_rounding_error_moves_no_image(place: float, others: int, seed: int) -> None:
    """Wherever a detection lies: another engine's or precision's answer is never a detection more or less."""
    rng = np.random.default_rng(seed)
    logit, negative = catalogue(rng, real=200, false=40), np.append(np.full(others, 1.0), place)
    moved = fit(logit + rng.normal(0, 1e-3, len(logit)), negative + 1e-3).shift
    assert moved == pytest.approx(fit(logit, negative).shift, abs=2e-3)


def test_what_counts_fades_in_around_the_limit() -> None:
    odds = np.log(COUNTED / (1 - COUNTED)) + np.array([-9.0, -1.0, 0.0, 1.0, 9.0])
    assert count_above(odds, COUNTED) == pytest.approx([0, 0, 0.5, 1, 1])
    assert (np.diff(count_above(np.linspace(-4, 4, 100), COUNTED)) >= 0).all()


def test_searched_area_and_share_of_noise_scale_what_is_expected() -> None:
    logit = catalogue(np.random.default_rng(5))
    full = fit(logit, np.empty(0)).expected
    assert fit(logit, np.empty(0), searched=0.25).expected == pytest.approx(full / 4)
    assert fit(logit, np.empty(0), Calibration(noise_share=0.3, confusion=0.0)).expected == pytest.approx(0.3 * full)
    counted = logit[Calibration().probability(logit) > COUNTED]
    assert full == pytest.approx((1 - Calibration().probability(counted)).sum(), rel=0.01)


@pytest.mark.parametrize("logit", [np.empty(0), np.array([-9.0]), np.array([1.0]), np.full(50, 3.0)])
def test_few_or_no_detections_are_no_trouble(logit: np.ndarray) -> None:
    for negative in (np.empty(0), np.array([2.0, 2.0])):
        got = fit(logit, negative, searched=0.5)
        assert np.isfinite(got.shift) and got.negatives == len(negative)
        if len(logit) == 0:
            assert got.shift == 0
    assert set(got.summary()) == {"shift", "negatives", "expected", "searched", "density"}


def test_crowded_skies_expect_fewer_negatives() -> None:
    logit = catalogue(np.random.default_rng(6))
    likely = float(count_above(logit, LIKELY).sum())
    alone = fit(logit, np.empty(0)).expected
    got = fit(logit, np.empty(0), Calibration(confusion=20.0), beams=likely / 0.05)
    assert got.density == pytest.approx(0.05)
    assert got.expected == pytest.approx(alone / (1 + 20 * 0.05))
