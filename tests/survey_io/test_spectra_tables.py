"""Spectra and light curves in FITS tables of the published layouts, written here as real files and read back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from survey_io.spectra import open_spectra

RNG = np.random.default_rng(11)
N = 120
WAVE = 4000 + 2.5 * np.arange(N)
FLUX = RNG.normal(1, 0.1, N)
CGS = u.Unit("erg s-1 cm-2 Angstrom-1")


def test_sdss(tmp_path: Path, only: Callable[..., Any]) -> None:
    loglam = (3.58 + 1e-4 * np.arange(N)).astype("f4")
    ivar, mask = np.full(N, 4, "f4"), np.zeros(N, "i4")
    ivar[1], mask[2], mask[3] = 0, 1 << 23, 1 << 17
    names = {"flux": FLUX.astype("f4"), "loglam": loglam, "ivar": ivar, "and_mask": mask, "or_mask": mask + 1,
             "wdisp": np.ones(N, "f4"), "sky": np.ones(N, "f4"), "model": FLUX.astype("f4")}  # fmt: skip
    columns = [fits.Column(name, "J" if array.dtype.kind == "i" else "E", array=array) for name, array in names.items()]
    coadd = fits.BinTableHDU.from_columns(columns, name="COADD")
    spall = fits.BinTableHDU.from_columns([fits.Column("Z", "E", array=[0.1])], name="SPALL")
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = "SDSS 2.5-M"
    primary.header["BUNIT"] = "1E-17 erg/cm^2/s/Ang"
    path = tmp_path / "spec-4055-55359-0596.fits"
    fits.HDUList([primary, coadd, spall]).writeto(path)
    got = only(path)
    np.testing.assert_allclose(got.axis, 10.0 ** loglam.astype(float))
    assert set(np.flatnonzero(np.isnan(got.flux))) == {1, 2}
    np.testing.assert_allclose(got.error[4:], 0.5)
    assert got.flux_unit == 1e-17 * CGS
    assert (got.name, got.unit, got.notes) == ("spec-4055-55359-0596", u.Angstrom, ())


def vector_table(path: Path, wave: np.ndarray, flux: np.ndarray, **more: Any) -> Path:
    n = wave.shape[-1]
    columns = [fits.Column("WAVELENGTH", f"{n}D", unit=more.pop("unit", "Angstrom"), array=wave)]
    columns.append(fits.Column("FLUX", f"{n}D", unit="Jy", array=flux))
    for name, array in more.items():
        text = array.dtype.kind == "U"
        columns.append(fits.Column(name, "10A" if text else f"{n}D", array=array))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="COADD")]).writeto(path)
    return path


def test_lamost_table(tmp_path: Path, only: Callable[..., Any]) -> None:
    # From data release 8 on: one row of arrays.
    ivar, mask = np.full((1, N), 25.0), np.zeros((1, N))
    mask[0, 6] = 4
    path = vector_table(tmp_path / "lamost.fits.gz", WAVE[None], FLUX[None], IVAR=ivar, ANDMASK=mask, ORMASK=mask + 1)
    with fits.open(path) as hdus:
        hdus[0].header["TELESCOP"] = "LAMOST"
        hdus[0].header["OBJECT"] = "J1"
        hdus.writeto(path, overwrite=True)
    got = only(path)
    np.testing.assert_array_equal(got.axis, WAVE)
    assert list(np.flatnonzero(np.isnan(got.flux))) == [6]
    np.testing.assert_allclose(got.error, 0.2)
    assert (got.name, got.notes) == ("J1", ())


def test_a_spectrum_in_each_row(tmp_path: Path) -> None:
    wave = np.stack([WAVE, WAVE[::-1], WAVE, np.zeros(N)])
    flux = np.stack([FLUX, FLUX, np.full(N, np.nan), FLUX])
    path = vector_table(tmp_path / "many.fits", wave, flux, NAME=np.array(["a", "b", "c", "d"]), ERROR=flux * 0 + 0.1)
    opened = open_spectra(path)
    assert [(one.name, one.row) for one in opened.spectra] == [("a", 0), ("b", 1)]
    np.testing.assert_array_equal(opened.spectra[1].flux, FLUX[::-1])
    assert [error.fields["row"] for error in opened.errors] == [2, 3]
    assert "all 120 bins are missing" in opened.errors[0].message
    assert "expected at least 2 bins with a wavelength, got 0" in opened.errors[1].message


def test_rows_of_different_lengths(tmp_path: Path) -> None:
    arrays = np.array([WAVE[:50], WAVE[:80]], dtype=object)
    fluxes = np.array([FLUX[:50], FLUX[:80]], dtype=object)
    table = fits.BinTableHDU.from_columns(
        [fits.Column("WAVE", "PD()", unit="Angstrom", array=arrays), fits.Column("FLUX", "PD()", array=fluxes)]
    )
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "p.fits")
    assert [len(one.axis) for one in open_spectra(tmp_path / "p.fits").spectra] == [50, 80]


def test_units_of_the_same_name(tmp_path: Path, only: Callable[..., Any], refusal: Callable[..., Any]) -> None:
    # As of JWST: EXTRACT1D once for each source.
    units = []
    for version in (1, 2, 3):
        flux = FLUX * (np.nan if version == 2 else version)
        table = Table({"WAVELENGTH": WAVE / 1e4, "FLUX": flux, "FLUX_ERROR": FLUX})
        hdu = fits.table_to_hdu(table)
        hdu.columns["WAVELENGTH"].unit, hdu.columns["FLUX"].unit = "um", "Jy"
        hdu.name, hdu.ver = "EXTRACT1D", version
        units.append(hdu)
    other = fits.table_to_hdu(Table({"WAVELENGTH": WAVE, "FLUX": FLUX}))
    other.name = "OTHER"
    path = tmp_path / "x1d.fits"
    fits.HDUList([fits.PrimaryHDU(), *units, other]).writeto(path)
    opened = open_spectra(path)
    assert [(one.name, one.row) for one in opened.spectra] == [("x1d 1", 1), ("x1d 3", 3)]
    assert len(opened.errors) == 1
    assert only(path, hdu="OTHER").notes[0] == "no unit of 'WAVELENGTH': taken as Angstrom"
    assert only(path, hdu=3).flux[0] == 3 * FLUX[0]
    assert "expected a unit 9, the file has 0 (PRIMARY), 1 (EXTRACT1D)" in refusal(path, hdu=9)


@pytest.mark.parametrize("mission", ["TESS", "Kepler"])
def test_light_curves(tmp_path: Path, mission: str, only: Callable[..., Any]) -> None:
    epoch, quality = {"TESS": (2457000, "QUALITY"), "Kepler": (2454833, "SAP_QUALITY")}[mission]
    time = 1325.3 + 2 / 1440 * np.arange(N)
    flux = 1000 + RNG.normal(0, 1, N)
    flags = np.zeros(N, "i4")
    # A desaturation, a cosmic ray that was cleaned (kept), and a cadence without a time.
    flags[[4, 5]] = 32, 64 if mission == "TESS" else 128
    time[9] = np.nan
    columns = [
        fits.Column("TIME", "D", unit=f"BJD - {epoch}, days", array=time),
        fits.Column("TIMECORR", "E", unit="d", array=time),
        fits.Column("CADENCENO", "J", array=np.arange(N)), fits.Column("SAP_FLUX", "E", unit="e-/s", array=flux + 50),
        fits.Column("SAP_FLUX_ERR", "E", unit="e-/s", array=flux * 0 + 2),
        fits.Column("PDCSAP_FLUX", "E", unit="e-/s", array=flux),
        fits.Column("PDCSAP_FLUX_ERR", "E", unit="e-/s", array=flux * 0 + 1), fits.Column(quality, "J", array=flags),
    ]  # fmt: skip
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"], primary.header["OBJECT"] = mission, "TIC 261136679"
    path = tmp_path / "lc.fits"
    fits.HDUList([primary, fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")]).writeto(path)
    got = only(path)
    assert got.is_series and got.unit == u.d and got.name == "TIC 261136679"
    np.testing.assert_array_equal(got.axis, np.delete(time, 9))
    assert list(np.flatnonzero(np.isnan(got.flux))) == [4]
    np.testing.assert_allclose(got.flux[:3], flux[:3], rtol=1e-6)
    np.testing.assert_allclose(got.error, 1)
    assert got.flux_unit == u.electron / u.s
    assert got.notes == ("1 of 120 bins have no time and were left out",)


def test_target_pixels_are_no_light_curve(tmp_path: Path, refusal: Callable[..., Any]) -> None:
    columns = [
        fits.Column("TIME", "D", unit="BJD - 2457000, days", array=np.arange(6.0)),
        fits.Column("FLUX", "20E", dim="(5,4)", array=np.ones((6, 4, 5))),
        fits.Column("POS_CORR", "E", array=np.ones(6)),
        fits.Column("QUALITY", "J", array=np.zeros(6, int)),
        fits.Column("RAW", "20J", dim="(5,4)", array=np.ones((6, 4, 5), int)),
        fits.Column("COSMIC", "E", array=np.ones(6)),
    ]
    path = tmp_path / "tpf.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="PIXELS")]).writeto(path)
    assert "has the axis 'TIME' but no single column of flux" in refusal(path)


@pytest.mark.parametrize(("telescope", "flags"), [("HST", "8"), ("JWST", ""), ("", "")])
def test_quality_of_space_telescopes(
    tmp_path: Path, only: Callable[..., Any], telescope: str, flags: str
) -> None:
    # Bits 1, 4 and 8 in the first three bins: HST names the serious ones, those of JWST are in the first.
    table = fits.table_to_hdu(Table({"WAVELENGTH": WAVE, "FLUX": FLUX, "DQ": np.r_[1, 4, 8, np.zeros(N - 3, int)]}))
    table.columns["WAVELENGTH"].unit = "Angstrom"
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = telescope
    table.header["SDQFLAGS"] = int(flags or 0)
    path = tmp_path / "x1d.fits"
    fits.HDUList([primary, table]).writeto(path)
    missing = {"HST": [2], "JWST": [0], "": [0, 1, 2]}[telescope]
    assert list(np.flatnonzero(np.isnan(only(path).flux))) == missing


def test_a_unit_that_cannot_be_used_beside_one_that_can(tmp_path: Path, only: Callable[..., Any]) -> None:
    bad, good = (fits.table_to_hdu(Table({"wavelength": WAVE, "flux": FLUX})) for _ in range(2))
    bad.columns["wavelength"].unit, good.columns["wavelength"].unit = "K", "Angstrom"
    fits.HDUList([fits.PrimaryHDU(), bad, good]).writeto(tmp_path / "two.fits")
    assert only(tmp_path / "two.fits").unit == u.Angstrom


def test_tables_in_ascii_within_fits(tmp_path: Path, only: Callable[..., Any]) -> None:
    columns = fits.ColDefs(
        [fits.Column("WAVE", "F12.4", unit="Angstrom", array=WAVE, ascii=True),
         fits.Column("FLUX", "E15.7", array=FLUX, ascii=True), fits.Column("NAME", "A3", array=["x"] * N, ascii=True)],
        ascii=True,
    )  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns)]).writeto(tmp_path / "a.fits")
    got = only(tmp_path / "a.fits")
    np.testing.assert_allclose(got.axis, WAVE)
    np.testing.assert_allclose(got.flux, FLUX, rtol=1e-6)


def test_thousands_of_rows_take_a_moment(tmp_path: Path) -> None:
    rows = 3000
    path = vector_table(tmp_path / "many.fits", np.tile(WAVE, (rows, 1)), np.tile(FLUX, (rows, 1)))
    begin = time.thread_time()
    assert len(open_spectra(path).spectra) == rows
    # A second on a busy core; reading a column anew for each row would take minutes.
    assert time.thread_time() - begin < 10
