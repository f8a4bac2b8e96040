"""Catalogues of others: their positions are found by UCD or name, in any unit, or it is said what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable, Table

from survey_io.errors import InputError
from survey_io.outside import find_positions, read_outside

RA, DEC = np.array([53.1, 0.25, 359.9]), np.array([-27.8, -0.5, 89.0])
SKY = SkyCoord(RA, DEC, unit="deg")


def tables() -> dict[str, Table]:
    hours = SKY.ra.to_string(unit="hour", sep=":", precision=4)
    degrees = SKY.dec.to_string(sep=":", precision=4, alwayssign=True)
    parts, minutes = SKY.ra.hms, SKY.dec.signed_dms
    ucd = Table({"n": [1, 2, 3], "alfa": RA, "beta": DEC, "ra": [1.0, 2.0, 3.0], "dec": [0.0, 0.0, 0.0]})
    for name, word in (("alfa", "pos.eq.ra;meta.main"), ("beta", "pos.eq.dec;meta.main"), ("ra", "pos.eq.ra")):
        ucd[name].meta["ucd"] = word
    old = Table({"x": RA, "y": DEC})
    old["x"].meta["ucd"], old["y"].meta["ucd"] = "POS_EQ_RA_MAIN", "POS_EQ_DEC_MAIN"
    return {
        "plain": Table({"RA": RA, "Dec": DEC}), "vizier": Table({"RAJ2000": RA * u.deg, "DEJ2000": DEC * u.deg}),
        "sextractor": Table({"ALPHA_J2000": RA, "DELTA_J2000": DEC}), "ucd": ucd, "old ucd": old,
        "sexagesimal": Table({"RA_ICRS": hours, "DE_ICRS": degrees}),
        "spaces": Table({"ra": np.char.replace(hours, ":", " "), "dec": np.char.replace(degrees, ":", " ")}),
        "letters": Table({"ra": SKY.ra.to_string(unit="hour"), "dec": SKY.dec.to_string()}),
        "bytes": Table({"ra": np.array(hours, "S"), "dec": np.array(degrees, "S")}),
        "text of numbers": Table({"ra": RA.astype(str), "dec": DEC.astype(str)}),
        "hours": Table({"ra": (RA / 15) * u.hourangle, "dec": DEC * u.deg}),
        "hours of time": Table({"ra": (RA / 15) * u.hour, "dec": DEC * u.deg}),
        "radians": Table({"ra": np.radians(RA) * u.rad, "dec": np.radians(DEC) * u.rad}),
        "split": Table({"RAh": parts.h, "RAm": parts.m, "RAs": parts.s, "DE-": np.where(minutes.sign < 0, "-", "+"),
                        "DEd": minutes.d, "DEm": minutes.m, "DEs": minutes.s}),
        "galactic": Table({"GLON": SKY.galactic.l.deg * u.deg, "GLAT": SKY.galactic.b.deg * u.deg}),
        "coordinates": QTable({"place": SKY}), "negative": Table({"ra": (RA + 180) % 360 - 180, "dec": DEC}),
    }  # fmt: skip


@pytest.mark.parametrize("name", tables())
def test_positions_are_found(name: str) -> None:
    found = find_positions(tables()[name])
    assert np.allclose(found.ra, RA, atol=1e-6) and np.allclose(found.dec, DEC, atol=1e-6)


@pytest.mark.parametrize(
    "columns, expected",
    [
        ({"ra_err": [0.5] * 3 * u.arcsec, "dec_err": [0.2] * 3 * u.arcsec}, (0.5, 0.2)),
        ({"e_RA": [500.0] * 3 * u.mas, "e_Dec": [200.0] * 3 * u.mas}, (0.5, 0.2)),
        ({"era": [0.5] * 3, "edec": [0.2] * 3}, (0.5, 0.2)), ({}, (np.nan, np.nan)),
        ({"ra_error": [0.5 / 3600] * 3 * u.deg, "dec_error": [0.2 / 3600] * 3 * u.deg}, (0.5, 0.2)),
    ],
)  # fmt: skip
def test_errors_are_found_with_their_units(columns: dict, expected: tuple[float, float]) -> None:
    found = find_positions(Table({"ra": RA * u.deg, "dec": DEC * u.deg, **columns}))
    assert np.allclose(found.ra_err, expected[0], equal_nan=True)
    assert np.allclose(found.dec_err, expected[1], equal_nan=True)
    assert bool(found.notes) == ("era" in columns)


def test_errors_in_seconds_of_time_shrink_towards_the_pole() -> None:
    found = find_positions(Table({"RAJ2000": [10.0], "DEJ2000": [60.0], "e_RAJ2000": [0.01] * u.s}))
    assert found.ra_err == pytest.approx(0.15 * 0.5)


def test_missing_values_are_no_positions() -> None:
    table = Table({"ra": MaskedColumn([10.0, 20.0], mask=[False, True], unit="deg"), "dec": [np.nan, 1.0] * u.deg})
    found = find_positions(table)
    assert np.isnan(found.ra[1]) and np.isnan(found.dec[0]) and found.ra[0] == 10.0
    texts = find_positions(Table({"ra": ["1:00:00", ""], "dec": ["-0:30:00", "nan"]}))
    assert texts.ra[0] == pytest.approx(15.0) and texts.dec[0] == pytest.approx(-0.5) and np.isnan(texts.ra[1])


@pytest.mark.parametrize(
    "table, word",
    [
        (Table({"flux": [1.0], "time": [2.0]}), "expected columns with positions"),
        (Table({"ra": [10.0], "dec": [95.0]}), "expected positions in ra and dec, got 10 and 95 deg in row 1"),
        (Table({"ra": ["here"], "dec": ["there"]}), "expected a right ascension in column ra"),
        (Table({"ra": [10.0] * u.Jy, "dec": [1.0] * u.deg}), "got Jy"),
        (Table({"ra": ["10:99:00"], "dec": ["1:00:00"]}), "expected a right ascension"),
    ],
)
def test_what_is_no_position_is_said_in_one_line(table: Table, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        find_positions(table, path="x.fits")
    assert "\n" not in str(caught.value) and "x.fits" in str(caught.value)


def test_columns_may_be_named() -> None:
    table = Table({"ra": [1.0], "dec": [1.0], "a": [10.0], "b": [20.0]})
    found = find_positions(table, ra="a", dec="b")
    assert (found.ra[0], found.dec[0], found.columns) == (10.0, 20.0, ("a", "b"))
    with pytest.raises(InputError, match="--ra and --dec"):
        find_positions(table, ra="a")


@pytest.mark.parametrize(
    "name, options",
    [("t.fits", {}), ("t.vot", {"format": "votable"}), ("t.ecsv", {}), ("t.csv", {}), ("t.tex", {"format": "latex"}),
     ("t.dat", {"format": "ascii.basic"}), ("t.txt", {"format": "ascii.commented_header"})],
)  # fmt: skip
def test_formats_of_astropy_are_read(tmp_path: Path, name: str, options: dict) -> None:
    Table({"RAJ2000": RA, "DEJ2000": DEC, "k": [1, 2, 3]}).write(tmp_path / name, **options)
    found = find_positions(read_outside(tmp_path / name))
    assert np.allclose(found.ra, RA) and np.allclose(found.dec, DEC)


def test_what_is_no_table_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "x.fits").write_text("no")
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04N.")
    for name in ("x.txt", "x.fits", "x.pkl", "nowhere.fits"):
        with pytest.raises(InputError) as caught:
            read_outside(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
