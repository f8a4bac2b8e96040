"""Every column of a table of classes is explained once, in the words of the Virtual Observatory."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io.votable.ucd import check_ucd

from survey_io.class_columns import CLASS_COLUMNS, make_class_table, probability_column

VALUES = ("teff", "logg", "feh", "period", "depth", "duration")


@pytest.mark.parametrize("unit", [u.AA, u.GHz, u.km / u.s, u.d])
def test_columns_carry_meaning_unit_and_ucd(unit):
    values = {column.name: ["x"] if column.dtype == "U" else [1] for column in CLASS_COLUMNS}
    regressed = {name: ("", np.ones(1), np.ones(1)) for name in VALUES}
    table = make_class_table(
        values, classes=("HCO+", "c-C3H2"), probability=np.array([[0.9, 0.1]]), unit=unit, regressed=regressed
    )
    assert probability_column("c-C3H2") in table.colnames and table["p_HCO_"][0] == np.float32(0.9)
    assert table["coverage_low"].unit == unit
    for name in table.colnames:
        assert table[name].description, name
        assert check_ucd(table[name].meta["ucd"], check_controlled_vocabulary=True), name
