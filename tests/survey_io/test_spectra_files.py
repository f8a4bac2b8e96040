"""Which files are searched for lines: told from headers and names."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from survey_io.names import file_stem
from survey_io.spectra_files import holds_spectra


def save(path, *units):
    fits.HDUList([fits.PrimaryHDU() if not units or not isinstance(units[0], fits.PrimaryHDU) else units[0],
                  *(u for u in units if not isinstance(u, fits.PrimaryHDU))]).writeto(path)  # fmt: skip
    return path


def header(**keys) -> fits.Header:
    return fits.Header(keys)


def table() -> fits.BinTableHDU:
    return fits.table_to_hdu(Table({"wavelength": np.arange(5.0), "flux": np.ones(5)}))


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([fits.PrimaryHDU(np.ones(100))], True),
        ([fits.PrimaryHDU(np.ones((1, 1, 100)), header(CTYPE1="WAVE"))], True),
        ([table()], True),
        ([fits.PrimaryHDU(np.ones((5, 100)), header(CTYPE1="WAVE-LOG"))], True),
        ([fits.PrimaryHDU(np.ones((50, 60)))], False),
        ([fits.PrimaryHDU(np.ones((50, 60)), header(CTYPE1="RA---SIN", CTYPE2="DEC--SIN"))], False),
        # A position-velocity cut is an image.
        ([fits.PrimaryHDU(np.ones((50, 60)), header(CTYPE1="RA---SIN", CTYPE2="FREQ"))], False),
        ([table(), fits.ImageHDU(np.ones((50, 60)))], False),
        ([fits.PrimaryHDU()], False),
    ],
)
def test_by_the_units_of_a_fits_file(tmp_path, units, expected):
    assert holds_spectra(save(tmp_path / "f.fits", *units)) is expected


def test_the_unit_asked_for_decides(tmp_path):
    path = save(tmp_path / "f.fits", fits.PrimaryHDU(np.ones((50, 60))), table())
    assert not holds_spectra(path) and holds_spectra(path, hdu=1) and not holds_spectra(path, hdu=7)


def test_other_files_by_their_names(tmp_path):
    for name, expected in (("a.csv", True), ("a.txt.gz", True), ("a.ecsv", True), ("a.png", False), ("no.fits", False)):
        (tmp_path / name).write_text("not a spectrum")
        assert holds_spectra(tmp_path / name) is expected
    assert not holds_spectra(tmp_path / "missing.fits")


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.fits", "a"), ("a.b.FITS.gz", "a.b"), ("spec.csv", "spec"), ("m31.dat.bz2", "m31"), ("noending", "noending"),
     (".fits", ".fits"), ("a.fits.fz", "a"), ("x.txt", "x")],
)  # fmt: skip
def test_results_are_called_after_the_file(name, stem):
    assert file_stem(f"/some/where/{name}") == stem
