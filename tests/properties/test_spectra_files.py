"""Whatever happened to a file: it opens, or is refused in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_io.errors import InputError
from survey_io.spectra import open_spectra
from survey_io.spectrum_build import Opened

N = 40
WAVE, FLUX = 4000 + 2.5 * np.arange(N), np.linspace(1, 2, N)


def linear(path: Path) -> None:
    header = fits.Header({"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 4000.0, "CDELT1": 2.5})
    fits.PrimaryHDU(FLUX, header).writeto(path)


def table(path: Path) -> None:
    both = {"WAVE": WAVE, "FLUX": FLUX}
    columns = [fits.Column(name, f"{N}D", array=np.stack([values] * 3)) for name, values in both.items()]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)


def written(form: str) -> Callable[[Path], None]:
    return lambda path: QTable({"wavelength": WAVE * u.nm, "flux": FLUX * u.Jy}).write(path, format=form)


def plain(path: Path) -> None:
    np.savetxt(path, np.column_stack([WAVE, FLUX, FLUX]), header="wavelength flux error")


FORMS = {"linear": linear, "table": table, "ecsv": written("ascii.ecsv"), "votable": written("votable"),
         "ipac": written("ascii.ipac"), "csv": written("ascii.csv"), "plain": plain}  # fmt: skip


@cache
def content(form: str) -> bytes:
    with TemporaryDirectory() as folder:
        FORMS[form](Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


@given(st.data(), st.sampled_from(list(FORMS)))
@settings(deadline=None, max_examples=150)
def test_damage_is_told_in_one_line(data: st.DataObject, form: str) -> None:
    damaged = bytearray(content(form))
    # Headers and heads, where words decide, are hit as often as numbers.
    reach = data.draw(st.sampled_from([400, len(damaged)]))
    for place in data.draw(st.lists(st.integers(0, min(reach, len(damaged)) - 1), max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                opened = open_spectra(path)
        except InputError as error:
            assert str(path) in error.message
            return
    assert isinstance(opened, Opened) and opened.spectra + opened.errors
    for spectrum in opened.spectra:
        assert len(spectrum.axis) == len(spectrum.flux) > 1
        assert (np.diff(spectrum.axis) > 0).all() and np.isfinite(spectrum.axis).all()
        assert np.isfinite(spectrum.flux).any()
