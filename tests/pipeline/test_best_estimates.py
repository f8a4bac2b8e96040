"""Measurement and estimate together err less than either; each stands alone where the other is not to be had."""

import numpy as np
import pytest
from astropy.table import Table

from pipeline.best_estimates import ESTIMATED, SURE_SNR, combine, recommend
from survey_io.columns import Flag


@pytest.mark.parametrize(("name", "true", "sigma"), [("line_flux", 30.0, 4.0), ("inclination", 50.0, 8.0)])
def test_mean_errs_less_than_both(name, true, sigma):
    rng = np.random.default_rng(0)
    one, other = (true + sigma * rng.standard_normal(4000) for _ in range(2))
    error = np.full(4000, sigma)
    mean = combine(name, one, 0.5 * error, other, error, factor=2.0)
    assert np.std(mean) == pytest.approx(sigma / np.sqrt(2), rel=0.08)
    assert np.mean(mean) == pytest.approx(true, rel=0.02)


def test_angles_are_averaged_on_the_circle():
    error = np.full(2, 5.0)
    mean = combine("kin_pa", np.array([350.0, 90.0]), error, np.array([20.0, 100.0]), error, factor=1.0)
    np.testing.assert_allclose(mean, [5.0, 95.0], atol=1e-9)


def test_what_is_missing_leaves_the_other():
    nan = np.array([np.nan])
    for name in ESTIMATED:
        five = np.array([5.0])
        np.testing.assert_allclose(combine(name, nan, five, five, five, factor=1.0), 5.0)
        assert np.isnan(combine(name, five, five, nan, five, factor=1.0)).all()
        # A factor without bound leaves the network alone.
        np.testing.assert_allclose(combine(name, five, five, np.array([7.0]), five, factor=1e9), 7.0)


def test_joined_rows_and_clear_ones_are_as_measured():
    flags = [0, int(Flag.MULTI_COMPONENT), 0, 0]
    snr = [8.0, 8.0, SURE_SNR + 1, 8.0]
    value, estimate = [10.0, 10.0, 10.0, np.nan], [20.0, 20.0, 20.0, 20.0]
    table = Table({
        "snr": snr, "flags": flags, "w20": value, "w20_err": [1.0] * 4, "w20_net": estimate, "w20_net_err": [2.0] * 4
    })  # fmt: skip
    best = recommend(table, {"w20": 1.0})
    np.testing.assert_allclose(best["w20_best"], [10 * np.sqrt(2), 10.0, 10.0, 20.0])
    assert np.isnan(best["line_flux_best"]).all() and set(best) == {f"{name}_best" for name in ESTIMATED}
