"""Which files are opened, what is refused and how, and what is left to specutils."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table

from survey_io.errors import InputError
from survey_io.spectra import find_spectra, open_spectra

RNG = np.random.default_rng(11)
N = 120
WAVE = 4000 + 2.5 * np.arange(N)
FLUX = RNG.normal(1, 0.1, N)
CGS = u.Unit("erg s-1 cm-2 Angstrom-1")


def test_what_is_not_in_order(tmp_path: Path, only: Callable[..., Any]) -> None:
    axis = np.array([4003.0, 4001, 4002, 4002, 4004])
    table = Table({"wavelength": axis, "flux": [3.0, 1, 2, 4, np.nan], "error": [1.0, 1, 3, 4, 1]})
    table["wavelength"].unit = "Angstrom"
    table.write(tmp_path / "o.ecsv")
    got = only(tmp_path / "o.ecsv", air=False)
    np.testing.assert_array_equal(got.axis, [4001, 4002, 4003, 4004])
    np.testing.assert_array_equal(got.flux, [1, 3, 3, np.nan])
    np.testing.assert_array_equal(got.error[:3], [1, 2.5, 1])
    assert got.notes == ("the wavelengths are not in order: sorted; 1 bins repeat a wavelength: averaged",)


def test_images_and_cubes_are_for_another_command(
    tmp_path: Path, image: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 0.1, "CDELT2": 0.1}
    path = image(tmp_path / "i.fits", np.ones((9, 8)), **sky)
    assert "unit 0 is an image of the sky: `skysift detect` reads it" in refusal(path)
    path = image(tmp_path / "c.fits", np.ones((5, 9, 8)), **sky, CTYPE3="FREQ", CRVAL3=1.4e9, CDELT3=1e6)
    assert "unit 0 is a cube of the sky: `skysift detect` reads it" in refusal(path)


def test_no_axis(
    tmp_path: Path, only: Callable[..., Any], image: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
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
    Table({"ra": FLUX, "dec": FLUX * 9, "frequency": FLUX, "flux": FLUX}).write(path)
    assert "is a catalogue" in refusal(path)
    path = tmp_path / "two.csv"
    path.write_text("wavelength,star1,star2\n4000,1,2\n4001,2,3\n")
    assert "has the axis 'wavelength' but no single column of flux (its columns: wavelength, star1" in refusal(path)


def test_wrong_units(tmp_path: Path, image: Callable[..., Any], refusal: Callable[..., Any]) -> None:
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


def test_too_little(tmp_path: Path, refusal: Callable[..., Any]) -> None:
    path = tmp_path / "one.csv"
    path.write_text("wavelength,flux\n4000,1\n")
    assert "expected at least 2 bins with a wavelength, got 1; give the whole spectrum" in refusal(path)
    path.write_text("wavelength,flux\n4000,1\n4000,2\n")
    assert "expected at least 2 different places along the axis, all are at 4000 Angstrom" in refusal(path)
    path.write_text("wavelength,flux\n4000,nan\n4001,nan\n")
    assert "expected a flux, all 2 bins are missing, masked or of no weight; leave it out" in refusal(path)


def test_damaged_files(tmp_path: Path, image: Callable[..., Any], refusal: Callable[..., Any]) -> None:
    whole = image(tmp_path / "w.fits", RNG.normal(size=4000), CTYPE1="WAVE", CUNIT1="nm", CRVAL1=400.0, CDELT1=1.0)
    content = whole.read_bytes()
    path = tmp_path / "d.fits"
    path.write_bytes(content[:-9000])
    assert "the file ends after" in refusal(path) and "it is cut short; fetch it again" in refusal(path)
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


def test_find_spectra(tmp_path: Path) -> None:
    for name in ("b.fits", "a/c.txt", "a/d.ecsv.gz", "a/picture.png", ".hidden/e.fits", "a/g_1_spec.fits",
                 "a/g_1_spec.txt", "a/g_1_cube.fits", "a/g_1_mom0.fits", "a/h_mask.fits", "a/b_truth.fits",
                 "stellar_classes.vot", "a/b_cat.fits"):  # fmt: skip
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
