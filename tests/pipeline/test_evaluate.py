"""Evaluation of a catalogue whose errors are known."""

import numpy as np
import pytest
from astropy.table import Table

from pipeline.evaluate import calibration, evaluate
from pipeline.evaluation_report import binned_fraction, wilson_interval
from pipeline.scorers import SDC1_COLUMNS, as_sdc1
from survey_io.errors import InputError, OptionError

BEAM, NOISE = 2.4, 5e-7


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(11)
    n = 900
    row, column = np.divmod(np.arange(n), 30)
    flux = NOISE * 10 ** rng.uniform(0.2, 2.2, n)
    major = rng.uniform(0.3, 4.0, n)
    minor = major * rng.uniform(0.3, 0.9, n)
    pa_sky = rng.uniform(0, 180, n)
    # A spacing that no displacement of 30 arcsec turns into itself.
    ra, dec = 0.2 - column * 12.3 / 3600 / np.cos(np.pi / 6), -30 + row * 12.3 / 3600
    core, kind, source = np.full(n, 0.02), np.full(n, 2), np.full(n, 3)
    table = Table(
        [np.arange(n), ra, dec, ra, dec, flux, core, major, minor, (90 - pa_sky) % 180, kind, source],
        names=SDC1_COLUMNS,
    )  # fmt: skip
    dilution = BEAM**2 / np.sqrt((BEAM**2 + major**2) * (BEAM**2 + minor**2))
    table["peak_snr"] = flux * dilution / NOISE
    return table


@pytest.fixture(scope="module")
def found(truth):
    """True sources above S/N 4 with flux 10% too high, and 50 rows of nothing."""
    rng = np.random.default_rng(12)
    real = truth[truth["peak_snr"] > 4]
    n = len(real)
    ra = np.concatenate(
        [real["ra_cent"] + rng.normal(0, 0.1, n) / 3600 / np.cos(np.pi / 6), np.full(50, 0.5)]
    )
    table = Table(
        {
            "ra": ra,
            "dec": np.concatenate(
                [real["dec_cent"] + rng.normal(0, 0.1, n) / 3600, np.linspace(-31, -30.5, 50)]
            ),
        }
    )

    def column(values, filler):
        return np.concatenate([np.asarray(values, dtype=float), np.full(50, filler)])

    table["flux"] = column(real["flux"] * 1.1, 5 * NOISE)
    table["flux_err"] = column(real["flux"] * 0.1, NOISE)
    table["ra_err"] = table["dec_err"] = 0.1
    table["maj_deconv"], table["min_deconv"] = column(real["b_maj"], 1.0), column(real["b_min"], 0.5)
    table["pa_deconv"] = column((90 - real["pa"] + 5.0) % 180, 0.0)
    table["maj"], table["min"] = np.hypot(table["maj_deconv"], BEAM), np.hypot(table["min_deconv"], BEAM)
    table["peak_flux"] = table["flux"] * BEAM**2 / table["maj"] / table["min"]
    table["local_rms"] = NOISE
    table["snr"] = table["peak_flux"] / NOISE
    table["p_real"] = column(np.full(n, 0.95), 0.1)
    return table


def test_finds_the_planted_errors(truth, found):
    report = evaluate(found, truth)
    real = int((truth["peak_snr"] > 4).sum())
    assert report["n_matched"] == real
    assert report["reliability"] == pytest.approx(real / (real + 50))
    assert report["completeness_5"] == 1
    share = (truth["peak_snr"] > 4).sum() / (truth["peak_snr"] > 3).sum()
    assert report["completeness_3"] == pytest.approx(share)
    assert report["f1_5"] == pytest.approx(2 * report["reliability"] / (1 + report["reliability"]))
    assert report["beam_arcsec"] == pytest.approx(BEAM, rel=0.02)
    for row in report["errors"]:
        assert row["n"] > 20
        assert row["flux_ratio"] == pytest.approx(1.1)
        assert row["pa_error_deg"] == pytest.approx(5)
        assert row["size_ratio"] == pytest.approx(1)
        assert row["position_arcsec"] == pytest.approx(0.1177, rel=0.25)
        assert row["ra_pull"] == pytest.approx(1, abs=0.35)
    below = [one for one in report["completeness_bins"] if one["hi"] <= 4]
    assert all(one["fraction"] == 0 for one in below)


