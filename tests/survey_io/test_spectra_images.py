"""Spectra in FITS images, in each dialect of the axis, written here as real files and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from survey_io.spectra import open_spectra
from survey_io.spectral import HI_REST_FREQUENCY

RNG = np.random.default_rng(11)
N = 120
WAVE = 4000 + 2.5 * np.arange(N)
FLUX = RNG.normal(1, 0.1, N)
CGS = u.Unit("erg s-1 cm-2 Angstrom-1")


def test_linear_wavelengths(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    path = image(
        tmp_path / "star.fits", FLUX.astype("f4"), CTYPE1="WAVE", CUNIT1="Angstrom", CRVAL1=4005.0, CDELT1=2.5,
        CRPIX1=3.0, BUNIT="erg/s/cm2/Angstrom", OBJECT="HD 1",
    )  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, WAVE)
    np.testing.assert_allclose(got.flux, FLUX, rtol=1e-6)
    assert (got.name, got.path, got.unit, got.flux_unit, got.error, got.row) == (
        "HD 1", str(path), u.Angstrom, CGS, None, None,
    )  # fmt: skip
    assert got.notes == () and not got.is_series


def test_a_matrix_instead_of_a_step_and_no_unit(
    tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]
) -> None:
    path = image(tmp_path / "a.b.fits", FLUX, CTYPE1="LINEAR", CRVAL1=4000.0, CD1_1=2.5, CRPIX1=1.0)
    got = only(path)
    np.testing.assert_allclose(got.axis, WAVE)
    assert got.name == "a.b"
    assert [note.split(":")[0] for note in got.notes] == [
        "no CUNIT1 in the header", "nothing says whether wavelengths are of air or vacuum",
    ]  # fmt: skip


def test_iraf_words(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    path = image(
        tmp_path / "iraf.fits", FLUX, CTYPE1="LINEAR", CRVAL1=400.0, CD1_1=0.25, CRPIX1=1.0, DC__FLAG=0,
        WAT0_001="system=equispec", WAT1_001="wtype=linear label=Wavelength units=nm",
    )  # fmt: skip
    got = only(path)
    assert got.unit == u.nm
    np.testing.assert_allclose(got.axis, WAVE / 10)


def test_logarithmic_wavelengths(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    log = 3.6 + 1e-4 * np.arange(N)
    common = {"CRVAL1": 3.6, "CRPIX1": 1.0}
    forms = {
        "dcflag": {**common, "CD1_1": 1e-4, "DC__FLAG": 1, "CTYPE1": "LINEAR"},
        "coefficients": {"COEFF0": 3.6, "COEFF1": 1e-4, "CRVAL1": 3.6, "CD1_1": 1e-4},
        "unit": {**common, "CDELT1": 1e-4, "CUNIT1": "log10(Angstrom)"},
        "paper III": {"CTYPE1": "WAVE-LOG", "CUNIT1": "Angstrom", "CRVAL1": 10**3.6, "CRPIX1": 1.0,
                      "CDELT1": 1e-4 * np.log(10) * 10**3.6},
    }  # fmt: skip
    for name, keywords in forms.items():
        got = only(image(tmp_path / f"{name}.fits", FLUX, **keywords))
        np.testing.assert_allclose(got.axis, 10**log, rtol=1e-9, err_msg=name)
        assert got.unit == u.Angstrom


def test_wavelengths_of_air_become_those_of_vacuum(
    tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]
) -> None:
    keywords = {"CUNIT1": "Angstrom", "CRVAL1": 6540.0, "CDELT1": 0.5, "CRPIX1": 1.0}
    forms = {"fits": {"CTYPE1": "AWAV"}, "word": {"CTYPE1": "LINEAR", "AIRORVAC": "air"}, "option": {}}
    for name, more in forms.items():
        path = image(tmp_path / f"{name}.fits", FLUX, **keywords, **more)
        got = only(path, air=True if name == "option" else None)
        # H alpha: 6562.79 in air is 6564.60 in vacuum (NIST).
        assert np.interp(6562.79, 6540 + 0.5 * np.arange(N), got.axis) == pytest.approx(6564.60, abs=0.01)
        assert got.notes == ("wavelengths of air were turned into those of vacuum",)
    assert only(path, air=False).axis[0] == 6540


def test_frequencies_and_velocities(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    path = image(tmp_path / "f.fits", FLUX, CTYPE1="FREQ", CUNIT1="GHz", CRVAL1=115.0, CDELT1=-0.001, CRPIX1=1.0,
                 RESTFRQ=115.2712018e9, BUNIT="K")  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, 115e9 - 1e6 * np.arange(N)[::-1])
    np.testing.assert_array_equal(got.flux, FLUX[::-1])
    assert (got.unit, got.flux_unit, got.rest_frequency) == (u.Hz, u.K, 115.2712018e9)
    velocity = {"CUNIT1": "m/s", "CRVAL1": 1e6, "CDELT1": 5e3, "CRPIX1": 1.0}
    for ctype, convention in (("VRAD", "radio"), ("VOPT", "optical"), ("VELO", "relativistic"), ("VELO-LSR", "radio")):
        path = image(tmp_path / f"{ctype}.fits", FLUX, CTYPE1=ctype, RESTFRQ=HI_REST_FREQUENCY, **velocity)
        got = only(path)
        np.testing.assert_allclose(got.axis, 1000 + 5 * np.arange(N))
        assert (got.unit, got.convention, got.rest_frequency) == (u.km / u.s, convention, HI_REST_FREQUENCY)
    path = image(tmp_path / "none.fits", FLUX, CTYPE1="VRAD", **velocity)
    assert only(path).rest_frequency is None
    assert only(path, rest_frequency=1e11).rest_frequency == 1e11


def test_gildas_counts_from_the_line(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    path = image(tmp_path / "class.fits", FLUX.reshape(1, 1, N), CTYPE1="FREQ", CRVAL1=0.0, CDELT1=1e6, CRPIX1=60.0,
                 CTYPE2="RA---GLS", CTYPE3="DEC--GLS", RESTFREQ=230.538e9)  # fmt: skip
    np.testing.assert_allclose(only(path).axis, 230.538e9 + 1e6 * (np.arange(N) - 59))


def test_the_spectral_axis_may_be_any(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    path = image(tmp_path / "z.fits", FLUX.reshape(N, 1, 1), CTYPE1="RA---SIN", CTYPE2="DEC--SIN", CTYPE3="WAVE",
                 CUNIT3="um", CRVAL3=2.0, CDELT3=0.001, CRPIX3=1.0)  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, 2 + 0.001 * np.arange(N))
    np.testing.assert_array_equal(got.flux, FLUX)


def test_companions(tmp_path: Path, only: Callable[..., Any]) -> None:
    axis = {"CTYPE1": "WAVE", "CUNIT1": "nm", "CRVAL1": 400.0, "CDELT1": 0.25, "CRPIX1": 1.0}
    mask = np.zeros(N, int)
    mask[5] = 4
    weight = np.full(N, 4.0)
    weight[7] = 0
    flux = fits.ImageHDU(FLUX, fits.Header(axis), name="FLUX")
    for name, data, expected in (("IVAR", weight, 0.5), ("ERRS", np.full(N, 0.3), 0.3), ("VAR", np.full(N, 9.0), 3.0)):
        path = tmp_path / f"{name}.fits"
        beside = [fits.ImageHDU(data, name=name), fits.ImageHDU(mask, name="DQ")]
        fits.HDUList([fits.PrimaryHDU(), flux, *beside]).writeto(path)
        got = only(path)
        missing = {5, 7} if name == "IVAR" else {5}
        assert set(np.flatnonzero(np.isnan(got.flux))) == missing
        np.testing.assert_allclose(got.error[10:], expected)


def test_an_extension_of_wavelengths(tmp_path: Path) -> None:
    wave = fits.ImageHDU(WAVE**1.01, name="WAVELENGTH")
    wave.header["BUNIT"] = "Angstrom"
    path = tmp_path / "w.fits"
    fits.HDUList([fits.PrimaryHDU(np.stack([FLUX, 2 * FLUX])), wave]).writeto(path)
    opened = open_spectra(path)
    assert [one.row for one in opened.spectra] == [0, 1]
    np.testing.assert_allclose(opened.spectra[1].axis, WAVE**1.01)
    np.testing.assert_allclose(opened.spectra[1].flux, 2 * FLUX)


def test_axes_that_are_linear_in_something_else(
    tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    # Even in frequency: 500 to 510 nm.
    keywords = {"CTYPE1": "WAVE-F2W", "CUNIT1": "m", "CRVAL1": 5e-7, "CDELT1": 1e-10, "CRPIX1": 1.0}
    got = only(image(tmp_path / "f2w.fits", FLUX, **keywords))
    np.testing.assert_allclose(np.diff(1 / got.axis, n=2), 0, atol=1e-3)
    assert got.axis[:2] == pytest.approx([5e-7, 5.001e-7], rel=1e-6) and got.notes == ()
    path = image(tmp_path / "tab.fits", FLUX, **keywords | {"CTYPE1": "WAVE-TAB"})
    assert "expected an axis that wcslib can follow, got WAVE-TAB" in refusal(path)


def test_other_dialects(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    path = image(tmp_path / "type.fits", FLUX, CTYPE1="Angstrom", CRVAL1=400.0, CDELT1=1.0)
    assert only(path).axis[-1] == 400 + N - 1
    path = image(tmp_path / "pc.fits", FLUX, CTYPE1="WAVE", CUNIT1="nm", CRVAL1=400.0, CDELT1=1.0, PC1_1=0.5)
    assert only(path).axis[1] == 400.5
    path = image(tmp_path / "log.fits", FLUX, CTYPE1="LINEAR", CRVAL1=3.6, CDELT1=1e-4)
    assert only(path, unit="log(Angstrom)").axis[0] == pytest.approx(10**3.6)


def test_rows_on_one_axis_and_one_that_is_empty(tmp_path: Path, image: Callable[..., Any]) -> None:
    rows = np.stack([FLUX, np.full(N, np.nan), 2 * FLUX])
    path = image(tmp_path / "rows.fits", rows, CTYPE1="WAVE", CUNIT1="Angstrom", CRVAL1=4000.0, CDELT1=2.5, APID3="m31")
    opened = open_spectra(path)
    assert [(one.name, one.row) for one in opened.spectra] == [("rows 0", 0), ("m31", 2)]
    np.testing.assert_array_equal(opened.spectra[1].flux, 2 * FLUX)
    (error,) = opened.errors
    assert error.fields == {"path": str(path), "row": 1}
    assert error.message == (
        f"{path}, spectrum 1: expected a flux, all {N} bins are missing, masked or of no weight; leave it out"
    )


def multispec(image: Callable[..., Any], path: Path, kind: int) -> Path:
    words = 'wtype=multispec spec1 = "1 1 0 4000. 2.5 120 0. 1. 9." spec2 = "2 2 '
    if kind == 1:
        words += '1 3.6 1.0E-4 100 0.001 11. 19."'
    else:
        # A Chebyshev polynomial of two terms over pixels 1 to 120.
        words += '2 4000. 2.5 120 0.001 11. 19. 1. 0. 1 2 1 120 4100. 100."'
    keywords = {"WAT0_001": "system=multispec", "WAT1_001": "wtype=multispec label=Wavelength units=angstroms",
                "CTYPE1": "MULTISPE", "CTYPE2": "MULTISPE", "CD1_1": 1.0, "CD2_2": 1.0, "WCSDIM": 2,
                "APNUM1": "1 1 1 9", "APNUM2": "2 2 11 19"}  # fmt: skip
    for part in range(0, len(words), 68):
        keywords[f"WAT2_{part // 68 + 1:03d}"] = words[part : part + 68]
    return image(path, np.stack([FLUX, 2 * FLUX]), **keywords)


def test_multispec(tmp_path: Path, image: Callable[..., Any]) -> None:
    first, second = open_spectra(multispec(image, tmp_path / "log.fits", kind=1)).spectra
    np.testing.assert_allclose(first.axis, WAVE)
    np.testing.assert_allclose(second.axis, 10 ** (3.6 + 1e-4 * np.arange(100)) / 1.001)
    np.testing.assert_allclose(second.flux, 2 * FLUX[:100])
    first, second = open_spectra(multispec(image, tmp_path / "curved.fits", kind=2)).spectra
    np.testing.assert_allclose(first.axis, WAVE)
    np.testing.assert_allclose(second.axis, np.linspace(4000, 4200, N) / 1.001)


def test_lamost_stack(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    # Data releases 1 to 7: flux, inverse variance, wavelength, and-mask, or-mask.
    wave = 10 ** (3.5682 + 1e-4 * np.arange(N))
    rows = np.stack([FLUX, np.full(N, 25.0), wave, np.zeros(N), np.full(N, 1)]).astype("f4")
    rows[3, 4], rows[1, 9] = 32, 0
    path = image(tmp_path / "spec-55859-F5902_sp01-001.fits", rows, TELESCOP="LAMOST", COEFF0=3.5682, COEFF1=1e-4,
                 VACUUM=1, DESIG="LAMOST J220848.54-020324.3")  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, wave, rtol=1e-6)
    assert set(np.flatnonzero(np.isnan(got.flux))) == {4, 9}
    np.testing.assert_allclose(got.error[:3], 0.2)
    assert (got.name, got.notes, got.row) == ("LAMOST J220848.54-020324.3", (), None)


def test_sdss_stack(tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any]) -> None:
    # spSpec of data releases up to 7: spectrum, continuum-subtracted spectrum, noise, and-mask, or-mask.
    rows = np.stack([FLUX, FLUX - 1, np.full(N, 0.1), np.zeros(N), np.zeros(N)]).astype("f4")
    rows[2, 3] = 0
    path = image(tmp_path / "spSpec-51630-0266-001.fit", rows, TELESCOP="SDSS 2.5-M", COEFF0=3.58, COEFF1=1e-4,
                 DC__FLAG=1, CTYPE1="", BUNIT="1.0E-17 erg/cm/s/Ang")  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, 10 ** (3.58 + 1e-4 * np.arange(N)))
    np.testing.assert_allclose(got.error[:3], 0.1, rtol=1e-6)
    assert list(np.flatnonzero(np.isnan(got.flux))) == [3]
