"""Columns of catalogues of lines: units of the file's own, UCDs that the IVOA knows, every flag explained."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.io.votable.ucd import check_ucd

from survey_io.columns import Flag
from survey_io.line_columns import LINE_COLUMNS, LINE_FLAGS, line_columns, make_line_table


def test_units_are_those_of_the_file():
    table = make_line_table({"centre": np.array([5000.0])}, u.Angstrom, u.Unit("1e-17 erg / (Angstrom cm2 s)"))
    assert table["centre"].unit == u.Angstrom and table["fwhm"].unit == u.Angstrom
    assert u.Unit(table["flux"].unit).is_equivalent("erg / (cm2 s)")
    assert table["frequency"].unit == u.Hz and table["velocity"].unit == u.km / u.s
    assert np.isnan(table["flux"][0]) and table["flags"][0] == 0 and table["kind"][0] == ""
    plain = make_line_table({"centre": np.array([1.0])}, u.GHz, u.dimensionless_unscaled)
    assert plain["peak"].unit is None and plain["flux"].unit == u.GHz


def test_every_column_is_explained_once():
    names = [column.name for column in LINE_COLUMNS]
    assert len(set(names)) == len(names)
    columns = [column for axis in (u.nm, u.GHz, u.km / u.s) for column in line_columns(axis, u.Jy)]
    assert {c.ucd.split(";")[0] for c in columns if c.name == "centre"} == {"em.wl", "em.freq", "spect.dopplerVeloc"}
    for column in columns:
        assert check_ucd(column.ucd, check_controlled_vocabulary=True), column.name
        assert column.meaning and column.meaning[0].islower()
        if column.unit:
            u.Unit(column.unit)


def test_flags_of_lines_are_flags():
    assert set(LINE_FLAGS) <= set(Flag) and all(LINE_FLAGS.values())


def test_no_rows_and_further_columns():
    assert len(make_line_table({}, u.Hz, u.Jy)) == 0
    assert make_line_table({"extra": np.arange(3)}, u.Hz, u.Jy).colnames[-1] == "extra"
