"""Spectra and light curves in the layouts that are published, each written here as a real file and read back."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table

from survey_io.errors import InputError, OptionError
from survey_io.spectra import find_spectra, open_spectra
from survey_io.spectral import HI_REST_FREQUENCY
from survey_io.spectrum import Spectrum

RNG = np.random.default_rng(11)
N = 120
WAVE = 4000 + 2.5 * np.arange(N)
FLUX = RNG.normal(1, 0.1, N)
CGS = u.Unit("erg s-1 cm-2 Angstrom-1")


def only(path: Path, **options: Any) -> Spectrum:
    opened = open_spectra(path, **options)
    assert len(opened.spectra) == 1 and opened.errors == ()
    spectrum = opened.spectra[0]
    assert (np.diff(spectrum.axis) > 0).all()
    assert spectrum.axis.dtype == spectrum.flux.dtype == np.float64
    return spectrum


def image(path: Path, data: np.ndarray, **keywords: Any) -> Path:
    header = fits.Header()
    for key, value in keywords.items():
        header[key.replace("__", "-")] = value
    fits.PrimaryHDU(data, header).writeto(path)
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_spectra(path, **options)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


# --- FITS images of one axis


def test_linear_wavelengths(tmp_path: Path) -> None:
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


def test_a_matrix_instead_of_a_step_and_no_unit(tmp_path: Path) -> None:
    path = image(tmp_path / "a.b.fits", FLUX, CTYPE1="LINEAR", CRVAL1=4000.0, CD1_1=2.5, CRPIX1=1.0)
    got = only(path)
    np.testing.assert_allclose(got.axis, WAVE)
    assert got.name == "a.b"
    assert [note.split(":")[0] for note in got.notes] == [
        "no CUNIT1 in the header", "nothing says whether wavelengths are of air or vacuum",
    ]  # fmt: skip


def test_iraf_words(tmp_path: Path) -> None:
    path = image(
        tmp_path / "iraf.fits", FLUX, CTYPE1="LINEAR", CRVAL1=400.0, CD1_1=0.25, CRPIX1=1.0, DC__FLAG=0,
        WAT0_001="system=equispec", WAT1_001="wtype=linear label=Wavelength units=nm",
    )  # fmt: skip
    got = only(path)
    assert got.unit == u.nm
    np.testing.assert_allclose(got.axis, WAVE / 10)


def test_logarithmic_wavelengths(tmp_path: Path) -> None:
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


def test_wavelengths_of_air_become_those_of_vacuum(tmp_path: Path) -> None:
    keywords = {"CUNIT1": "Angstrom", "CRVAL1": 6540.0, "CDELT1": 0.5, "CRPIX1": 1.0}
    forms = {"fits": {"CTYPE1": "AWAV"}, "word": {"CTYPE1": "LINEAR", "AIRORVAC": "air"}, "option": {}}
    for name, more in forms.items():
        path = image(tmp_path / f"{name}.fits", FLUX, **keywords, **more)
        got = only(path, air=True if name == "option" else None)
        # H alpha: 6562.79 in air is 6564.60 in vacuum (NIST).
        assert np.interp(6562.79, 6540 + 0.5 * np.arange(N), got.axis) == pytest.approx(6564.60, abs=0.01)
        assert got.notes == ("wavelengths of air were turned into those of vacuum",)
    assert only(path, air=False).axis[0] == 6540


def test_frequencies_and_velocities(tmp_path: Path) -> None:
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


def test_gildas_counts_from_the_line(tmp_path: Path) -> None:
    path = image(tmp_path / "class.fits", FLUX.reshape(1, 1, N), CTYPE1="FREQ", CRVAL1=0.0, CDELT1=1e6, CRPIX1=60.0,
                 CTYPE2="RA---GLS", CTYPE3="DEC--GLS", RESTFREQ=230.538e9)  # fmt: skip
    np.testing.assert_allclose(only(path).axis, 230.538e9 + 1e6 * (np.arange(N) - 59))


def test_the_spectral_axis_may_be_any(tmp_path: Path) -> None:
    path = image(tmp_path / "z.fits", FLUX.reshape(N, 1, 1), CTYPE1="RA---SIN", CTYPE2="DEC--SIN", CTYPE3="WAVE",
                 CUNIT3="um", CRVAL3=2.0, CDELT3=0.001, CRPIX3=1.0)  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, 2 + 0.001 * np.arange(N))
    np.testing.assert_array_equal(got.flux, FLUX)


def test_companions(tmp_path: Path) -> None:
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


# --- FITS images of rows


def test_rows_on_one_axis_and_one_that_is_empty(tmp_path: Path) -> None:
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


def multispec(path: Path, kind: int) -> Path:
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


def test_multispec(tmp_path: Path) -> None:
    first, second = open_spectra(multispec(tmp_path / "log.fits", kind=1)).spectra
    np.testing.assert_allclose(first.axis, WAVE)
    np.testing.assert_allclose(second.axis, 10 ** (3.6 + 1e-4 * np.arange(100)) / 1.001)
    np.testing.assert_allclose(second.flux, 2 * FLUX[:100])
    first, second = open_spectra(multispec(tmp_path / "curved.fits", kind=2)).spectra
    np.testing.assert_allclose(first.axis, WAVE)
    np.testing.assert_allclose(second.axis, np.linspace(4000, 4200, N) / 1.001)


def test_lamost_stack(tmp_path: Path) -> None:
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


def test_sdss_stack(tmp_path: Path) -> None:
    # spSpec of data releases up to 7: spectrum, continuum-subtracted spectrum, noise, and-mask, or-mask.
    rows = np.stack([FLUX, FLUX - 1, np.full(N, 0.1), np.zeros(N), np.zeros(N)]).astype("f4")
    rows[2, 3] = 0
    path = image(tmp_path / "spSpec-51630-0266-001.fit", rows, TELESCOP="SDSS 2.5-M", COEFF0=3.58, COEFF1=1e-4,
                 DC__FLAG=1, CTYPE1="", BUNIT="1.0E-17 erg/cm/s/Ang")  # fmt: skip
    got = only(path)
    np.testing.assert_allclose(got.axis, 10 ** (3.58 + 1e-4 * np.arange(N)))
    np.testing.assert_allclose(got.error[:3], 0.1, rtol=1e-6)
    assert list(np.flatnonzero(np.isnan(got.flux))) == [3]


# --- FITS tables


def test_sdss(tmp_path: Path) -> None:
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


def test_lamost_table(tmp_path: Path) -> None:
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


def test_units_of_the_same_name(tmp_path: Path) -> None:
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
def test_light_curves(tmp_path: Path, mission: str) -> None:
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


def test_what_the_cube_job_extracts(tmp_path: Path) -> None:
    from survey_io.cubelet import write_cubelet

    assert write_cubelet  # the layout below is that of its table
    frequency = 1.40e9 + 2e4 * np.arange(20)
    velocity = 299792.458 * (HI_REST_FREQUENCY / frequency - 1)
    density = np.where(np.arange(20) < 8, 0.0, 1.0)
    outline = np.arange(20.0)
    error = np.where(np.arange(20) == 2, 0.0, 0.5)
    table = Table({"channel": np.arange(5, 25), "frequency": frequency, "velocity": velocity, "flux_density": density,
                   "flux_density_err": density / 10, "n_pixels": np.arange(20), "flux_outline": outline,
                   "flux_outline_err": error})  # fmt: skip
    for name, unit in (("frequency", "Hz"), ("velocity", "km/s"), ("flux_density", "Jy"), ("flux_outline", "Jy")):
        table[name].unit = unit
    hdu = fits.table_to_hdu(table)
    hdu.name = "SPECTRUM"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "cube_3_spec.fits")
    lines = [f"# {name} [{table[name].unit or '1'}]" for name in table.colnames]
    lines += [" ".join(f"{value:.9g}" for value in row) for row in table.as_array().tolist()]
    (tmp_path / "cube_3_spec.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for suffix, tolerance in (("fits", 1e-12), ("txt", 1e-8)):
        got = only(tmp_path / f"cube_3_spec.{suffix}")
        np.testing.assert_allclose(got.axis, frequency, rtol=tolerance)
        np.testing.assert_array_equal(got.flux, np.where(error > 0, outline, np.nan))
        assert (got.unit, got.flux_unit, got.name) == (u.Hz, u.Jy, "cube_3_spec")
        assert got.rest_frequency == pytest.approx(HI_REST_FREQUENCY, rel=1e-8)
        assert got.error[0] == 0.5


# --- Tables in text


@pytest.mark.parametrize("form", ["ascii.ecsv", "votable", "ascii.ipac", "fits"])
def test_tables_with_units(tmp_path: Path, form: str) -> None:
    flux = FLUX.copy()
    flux[3] = np.nan
    table = QTable({"freq": np.linspace(80, 81, N) * u.GHz, "intensity": flux * u.K, "rms": np.full(N, 0.2) * u.K})
    path = tmp_path / "table"
    table.write(path, format=form)
    got = only(path)
    np.testing.assert_allclose(got.axis, np.linspace(80, 81, N))
    np.testing.assert_allclose(got.flux, flux)
    np.testing.assert_allclose(got.error, 0.2)
    assert (got.unit, got.flux_unit) == (u.GHz, u.K)


def test_arrays_in_ecsv(tmp_path: Path) -> None:
    table = Table({"id": ["s1", "s2"], "wavelength": np.stack([WAVE, WAVE]), "flux": np.stack([FLUX, 2 * FLUX])})
    table["wavelength"].unit = "Angstrom"
    table.write(tmp_path / "v.ecsv")
    assert [(one.name, one.row) for one in open_spectra(tmp_path / "v.ecsv").spectra] == [("s1", 0), ("s2", 1)]


HEADS = {
    "names": ("wavelength flux error", None, u.Angstrom),
    "csv": ("Wavelength (nm),Flux (Jy),Error", ",", u.nm),
    "commented": ("# wave_um  flam  sigma", None, u.um),
    "units below": ("# wavelength flux err\n# nm Jy Jy", None, u.nm),
    "unit of the axis below": ("#  wavelength   spectrum  noise\n#   angstroms", None, u.Angstrom),
    "line by line": ("# frequency [GHz]\n# flux_density [Jy]\n# rms [Jy]", None, u.GHz),
    "numbered": ("# col1: frequency (GHz)\n# col2: flux (Jy)\n# col3: error (Jy)", None, u.GHz),
    "keywords": ("# OBJECT = NGC 1\n# date: 2020\n# BJD mag mag_err", None, u.d),
    "semicolons": ("velocity_kms;T_mb;err", ";", u.km / u.s),
}


@pytest.mark.parametrize("head", list(HEADS))
def test_heads_of_plain_columns(tmp_path: Path, head: str) -> None:
    text, sign, unit = HEADS[head]
    values = np.column_stack([WAVE, FLUX, FLUX * 0 + 0.1])
    rows = [(sign or "  ").join(f"{value:.6f}" for value in row) for row in values]
    path = tmp_path / "plain.txt"
    path.write_text("\n".join([text, "", *rows]) + "\n", encoding="utf-8")
    got = only(path)
    assert got.unit == unit
    np.testing.assert_allclose(got.axis, WAVE)
    np.testing.assert_allclose(got.flux, FLUX, atol=1e-6)
    np.testing.assert_allclose(got.error, 0.1)
    assert got.name == ("NGC 1" if head == "keywords" else "plain")


def test_columns_without_names(tmp_path: Path) -> None:
    path = tmp_path / "two.dat"
    np.savetxt(path, np.column_stack([WAVE, FLUX]))
    got = only(path)
    np.testing.assert_allclose(got.axis, WAVE)
    assert got.notes[0] == "no names of the columns: the first is the axis, the second the flux"
    assert got.notes[1] == "no unit of 'wavelength': taken as Angstrom"
    got = only(path, unit="MHz")
    assert got.unit == u.MHz and len(got.notes) == 1
    with pytest.raises(OptionError, match="expected the unit of a wavelength, .* got 'K'"):
        open_spectra(path, unit="K")


def test_plain_numbers_of_all_sorts(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_text("wavelength flux name\n4000.0 1.0D+00 a\n\n4001.0 -- b\n# later\n4002.0 nan c\n4003 2 d\n")
    got = only(path)
    np.testing.assert_array_equal(got.flux, [1, np.nan, np.nan, 2])


def test_the_indo_us_library(shared_data: Path) -> None:
    folder = shared_data / "stellar_spectra" / "raw_examples"
    paths = find_spectra([folder])
    assert len(paths) == 3
    # Bins with the filler 1e-4: as many as a search for it finds, but told by COVERAGE and GAPS.
    for path in paths:
        got = only(path)
        with gzip.open(path, "rt") as file:
            filler = sum(line.split()[-1:] == ["1.000000E-4"] for line in file)
        assert np.count_nonzero(np.isnan(got.flux)) == filler > 0
        assert (got.axis[0], got.axis[-1], len(got.axis), got.unit) == (3465, 9469, 15011, u.Angstrom)
        assert np.nanmax(got.flux) < 2
    assert [only(path).name for path in paths] == ["HD 100563", "HD 12533", "BD+17 4708"]


# --- Order


def test_what_is_not_in_order(tmp_path: Path) -> None:
    axis = np.array([4003.0, 4001, 4002, 4002, 4004])
    table = Table({"wavelength": axis, "flux": [3.0, 1, 2, 4, np.nan], "error": [1.0, 1, 3, 4, 1]})
    table["wavelength"].unit = "Angstrom"
    table.write(tmp_path / "o.ecsv")
    got = only(tmp_path / "o.ecsv", air=False)
    np.testing.assert_array_equal(got.axis, [4001, 4002, 4003, 4004])
    np.testing.assert_array_equal(got.flux, [1, 3, 3, np.nan])
    np.testing.assert_array_equal(got.error[:3], [1, 2.5, 1])
    assert got.notes == ("the wavelengths are not in order: sorted; 1 bins repeat a wavelength: averaged",)


# --- Refusals


def test_images_and_cubes_are_for_another_command(tmp_path: Path) -> None:
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 0.1, "CDELT2": 0.1}
    path = image(tmp_path / "i.fits", np.ones((9, 8)), **sky)
    assert "unit 0 is an image of the sky: `skysift detect` reads it" in refusal(path)
    path = image(tmp_path / "c.fits", np.ones((5, 9, 8)), **sky, CTYPE3="FREQ", CRVAL3=1.4e9, CDELT3=1e6)
    assert "unit 0 is a cube of the sky: `skysift detect` reads it" in refusal(path)


def test_no_axis(tmp_path: Path) -> None:
    path = image(tmp_path / "n.fits", FLUX)
    assert "has no wavelength axis (CTYPE1 none, no CRVAL1 and CDELT1)" in refusal(path)
    path = image(tmp_path / "pixels.fits", FLUX, CTYPE1="PIXEL", CRVAL1=1.0, CDELT1=1.0)
    assert "has no wavelength axis (axis 1 counts from 1 to 120, without a unit)" in refusal(path)
    path = image(tmp_path / "nm.fits", FLUX, CTYPE1="WAVE", CRVAL1=400.0, CDELT1=1.0)
    text = refusal(path)
    assert "expected CUNIT1 beside wavelengths from 400 to 519, the header has none; give it with --unit" in text
    assert only(path, unit="nm").unit == u.nm
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "empty.fits")
    assert "unit 0 has no pixels" in refusal(tmp_path / "empty.fits")
    path = tmp_path / "t.fits"
    fits.table_to_hdu(Table({"mass": FLUX, "flux": FLUX})).writeto(path)
    text = refusal(path)
    assert "has no column of a wavelength, a frequency, a velocity or a time (its columns: mass, flux)" in text
    path = tmp_path / "catalogue.ecsv"
    Table({"ra": FLUX, "dec": FLUX, "frequency": FLUX, "flux": FLUX}).write(path)
    assert "is a catalogue" in refusal(path)
    path = tmp_path / "two.csv"
    path.write_text("wavelength,star1,star2\n4000,1,2\n4001,2,3\n")
    assert "has the axis 'wavelength' but no single column of flux (its columns: wavelength, star1" in refusal(path)


def test_wrong_units(tmp_path: Path) -> None:
    path = image(tmp_path / "k.fits", FLUX, CTYPE1="WAVE", CUNIT1="K", CRVAL1=4000.0, CDELT1=1.0)
    expected = "expected a wavelength, a frequency, a velocity or a time along"
    assert f"{expected} axis 1 (WAVE), its unit is 'K'; correct CUNIT1, or give it with --unit" in refusal(path)
    path = tmp_path / "k.ecsv"
    QTable({"wavelength": WAVE * u.K, "flux": FLUX}).write(path)
    assert f"{expected} the axis, the column 'wavelength' is in 'K'; correct its unit" in refusal(path)
    path = tmp_path / "nm.csv"
    path.write_text("wavelength,flux\n400,1\n401,2\n")
    assert "expected a unit of the axis 'wavelength' (400 to 401), the file tells none; give it" in refusal(path)
    path = tmp_path / "f.csv"
    path.write_text("frequency,flux\n80,1\n81,2\n")
    assert "expected a unit of the axis 'frequency' (80 to 81)" in refusal(path)


def test_too_little(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("wavelength,flux\n4000,1\n")
    assert "expected at least 2 bins with a wavelength, got 1; give the whole spectrum" in refusal(path)
    path.write_text("wavelength,flux\n4000,1\n4000,2\n")
    assert "expected at least 2 different places along the axis, all are at 4000 Angstrom" in refusal(path)
    path.write_text("wavelength,flux\n4000,nan\n4001,nan\n")
    assert "expected a flux, all 2 bins are missing, masked or of no weight; leave it out" in refusal(path)


def test_damaged_files(tmp_path: Path) -> None:
    whole = image(tmp_path / "w.fits", RNG.normal(size=4000), CTYPE1="WAVE", CUNIT1="nm", CRVAL1=400.0, CDELT1=1.0)
    content = whole.read_bytes()
    path = tmp_path / "d.fits"
    path.write_bytes(content[:-9000])
    assert "the file ends after" in refusal(path) and "it is cut short, fetch it again" in refusal(path)
    path.write_bytes(content[:1000])
    assert "fetch it again" in refusal(path)
    path = tmp_path / "d.fits.gz"
    path.write_bytes(gzip.compress(content)[:-500])
    assert "expected a complete packed file, it cannot be unpacked" in refusal(path)
    path = tmp_path / "d.txt"
    path.write_text("wavelength flux\n4000 1\n4001 2\n4002\n")
    text = refusal(path)
    assert "expected 2 columns in every line, the 3. line of numbers has 1: '4002'; the file is cut short" in text
    path.write_text("")
    assert "the file is empty" in refusal(path)
    path.write_text("one\n1\n2\n")
    assert "line 2 has one number; add the axis" in refusal(path)
    path.write_text("Dear reader,\nthis is no spectrum.\n")
    assert "expected columns of numbers" in refusal(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert "this is another kind of file; convert it" in refusal(path)
    path.write_text("<!DOCTYPE html><html>404</html>")
    assert "this is XML or HTML without a VOTable" in refusal(path)
    QTable({"wavelength": WAVE * u.nm, "flux": FLUX}).write(path, format="votable", overwrite=True)
    path.write_bytes(path.read_bytes()[:-800])
    assert "expected a complete VOTable" in refusal(path)
    assert "there is no such file; check the path" in refusal(tmp_path / "none")
    assert "this is not a file" in refusal(tmp_path)
    assert "expected FITS for the unit 1, this is not FITS" in refusal(tmp_path / "d.txt", hdu=1)


# --- What specutils reads


def test_desi(tmp_path: Path) -> None:
    # Three targets in two arms; specutils knows the layout by FIBERMAP and SCORES.
    targets = fits.table_to_hdu(Table({"TARGETID": [11, 12, 13]}))
    targets.name = "FIBERMAP"
    scores = fits.table_to_hdu(Table({"TARGETID": [11, 12, 13]}))
    scores.name = "SCORES"
    primary = fits.PrimaryHDU()
    primary.header["INFIL000"] = "x"
    units = [primary, targets, scores]
    flux = np.stack([FLUX, 2 * FLUX, 3 * FLUX])
    weight = np.ones((3, N))
    weight[1] = 0
    for arm, start in (("B", 3600.0), ("R", 5760.0)):
        wave = fits.ImageHDU(start + 0.8 * np.arange(N), name=f"{arm}_WAVELENGTH")
        wave.header["BUNIT"] = "Angstrom"
        image = fits.ImageHDU(flux, name=f"{arm}_FLUX")
        image.header["BUNIT"] = "10**-17 erg/(s cm2 Angstrom)"
        mask = fits.ImageHDU(np.zeros((3, N), "i4"), name=f"{arm}_MASK")
        resolution = fits.ImageHDU(np.zeros((3, 11, N), "f4"), name=f"{arm}_RESOLUTION")
        inverse = fits.ImageHDU(weight, name=f"{arm}_IVAR")
        inverse.header["BUNIT"] = "10**+34 (s2 cm4 Angstrom2) / erg2"
        units += [wave, image, inverse, mask, resolution]
    path = tmp_path / "coadd-main-dark-10000.fits"
    fits.HDUList(units).writeto(path)
    opened = open_spectra(path)
    assert "read by specutils as 'DESI coadd'" in opened.spectra[0].notes
    assert [one.row for one in opened.spectra] == [0, 2, 3, 5] and len(opened.errors) == 2
    np.testing.assert_allclose(opened.spectra[2].axis, 5760 + 0.8 * np.arange(N))
    np.testing.assert_allclose(opened.spectra[1].flux, 3 * FLUX)
    np.testing.assert_allclose(opened.spectra[1].error, 1)
    assert opened.spectra[0].flux_unit == 1e-17 * CGS


# --- Which files


def test_find_spectra(tmp_path: Path) -> None:
    for name in ("b.fits", "a/c.txt", "a/d.ecsv.gz", "a/picture.png", ".hidden/e.fits", "a/g_1_spec.fits",
                 "a/g_1_spec.txt", "a/g_1_cube.fits", "a/g_1_mom0.fits", "a/h_mask.fits"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_spectra([tmp_path])]
    assert found == ["a/c.txt", "a/d.ecsv.gz", "a/g_1_spec.fits", "a/h_mask.fits", "b.fits"]
    # Named ones are taken as they are, and once.
    named = [tmp_path / "a" / "picture.png", tmp_path / "b.fits"]
    assert find_spectra([*named, *named]) == named
    with pytest.raises(InputError, match="there is no such file; check the path"):
        find_spectra([tmp_path / "nothing.fits"])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="expected spectra in the folder, it has no file that ends in .fits, .fit"):
        find_spectra([tmp_path / "none"])
