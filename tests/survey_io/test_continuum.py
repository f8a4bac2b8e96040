"""Continuum and noise of spectra: what lines, gaps and slopes must not move."""

from __future__ import annotations

import numpy as np
import pytest

from survey_io.continuum import estimate_continuum, running_median

COUNT = 2400
Z = np.arange(COUNT)


def noise(seed: int = 0, kernel=(1.0,)) -> np.ndarray:
    raw = np.random.default_rng(seed).normal(size=COUNT + len(kernel) - 1)
    smooth = np.convolve(raw, kernel, mode="valid")
    return smooth / np.linalg.norm(kernel)


def line(centre: float, fwhm: float, height: float) -> np.ndarray:
    return height * np.exp(-4 * np.log(2) * ((Z - centre) / fwhm) ** 2)


def test_running_median_is_the_median_of_each_window():
    values = noise(1)
    values[200:260] = np.nan
    median = running_median(values, 101)
    node = 10 * (100 // 8)
    for at in (node, 2 * node, 3 * node):
        assert median[at] == pytest.approx(np.nanmedian(values[at - 50 : at + 51]), abs=1e-12)
    assert np.isfinite(median).all()


def test_running_median_follows_a_slope_to_both_ends():
    slope = 0.05 * Z + 0.01 * noise(2)
    median = running_median(slope, 301)
    assert abs(median - 0.05 * Z).max() < 0.05
    # Without reflection windows end at the ends, and see one side of the slope.
    assert abs(running_median(slope, 301, reflect=False) - 0.05 * Z).max() > 2


def test_too_few_channels_have_no_median():
    values = np.full(300, np.nan)
    values[::40] = 1.0
    assert np.isnan(running_median(values, 101)).all()


@pytest.mark.parametrize("kernel", [(1.0,), (0.25, 0.5, 0.25)])
@pytest.mark.parametrize(
    ("centre", "fwhm", "height"),
    [(900, 4, 300), (900, 20, 10), (900, 150, 3), (900, 150, 40), (900, 120, -25), (3, 30, 20), (2395, 60, -15)],
)
def test_a_line_of_any_width_and_height_moves_neither_level_nor_noise(centre, fwhm, height, kernel):
    true = 50 + 8 * np.sin(Z / 700)
    level, rms = estimate_continuum(true + noise(3, kernel) + line(centre, fwhm, height))
    near = slice(max(centre - 200, 0), centre + 200)
    assert abs(level - true)[near].max() < 0.6
    assert 0.8 < np.median(rms[near]) < 1.2
    assert abs(level - true).mean() < 0.25


def test_crowded_absorption_leaves_the_level_where_it_was():
    rng = np.random.default_rng(5)
    flux = 100 + noise(4) + sum(line(at, 7, -rng.uniform(2, 60)) for at in rng.uniform(0, COUNT, 50))
    level, rms = estimate_continuum(flux)
    assert abs(np.median(level) - 100) < 0.5 and abs(level - 100).max() < 2
    assert 0.8 < np.median(rms) < 1.4


def test_the_noise_follows_the_errors_that_a_file_gives():
    course = np.where((Z > 1000) & (Z < 1020), 6.0, 1.0) * 0.3
    # The file's errors are right but for a common factor.
    level, rms = estimate_continuum(noise(6) * course, error=2 * course)
    assert rms[1010] / rms[500] == pytest.approx(6, rel=0.2)
    assert np.median(rms) == pytest.approx(0.3, rel=0.1)


def test_gaps_short_and_long():
    true = 0.02 * Z
    flux = true + noise(7)
    flux[400:430] = np.nan
    flux[900:1100] = np.nan
    flux[1600:2200] = np.nan
    flux[2200:] += 40
    level, rms = estimate_continuum(flux)
    seen = np.isfinite(flux)
    expected = true + np.where(Z >= 2200, 40, 0)
    # On either side of a gap longer than half the window the spectrum stands by itself: it may jump.
    assert abs(level - expected)[seen].max() < 1.0
    assert np.isnan(level[1700:2100]).all() and np.isfinite(level[900:1100]).all()
    assert np.isfinite(rms[seen]).all()


@pytest.mark.parametrize(
    "flux", [np.full(100, 3.0), np.full(100, 1 / 3) + 1e-17 * np.arange(100), np.full(100, np.nan), np.arange(5.0)]
)
def test_where_there_is_no_noise_it_is_said(flux):
    assert np.isnan(estimate_continuum(flux)[1]).all()


def test_units_scale_along():
    flux = 5 + noise(8) + line(1200, 10, 30)
    level, rms = estimate_continuum(flux)
    for factor in (1e-17, 1e12):
        scaled = estimate_continuum(factor * flux)
        np.testing.assert_allclose(scaled[0], factor * level, rtol=1e-9)
        np.testing.assert_allclose(scaled[1], factor * rms, rtol=1e-9)
