"""The list of columns and flags: complete, consistent, and readable by Virtual Observatory tools."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from survey_io import IMAGE_COLUMNS, Flag, annotate, flags_text, image_columns, make_table

# fmt: off
PROMISED = [
    "source_id", "name", "ra", "dec", "ra_err", "dec_err", "x", "y", "peak_flux", "peak_flux_err",
    "flux", "flux_err", "maj", "min", "pa", "maj_err", "min_err", "pa_err", "maj_deconv", "min_deconv",
    "pa_deconv", "snr", "local_rms", "background", "pb_gain", "score", "p_real", "flux_net",
    "flux_net_err", "maj_net", "min_net", "pa_net", "flux_best", "maj_best", "min_best", "pa_best",
    "n_blend", "flags",
]
# fmt: on


def test_the_columns_and_their_order():
    assert [column.name for column in IMAGE_COLUMNS] == PROMISED


@pytest.mark.parametrize("column", IMAGE_COLUMNS, ids=lambda column: column.name)
def test_every_column_is_described(column):
    assert check_ucd(column.ucd, check_controlled_vocabulary=True, has_colon=True)
    assert np.dtype(column.dtype).kind in "iUf"
    assert column.meaning and "\n" not in column.meaning
    if column.unit is not None:
        unit = u.Unit(column.unit, format="fits")
        assert u.Unit(unit.to_string("vounit"), format="vounit") == unit


def test_errors_have_the_unit_of_what_they_belong_to():
    units = {column.name: column.unit for column in IMAGE_COLUMNS}
    for name, unit in units.items():
        if name.endswith("_err") and name not in ("ra_err", "dec_err"):
            assert unit == units[name.removesuffix("_err")], name


def test_flags_are_single_bits_with_a_meaning():
    assert [flag.value for flag in Flag] == [2**bit for bit in range(len(Flag))]
    assert all(flag.meaning for flag in Flag)
    described = next(column.meaning for column in IMAGE_COLUMNS if column.name == "flags")
    assert all(f"{flag.value} {flag.name}" in described for flag in Flag)


def test_flags_as_text():
    assert flags_text(0) == ""
    assert flags_text(Flag.EDGE | Flag.BLANK) == "EDGE|BLANK"
    assert flags_text(np.array([[0, 3], [512, 32]], dtype=np.int32)).tolist() == [
        ["", "EDGE|BLENDED"],
        ["MULTI_COMPONENT", "UNRESOLVED"],
    ]
    assert flags_text([]).shape == (0,)
    with pytest.raises(ValueError, match="unknown bits 4096"):
        flags_text([1, 4097])


@given(st.integers(0, 2 * Flag.MULTI_COMPONENT - 1))
def test_text_of_flags_names_every_bit(value):
    names = [name for name in flags_text(value).split("|") if name]
    assert sum(Flag[name] for name in names) == value


@pytest.mark.parametrize(
    ("unit", "peak", "total"),
    [
        ("Jy/beam", "Jy/beam", "Jy"),
        (u.Jy / u.beam, "Jy/beam", "Jy"),
        ("adu", "adu", "adu beam"),
        ("MJy/sr", "MJy/sr", "MJy beam/sr"),
        (None, None, "beam"),
    ],
)
def test_units_follow_the_image(unit, peak, total):
    columns = {column.name: column for column in image_columns(unit)}
    for name, expected in (
        ("peak_flux", peak),
        ("local_rms", peak),
        ("flux", total),
        ("flux_net_err", total),
    ):
        assert u.Unit(columns[name].unit or "") == u.Unit(expected or ""), name
    assert columns["maj"].unit == "arcsec" and columns["snr"].unit is None


def test_a_table_from_some_columns():
    table = make_table({"ra": [1.0, 2.0], "flags": [1, 2], "extra": ["a", "b"]}, unit="adu")
    assert table.colnames == [*PROMISED, "extra"]
    assert len(table) == 2
    for column in IMAGE_COLUMNS:
        assert table[column.name].dtype == np.dtype(column.dtype), column.name
        assert table[column.name].description == column.meaning
        assert table[column.name].meta["ucd"] == column.ucd
    assert np.isnan(table["flux"]).all() and table["flux"].unit == u.adu * u.beam
    assert table["ra"].tolist() == [1.0, 2.0] and table["flags"].tolist() == [1, 2]


def test_a_table_without_rows():
    table = make_table({})
    assert table.colnames == PROMISED and len(table) == 0


def test_annotate_leaves_other_columns():
    table = annotate(Table({"mine": [1], "maj": np.array([2], dtype=np.int64)}))
    assert table["mine"].unit is None and table["maj"].unit == u.arcsec
    assert table["maj"].dtype == np.float32 and table.colnames == ["mine", "maj"]
