"""Box search: planted boxes come out with their period and S/N, as astropy's search has them."""

from __future__ import annotations

import numpy as np
import pytest

from models.box_search import (
    BOXES,
    PERIODS,
    STEP_DAYS,
    TRIALS,
    best_box,
    box_periodogram,
    box_sums,
    red_noise,
    trial_periods,
    usual_duration,
)

LENGTH = 4096
TIME = np.arange(LENGTH) * STEP_DAYS


def planted(period, epoch, duration, depth, seed=0):
    """White noise of 1 with boxes; their total S/N."""
    flux = np.random.default_rng(seed).standard_normal(LENGTH)
    inside = np.abs((TIME - epoch + period / 2) % period - period / 2) < duration / 2
    return flux - depth * inside, depth * np.sqrt(inside.sum())


@pytest.mark.parametrize(("period", "epoch"), [(0.83, 0.2), (2.1, 2.05), (4.7, 0.0), (11.3, 4.0)])
def test_planted_boxes_are_found_with_their_signal_to_noise(period, epoch):
    duration = float(usual_duration(period))
    flux, snr = planted(period, epoch, duration, 0.8 if period < 3 else 1.5)
    weight = np.ones((1, LENGTH))
    power = box_periodogram(flux[None], weight)
    assert power.shape == (1, TRIALS)
    trial = power[0].argmax()
    periods = trial_periods()
    assert periods[trial] == pytest.approx(period, abs=0.5 * duration * period / TIME[-1])
    # Boxes of fixed lengths and phases miss some of it, noise adds some.
    assert 0.8 * snr - 1.5 < power[0, trial] < snr + 2.5
    found = best_box(flux, weight[0], np.linspace(periods[trial - 1], periods[trial + 1], 13))
    assert found.period == pytest.approx(period, abs=0.3 * duration * period / TIME[-1])
    offset = (found.epoch - epoch + period / 2) % period - period / 2
    assert abs(offset) < 0.3 * duration
    assert found.duration == pytest.approx(duration, rel=0.4)
    assert found.depth == pytest.approx(0.8 if period < 3 else 1.5, rel=0.3) and found.snr > power[0, trial] - 1


def test_astropys_search_finds_the_same_peak():
    timeseries = pytest.importorskip("astropy.timeseries")
    flux, _ = planted(1.7, 0.4, 0.09, 0.9, seed=4)
    power = box_periodogram(flux[None], np.ones((1, LENGTH)))[0]
    periods = trial_periods()
    near = (periods > 1.6) & (periods < 1.8)
    peer = timeseries.BoxLeastSquares(TIME, flux, 1.0).power(periods[near], [0.06, 0.09], objective="snr")
    assert periods[near][peer.power.argmax()] == pytest.approx(periods[power.argmax()], rel=2e-3)
    assert power.max() == pytest.approx(peer.depth_snr.max(), rel=0.15)


def test_curves_of_a_batch_do_not_mix_and_gaps_are_no_dips():
    first, _ = planted(2.1, 1.0, 0.1, 1.0)
    noise = np.random.default_rng(8).standard_normal(LENGTH)
    weight = np.ones((2, LENGTH))
    weight[:, 1800:2300] = 0
    both = box_periodogram(np.stack([first, noise]), weight)
    alone = box_periodogram(first[None], weight[:1])
    np.testing.assert_allclose(both[0], alone[0], atol=1e-3)
    assert both[1].max() < 7.5
    # What lies under missing bins does not matter.
    again = box_periodogram(np.where(weight[:1] > 0, first, -99.0)[:1], weight[:1])
    np.testing.assert_allclose(again, alone, atol=1e-3)
    assert (box_periodogram(np.zeros((1, LENGTH)), np.zeros((1, LENGTH))) == 0).all()


def test_trial_periods_keep_events_together():
    periods = trial_periods()
    assert periods[0] == pytest.approx(PERIODS[1]) and periods[-1] == pytest.approx(PERIODS[0])
    # Half a step off, the last event comes late by less than half of the usual duration.
    late = np.abs(np.diff(periods)) / 2 * TIME[-1] / 2 / periods[1:]
    assert (late < 0.5 * usual_duration(periods[1:]) / 2).all()
    assert min(BOXES) < 1 < max(BOXES)


def test_penalty_divides_the_boxes_that_it_is_for():
    flux, _ = planted(2.1, 1.0, 0.1, 1.0)
    plain = box_periodogram(flux[None], np.ones((1, LENGTH)))
    halved = box_periodogram(flux[None], np.ones((1, LENGTH)), penalty=np.full((1, len(BOXES)), 2.0))
    np.testing.assert_allclose(halved, plain / 2, rtol=1e-5)


def test_red_noise_is_told_from_white():
    rng = np.random.default_rng(1)
    white = rng.standard_normal(LENGTH)
    red = np.convolve(rng.standard_normal(LENGTH + 11), np.ones(12) / np.sqrt(12), "valid")
    found = red_noise(np.stack([white, 0.7 * white + 0.7 * red]), np.ones((2, LENGTH)), 12)
    assert found[0] == pytest.approx(1, abs=0.15) and found[1] > 1.8
    total, count = box_sums(white[None], np.ones((1, LENGTH)), 12)
    assert total.shape == (1, LENGTH - 11) and total[0, 5] == pytest.approx(white[5:17].sum()) and (count == 12).all()
