"""Learned visibility: a known law of what is found is recovered, and decides without cuts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.visibility import USUAL, Visibility, crowding_of, design, fit_visibility, match_found


def test_a_known_law_is_recovered() -> None:
    rng = np.random.default_rng(0)
    law = Visibility((-6.0, 4.0, -1.0, -3.0))
    snr, area = np.exp(rng.uniform(0, 3, 6000)), np.exp(rng.exponential(0.5, 6000))
    crowding = rng.exponential(0.2, 6000)
    found = rng.random(6000) < law.probability(snr, area, crowding)
    fitted = fit_visibility(design(snr, area, crowding), found)
    np.testing.assert_allclose(fitted.coefficients, law.coefficients, atol=0.6)
    assert fitted.snr_at(0.5) == pytest.approx(np.exp(1.5), rel=0.05)
    p = fitted.probability(np.array([2.0, 5.0, 5.0, 5.0]), np.array([1, 1, 4, 1.0]), np.array([0, 0, 0, 1.0]))
    assert p[0] < p[1] and p[2] < p[1] and p[3] < p[1]


@pytest.mark.parametrize("found", [np.ones(100, bool), np.zeros(100, bool), np.zeros(0, bool)])
def test_without_both_kinds_the_usual_law_stands(found: np.ndarray) -> None:
    snr = np.linspace(1, 10, len(found))
    fitted = fit_visibility(design(snr, np.ones_like(snr), np.zeros_like(snr)), found)
    assert fitted is USUAL and USUAL.snr_at(0.5) == pytest.approx(4.0)


def test_a_law_that_falls_with_brightness_is_not_believed() -> None:
    snr = np.linspace(1, 10, 400)
    assert fit_visibility(design(snr, np.ones(400), np.zeros(400)), snr < 4) is USUAL


def test_crowding_is_light_of_the_others() -> None:
    x, y, peak = np.array([10.0, 12.0, 40.0]), np.array([5.0, 5.0, 5.0]), np.array([1.0, 3.0, 2.0])
    crowding = crowding_of(x, y, peak, beam_px=4.0)
    # Half a beam away a Gaussian is at half of its peak.
    np.testing.assert_allclose(np.expm1(crowding), [3 * 0.5, 1 * 0.5 / 3, 0], atol=1e-12)


def test_each_detection_stands_for_the_brightest_free_source() -> None:
    x, y, snr = np.array([10.0, 11.0, 30.0]), np.array([20.0, 20.0, 8.0]), np.array([3.0, 9.0, 5.0])
    found = np.array([[20.1, 10.4], [8.0, 33.5]])
    assert match_found(x, y, snr, found, np.array([1.0, 2.0]), 4.0).tolist() == [False, True, False]
    twice = np.array([[20.0, 10.5], [20.0, 10.6]])
    assert match_found(x, y, snr, twice, np.array([1.0, 2.0]), 4.0).tolist() == [True, True, False]
    assert not match_found(x, y, snr, np.empty((0, 2)), np.empty(0), 4.0).any()
