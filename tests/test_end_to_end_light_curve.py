"""Light curves as TESS' archive writes them, to a table of classes with the weights that ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from models.weights import list_weights
from pipeline.classify import classify
from pipeline.classify_options import ClassifyOptions
from survey_io.class_columns import SpectrumFlag
from survey_io.simulate.eclipses import Orbit, light_lost, scaled_axis, time_from_middle
from survey_io.simulate.star_noise import granulation, spots

pytestmark = pytest.mark.skipif("transits" not in list_weights(), reason="no weights of transits are shipped")
MINUTE = 1 / 1440
START, DAYS = 1325.2969, 27.4
PERIOD, EPOCH = 3.4253, 1327.5201


def sector(*orbits: tuple[Orbit, float, float], seed: int, start: float = START) -> tuple[np.ndarray, np.ndarray]:
    """Times (BTJD) and relative flux in 2 minutes of a sector: orbit, epoch and share of the light that it takes."""
    rng = np.random.default_rng(seed)
    time = start + 2 * MINUTE * np.arange(round(DAYS * 720))
    flux = 1 + spots(time, 11.0, 1.5e-3, rng) + granulation(time, 0.1, 1e-4, rng)
    for orbit, epoch, share in orbits:
        flux -= share * light_lost(time_from_middle(time, orbit.period, epoch), orbit)
    return time, flux + 8e-4 * rng.standard_normal(len(time))


def write_tess(path: Path, number: int, time: np.ndarray, flux: np.ndarray) -> None:
    """A light curve in the layout of the archive's ``*_lc.fits``: columns, units, quality bits, an aperture behind."""
    rng = np.random.default_rng(number)
    count = len(time)
    quality = np.zeros(count, "i4")
    electrons = 21000 * flux
    # Data are sent down in the middle; momentum dumps; a cosmic ray that left a spike.
    gap = np.abs(time - time.mean()) < 0.5
    electrons[gap] = np.nan
    dumps = np.concatenate([np.arange(one, one + 3) for one in range(1500, count - 10, 2400)])
    quality[dumps] = 32
    electrons[dumps] *= 0.97
    spike = int(rng.integers(3000, 5000))
    quality[spike], electrons[spike] = 512, electrons[spike] * 1.4
    stamped = np.where(gap & (np.arange(count) % 7 == 0), np.nan, time)
    columns = [
        fits.Column("TIME", "D", unit="BJD - 2457000, days", disp="D14.7", array=stamped),
        fits.Column("TIMECORR", "E", unit="d", array=np.full(count, 1e-3)),
        fits.Column("CADENCENO", "J", array=70444 + np.arange(count)),
        fits.Column("SAP_FLUX", "E", unit="e-/s", array=electrons * 0.9 + 300),
        fits.Column("SAP_FLUX_ERR", "E", unit="e-/s", array=np.full(count, 16.0)),
        fits.Column("SAP_BKG", "E", unit="e-/s", array=np.full(count, 900.0)),
        fits.Column("PDCSAP_FLUX", "E", unit="e-/s", array=electrons),
        fits.Column("PDCSAP_FLUX_ERR", "E", unit="e-/s", array=np.full(count, 17.0)),
        fits.Column("QUALITY", "J", array=quality),
    ]
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"], primary.header["INSTRUME"] = "TESS", "TESS Photometer"
    primary.header["OBJECT"], primary.header["TICID"] = f"TIC {number}", number
    primary.header["SECTOR"], primary.header["CAMERA"], primary.header["CCD"] = 1, 4, 2
    primary.header["RA_OBJ"], primary.header["DEC_OBJ"] = 84.29, -80.47
    table = fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")
    table.header["TELESCOP"], table.header["BJDREFI"], table.header["TIMEUNIT"] = "TESS", 2457000, "d"
    aperture = fits.ImageHDU(np.ones((11, 11), "i4"), name="APERTURE")
    fits.HDUList([primary, table, aperture]).writeto(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A planet, the same one for two sectors on end, a binary, and a star alone."""
    spectra = tmp_path_factory.mktemp("light_curves")
    planet = (Orbit(PERIOD, 0.07, 0.3, scaled_axis(PERIOD, 0.9)), EPOCH, 1.0)
    pair = Orbit(2.61, 0.8, 0.6, 7.0)
    binary = ((pair, 1326.1, 0.6), (pair, 1326.1 + 1.305, 0.25))
    write_tess(spectra / "tess-s0001-0000000000000101-0120-s_lc.fits", 101, *sector(planet, seed=1))
    write_tess(spectra / "tess-s0001-0000000000000102-0120-s_lc.fits", 102, *sector(*binary, seed=2))
    write_tess(spectra / "tess-s0001-0000000000000103-0120-s_lc.fits", 103, *sector(seed=3))
    first, second = sector(seed=4), sector(planet, seed=5, start=START + DAYS)
    both = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    write_tess(spectra / "tess-s0001-s0002-0000000000000104_lc.fits", 104, *both)
    return spectra


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    options = ClassifyOptions(model="transits", output=tmp_path_factory.mktemp("out"), pictures="all", workers=1)
    return classify([folder], options)


def test_planet_binary_and_star_are_told_apart(result):
    table = result.table
    assert not result.errors and list(table["name"]) == [f"TIC {n}" for n in (101, 102, 103, 104)]
    assert list(table["class"]) == ["transit", "eclipsing binary", "none", "transit"]
    assert (table["p_class"] > 0.6).all()
    assert len(list(result.files["pictures"].glob("*.png"))) == 4


def test_period_depth_and_duration_come_out(result):
    planet = result.table[0]
    orbit = Orbit(PERIOD, 0.07, 0.3, scaled_axis(PERIOD, 0.9))
    assert planet["period"] == pytest.approx(PERIOD, rel=0.02) and result.table["period"].unit == u.d
    assert planet["depth"] == pytest.approx(0.07**2, rel=0.3)
    assert planet["duration"] == pytest.approx(24 * orbit.duration, rel=0.35) and result.table["duration"].unit == u.h
    assert 0 < planet["period_err"] < 0.1 * PERIOD and 0 < planet["depth_err"] < 0.5 * planet["depth"]


def test_coverage_is_in_the_files_own_time(result):
    planet, long = result.table[0], result.table[3]
    assert planet["coverage_low"] == pytest.approx(START, abs=0.01)
    assert planet["coverage_high"] == pytest.approx(START + DAYS, abs=0.03)
    assert planet["flags"] & SpectrumFlag.GAPS and not planet["flags"] & SpectrumFlag.LONGER
    # Of two sectors on end the window with the transits is told of.
    assert long["flags"] & SpectrumFlag.LONGER
    assert long["coverage_low"] > START + 20 and long["coverage_high"] == pytest.approx(START + 2 * DAYS, abs=0.03)
    assert long["period"] == pytest.approx(PERIOD, rel=0.02)


def test_magnitudes_and_other_units_of_time_give_the_same(folder, tmp_path):
    time, flux = sector((Orbit(PERIOD, 0.07, 0.3, scaled_axis(PERIOD, 0.9)), EPOCH, 1.0), seed=1)
    Table({"time": time * u.d, "flux": flux}).write(tmp_path / "days.ecsv")
    Table({"time": (time - time[0]) * 86400 * u.s, "mag": (11 - 2.5 * np.log10(flux)) * u.mag}).write(
        tmp_path / "seconds.ecsv"
    )
    table = classify([tmp_path], ClassifyOptions(model="transits", output=tmp_path / "out", workers=1)).table
    assert list(table["class"]) == ["transit", "transit"]
    assert table["p_transit"][1] == pytest.approx(table["p_transit"][0], abs=0.02)
    assert table["period"][1] == pytest.approx(table["period"][0], rel=1e-3)
    assert table["coverage_low"][1] == pytest.approx(0.0, abs=0.01)


def test_spectra_and_light_curves_are_not_mistaken_for_each_other(folder, tmp_path):
    wave = np.linspace(3900, 7000, 2000)
    spectra = tmp_path / "spectra"
    spectra.mkdir()
    Table({"wavelength": wave * u.AA, "flux": 1 + 0.01 * np.sin(wave)}).write(spectra / "star.ecsv")
    light_curve = next(iter(sorted(folder.glob("*.fits"))))
    spectrum = spectra / "star.ecsv"
    for model, good, bad, said in (
        ("transits", light_curve, spectrum, "expected an axis of the kind of d, star has one in Angstrom"),
        ("stellar", spectrum, light_curve, "expected an axis of the kind of Angstrom, TIC 101 has one in d"),
    ):
        if model not in list_weights():
            continue
        options = ClassifyOptions(model=model, output=tmp_path / model, workers=1)
        found = classify([good, bad], options)
        assert len(found.table) == 1 and len(found.errors) == 1
        assert said in found.errors[0] and "choose a model for this kind of data" in found.errors[0]


def test_orbits_of_the_test_are_what_they_should_be():
    orbit = Orbit(PERIOD, 0.07, 0.3, scaled_axis(PERIOD, 0.9))
    assert 2 < 24 * orbit.duration < 5 and replace(orbit, impact=1.2).duration == 0