def test_missing_snr_is_worked_out_from_the_catalogue(truth, found):
    bare = truth[list(SDC1_COLUMNS)]
    with_column, without = evaluate(found, truth), evaluate(found, bare)
    assert without["completeness_5"] == pytest.approx(with_column["completeness_5"], abs=0.01)
    assert without["n_matched"] == with_column["n_matched"]


def test_probabilities_are_compared_with_what_is_real(truth, found):
    report = evaluate(found, truth)
    high = next(one for one in report["calibration"]["bins"] if one["lo"] == 0.95)
    assert high["fraction"] == 1
    low = next(one for one in report["calibration"]["bins"] if one["lo"] == 0.1)
    assert low["fraction"] == 0
    n = len(found)
    assert report["calibration"]["expected_error"] == pytest.approx((0.05 * (n - 50) + 0.1 * 50) / n)


def test_calibrated_probabilities_have_a_small_expected_error():
    rng = np.random.default_rng(2)
    p = rng.beta(2, 1, 40_000)
    assert calibration(p, rng.random(len(p)) < p)["expected_error"] < 0.01
    assert calibration(p, rng.random(len(p)) < p**2)["expected_error"] > 0.1


def test_sdc1_report_and_picture(truth, found, tmp_path):
    picture = tmp_path / "evaluation.png"
    report = evaluate(found, truth, scorer="sdc1", picture=picture)
    exact = report["sdc1"]["exact"]
    assert exact["n_match"] == report["n_matched"]
    assert exact["means"]["flux"] == pytest.approx(1.0)
    assert exact["n_false"] == 50
    assert report["sdc1"]["corrected"]["means"]["pa"] == pytest.approx(1)
    assert report["sdc1"]["chance"]["rate"] < 0.05
    assert picture.read_bytes()[:4] == b"\x89PNG"
    text = str(report)
    assert f"{exact['value']:.2f}" in text
    assert "p_real" in text
    assert max(map(len, text.splitlines())) < 120


def test_takes_files_and_submissions(truth, found, tmp_path):
    from astropy.io import ascii

    ascii.write(truth[list(SDC1_COLUMNS)], tmp_path / "truth.txt", format="basic")
    found.write(tmp_path / "found.ecsv")
    whole = evaluate(tmp_path / "found.ecsv", tmp_path / "truth.txt")
    assert whole["completeness_5"] == 1
    submission = evaluate(as_sdc1(found), truth, beam=BEAM)
    assert submission["n_matched"] == whole["n_matched"]


def test_empty_catalogue_is_a_result(truth, found):
    report = evaluate(found[:0], truth, beam=BEAM, scorer="sdc1")
    assert report["n_matched"] == 0
    assert report["completeness_5"] == 0
    assert np.isnan(report["reliability"])
    assert report["sdc1"]["exact"]["value"] == 0
    str(report)


def test_says_what_is_wrong(truth, found, tmp_path):
    with pytest.raises(OptionError, match="match, sdc1"):
        evaluate(found, truth, scorer="f1")
    with pytest.raises(InputError, match="swapped"):
        evaluate(truth, found)
    with pytest.raises(InputError, match="no such file"):
        evaluate(tmp_path / "none.fits", truth)
    with pytest.raises(OptionError, match="beam"):
        evaluate(found[["ra", "dec", "flux"]], truth)


def test_intervals_and_bins():
    low, high = wilson_interval(50, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-3), pytest.approx(0.5962, abs=1e-3))
    bins = binned_fraction(
        np.array([1.0, 2.5, 2.6, np.nan]), np.array([True, True, False, True]), (0, 2, 3, 9)
    )
    assert [one["n"] for one in bins] == [1, 2, 0]
    assert bins[1]["fraction"] == 0.5
    assert np.isnan(bins[2]["fraction"])
