"""Spectra in tables of text, each written here as a real file and read back."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table

from survey_io.errors import OptionError
from survey_io.spectra import find_spectra, open_spectra

RNG = np.random.default_rng(11)
N = 120
WAVE = 4000 + 2.5 * np.arange(N)
FLUX = RNG.normal(1, 0.1, N)
CGS = u.Unit("erg s-1 cm-2 Angstrom-1")


@pytest.mark.parametrize("form", ["ascii.ecsv", "votable", "ascii.ipac", "fits"])
def test_tables_with_units(tmp_path: Path, form: str, only: Callable[..., Any]) -> None:
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
def test_heads_of_plain_columns(tmp_path: Path, head: str, only: Callable[..., Any]) -> None:
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


def test_columns_without_names(tmp_path: Path, only: Callable[..., Any]) -> None:
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


def test_plain_numbers_of_all_sorts(tmp_path: Path, only: Callable[..., Any]) -> None:
    path = tmp_path / "odd.txt"
    path.write_text("wavelength flux name\n4000.0 1.0D+00 a\n\n4001.0 -- b\n# later\n4002.0 nan c\n4003 2 d # odd\n")
    got = only(path)
    np.testing.assert_array_equal(got.flux, [1, np.nan, np.nan, 2])


def test_profiles_of_viewers(tmp_path: Path, only: Callable[..., Any]) -> None:
    path = tmp_path / "carta.tsv"
    rows = "\n".join(f"{x}\t{y:.6f}" for x, y in zip(WAVE, FLUX, strict=True))
    path.write_text(f"# xLabel: Radio velocity (km/s)\n# yLabel: Value (Jy/beam)\n# x\ty\n{rows}\n")
    got = only(path)
    assert (got.unit, got.flux_unit, len(got.axis)) == (u.km / u.s, u.Jy / u.beam, N)


def test_light_curves_of_surveys(tmp_path: Path, only: Callable[..., Any]) -> None:
    # ZTF repeats the place in each row, OGLE names no column.
    path = tmp_path / "ztf.csv"
    path.write_text("oid,hjd,mag,magerr,catflags,ra,dec\n1,2458200.1,17.2,0.02,0,10.00001,5.00001\n"
                    "1,2458201.1,17.3,0.03,0,10.00002,5.00002\n")  # fmt: skip
    got = only(path)
    assert got.is_series and list(got.flux) == [17.2, 17.3] and list(got.error) == [0.02, 0.03]
    path = tmp_path / "ogle.dat"
    path.write_text("2455260.8541 15.291 0.006\n2455261.8541 15.311 0.007\n")
    got = only(path)
    assert got.unit == u.d and list(got.error) == [0.006, 0.007]
    assert got.notes[1] == "no unit of 'time': taken as days"


def test_an_option_names_the_first_column(
    tmp_path: Path, only: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    path = tmp_path / "xy.csv"
    path.write_text("x,y\n80,1\n81,2\n")
    got = only(path, unit="GHz")
    assert got.unit == u.GHz and list(got.flux) == [1, 2]
    assert "its columns: x, y" in refusal(path)


def test_the_indo_us_library(shared_data: Path, only: Callable[..., Any]) -> None:
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
