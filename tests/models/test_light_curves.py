"""Light curves are flattened: slow changes go, dips and the noise stay."""

from __future__ import annotations

import numpy as np
import pytest

from models.light_curves import LONG, SHORT, bin_noise, flatten, slow_trend

LENGTH, DAY = 4096, 144
TIME = np.arange(LENGTH) / DAY


def dips(depth, period=3.1, duration=0.12):
    return np.where((TIME - 1.3) % period < duration, depth, 0.0)


def test_flat_curves_stay_as_they_are_and_units_do_not_matter():
    noise = 1e-3 * np.random.default_rng(0).standard_normal(LENGTH)
    flux = 1 + noise - dips(0.01)
    given = flatten(np.stack([flux, 7.3e4 * flux, flux - 1]))
    assert given.noise == pytest.approx(1e-3, rel=0.07)
    np.testing.assert_allclose(given.flat[1], given.flat[0], atol=1e-6)
    # Centred on 0 by somebody else: what is left is taken as relative.
    np.testing.assert_allclose(given.flat[2], given.flat[0], atol=0.02)
    inside = dips(1.0) > 0
    assert given.flat[0, inside].mean() * given.noise[0] == pytest.approx(-0.01, rel=0.05)
    assert (given.half == LONG).all()


def test_slow_changes_go_and_dips_stay():
    rng = np.random.default_rng(1)
    slow = 0.02 * np.sin(2 * np.pi * TIME / 6.0) + 0.001 * TIME
    flux = 1 + slow - dips(0.008) + 5e-4 * rng.standard_normal(LENGTH)
    flux[1900:2100] = np.nan
    given = flatten(flux[None])
    inside, seen = dips(1.0) > 0, np.isfinite(flux)
    assert given.noise[0] == pytest.approx(5e-4, rel=0.1)
    assert given.flat[0, inside & seen].mean() * given.noise[0] == pytest.approx(-0.008, rel=0.1)
    assert given.flat[0, ~inside & seen].std() == pytest.approx(1, abs=0.1)
    assert (given.flat[0, ~seen] == 0).all() and (given.weight[0] == seen).all()


def test_fast_turning_stars_get_the_shorter_window():
    rng = np.random.default_rng(2)
    flux = 1 + 0.01 * np.sin(2 * np.pi * TIME / 1.1) + 5e-4 * rng.standard_normal(LENGTH)
    given = flatten(np.stack([flux, 1 + 5e-4 * rng.standard_normal(LENGTH)]))
    assert list(given.half) == [SHORT, LONG]
    assert given.flat[0].std() * given.noise[0] < 1.2e-3


def test_a_masked_event_keeps_all_its_depth():
    """What is too shallow to be told from noise bin by bin bends the trend, unless it is masked."""
    flux = np.where((TIME % 4.0) < 0.25, -1.0, 0.0)
    weight = np.ones(LENGTH)
    noise = 3 * np.random.default_rng(3).standard_normal((30, LENGTH))
    given, inside = flux + noise, np.broadcast_to(flux < 0, noise.shape)
    depths = []
    for masked in (None, inside):
        rest = given - slow_trend(given, np.broadcast_to(weight, noise.shape), LONG, masked=masked)
        depths.append(-rest[inside].mean())
    assert depths[1] == pytest.approx(1, abs=0.06) and depths[0] < 0.85


def test_noise_of_half_hour_data_is_that_of_their_means():
    rng = np.random.default_rng(4)
    coarse = np.repeat(rng.standard_normal((1, LENGTH // 3)), 3, axis=1)
    # Three equal bins have the noise of one mean: a single independent bin would have the square root of 3 of it.
    assert bin_noise(coarse, np.ones(coarse.shape)) == pytest.approx(np.sqrt(3), rel=0.05)


def test_nothing_and_constants_give_numbers():
    flux = np.stack([np.full(LENGTH, np.nan), np.ones(LENGTH), np.zeros(LENGTH)])
    flux = np.concatenate([flux, np.where(np.arange(LENGTH) < 5, 2.0, np.nan)[None]])
    given = flatten(flux)
    assert np.isfinite(given.flat).all() and np.abs(given.flat).max() < 1e-3 and (given.noise > 0).all()
