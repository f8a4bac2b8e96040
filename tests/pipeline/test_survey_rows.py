"""Catalogues of every kind as rows of the store and back: nothing of a row may be lost."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table
from astropy.time import Time

from pipeline.survey.rows import catalogue_kind, rows_to_table, table_to_rows
from pipeline.survey.schema import COMMON
from survey_io.columns import IMAGE_COLUMNS, make_table
from survey_io.cube_columns import CUBE_COLUMNS, make_cube_table
from survey_io.errors import OptionError
from survey_io.line_columns import LINE_COLUMNS, make_line_table


def there_and_back(table: Table, kind: str = "image") -> Table:
    rows = table_to_rows(table, kind)
    # What the database gives back: plain values by column, the catalogue's description as JSON.
    common = {name: rows.data[name].to_pylist() for name in COMMON}
    return rows_to_table(common, rows.data["details"].to_pylist(), json.loads(json.dumps(rows.catalogue)))


def same(one: Table, other: Table) -> None:
    assert one.colnames == other.colnames
    assert one.meta == other.meta
    for name in one.colnames:
        left, right = one[name], other[name]
        assert type(left) is type(right), name
        assert (left.dtype, left.unit, left.description, left.shape) == (
            right.dtype, right.unit, right.description, right.shape,
        ), name  # fmt: skip
        assert dict(left.meta) == dict(right.meta), name
        hidden = np.ma.getmaskarray(left)
        assert np.array_equal(hidden, np.ma.getmaskarray(right)), name
        values = [np.asarray(column.data)[~hidden] for column in (left, right)]
        if left.dtype.kind in "fc":
            # Every bit, with the sign of zero; of NaN only that it is.
            assert np.array_equal(*values, equal_nan=True), name
            assert np.array_equal(*(np.signbit(part.real[~np.isnan(part)]) for part in values)), name
        else:
            assert np.array_equal(*values), name


def filled(columns: list[Any], make: Any, *units: Any) -> Table:
    rng = np.random.default_rng(3)
    values: dict[str, Any] = {}
    for column in columns:
        if column.dtype.startswith("U"):
            values[column.name] = np.array([f"{column.name} {one}" for one in range(9)])
        elif column.dtype.startswith("int"):
            values[column.name] = rng.integers(-5, 2**31 - 1, 9)
        else:
            values[column.name] = np.where(rng.random(9) < 0.2, np.nan, rng.lognormal(0, 20, 9))
    values |= {name: rng.uniform(0, 80, 9) for name in ("ra", "dec") if name in values}
    return make(values, *units)


def test_image_cube_and_spectrum() -> None:
    image, cube = filled(IMAGE_COLUMNS, make_table), filled(CUBE_COLUMNS, make_cube_table)
    lines = filled(LINE_COLUMNS, make_line_table, u.AA, u.Unit("1e-17 erg / (s cm2 AA)"))
    for table, kind in ((image, "image"), (cube, "cube"), (lines, "spectrum")):
        assert catalogue_kind(table, {}) == kind
        same(table, there_and_back(table, kind))
    rows = table_to_rows(cube, "cube")
    assert rows.flux_unit == "Hz Jy"
    for home, name in (("flux", "line_flux"), ("freq", "frequency"), ("w20", "w20")):
        given = np.array(rows.data[home].to_pylist(), float)
        assert np.array_equal(given, np.asarray(cube[name], float), equal_nan=True)
    rows = table_to_rows(lines, "spectrum")
    assert rows.data["name"].to_pylist() == lines["spectrum"].tolist()
    # The row of the file that holds the spectrum is not the row of the catalogue.
    assert rows.data["row"].to_pylist() == list(range(9))
    assert rows.data["ra"].null_count == rows.data["hpx29"].null_count == 9
    assert catalogue_kind(Table({"class": ["a"]}), {"input": {"files": 3}}) == "classes"


def test_every_float_comes_back_with_all_its_bits() -> None:
    rng = np.random.default_rng(4)
    single = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    double = rng.integers(0, 2**63, 20_000, np.int64).view(np.float64)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1.7976931348623157e308, 0.1, 1e22, 123456789.0]
    for values in (single, double, np.array(special), np.array(special[:5] + [0.1], np.float16)):
        # flux is a common column, the others lie in the details.
        table = Table({"flux": values, "other": values, "big": values.astype(values.dtype.newbyteorder(">"))})
        back = there_and_back(table)
        for name in ("flux", "other", "big"):
            assert back[name].dtype == values.dtype
            good = ~np.isnan(values)
            assert np.array_equal(np.isnan(back[name]), ~good)
            bits = f"u{values.dtype.itemsize}"
            assert np.array_equal(np.asarray(back[name])[good].view(bits), values[good].view(bits))


def test_columns_of_any_type() -> None:
    table = Table(
        {
            "flag": [True, False, True],
            "large": np.array([2**64 - 1, 0, 5], np.uint64),
            "negative": np.array([-(2**63), 2**63 - 1, 0]),
            "tiny": np.array([1, 2, 255], np.uint8),
            "text": ["--", "\\--", 'a"b\\n\n\0x☆ {} % null'],
            "halves": ["\udcff\ud83d", "\\x0041", "😀\udcff"],
            "\udcff\0": [1.0, 2.0, np.nan],
            "bytes": np.array([b"ab", b"\xff\x01", b"--"]),
            "pair": np.array([[1.5, np.nan], [np.inf, -0.0], [1e-45, 2]], np.float32),
            "complex": np.array([1 + 2j, complex(np.nan, 3), 4]),
            "cube": np.arange(12).reshape(3, 2, 2),
            "words": [["a", "--"], ["", "b"], ["c", "\\"]],
            'a"b\'; DROP': [1, 2, 3],
            "in": [1, 2, 3], "details": ["x", "y", "z"], "id": [7, 8, 9], "hpx29": [0, 0, 0], "current": [0, 1, 0],
            # Names of common columns with values that these cannot hold.
            "flags": [0.5, 1.5, np.nan], "name": [1, 2, 3], "flux": [[1, 2], [3, 4], [5, 6]], "snr": ["a", "b", "c"],
            "w20": np.array([2**62 + 1, 1, 2]),
        },
        meta={"survey": "deep", "numbers": [1, 2.5, None], "EXTNAME": "X"},
    )  # fmt: skip
    same(table, there_and_back(table))
    for text in table_to_rows(table, "image").data["details"].to_pylist():
        assert "\\u0000" not in text and "\\udcff" not in text
    same(table[:0], there_and_back(table[:0]))


def test_masked_values_and_nan_are_two_things() -> None:
    table = Table(masked=True)
    hidden = [True, False, False]
    for name in ("ra", "flux", "snr", "other", "p_real"):
        table[name] = MaskedColumn([1.0, np.nan, 3.0], mask=hidden, unit=None, dtype="f4")
    table["flags"] = MaskedColumn([1, 2, 3], mask=hidden)
    table["count"] = MaskedColumn([1, 2, 3], mask=[False, False, True])
    table["name"] = MaskedColumn(["a", "", "c"], mask=hidden)
    table["note"] = MaskedColumn(["a", "", "--"], mask=hidden)
    table["ok"] = MaskedColumn([True, True, False], mask=hidden)
    table["pair"] = MaskedColumn([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]], mask=[[True, False], [False] * 2, [True] * 2])
    table["all"] = MaskedColumn([1.0, 2.0, 3.0], mask=True)
    table["none"] = MaskedColumn([1.0, 2.0, 3.0], mask=False)
    table["plain"] = Column([1.0, np.nan, 3.0])
    same(table, there_and_back(table))


def test_positions_in_other_units_are_degrees_in_the_store() -> None:
    table = Table({"ra": [1.0, 2.0] * u.hourangle, "dec": [0.1, -0.1] * u.rad, "maj": [1.0, 2.0] * u.arcmin})
    table = Table({name: Column(table[name].value, unit=table[name].unit) for name in table.colnames})
    rows = table_to_rows(table, "image")
    np.testing.assert_allclose(rows.data["ra"].to_pylist(), [15, 30])
    np.testing.assert_allclose(rows.data["dec"].to_pylist(), np.degrees([0.1, -0.1]))
    np.testing.assert_allclose(rows.data["maj"].to_pylist(), [60, 120])
    same(table, there_and_back(table))
    # A unit that is no angle is no position.
    table["ra"].unit = "Jy"
    assert table_to_rows(table, "image").data["hpx29"].null_count == 2
    same(table, there_and_back(table))


def test_positions_that_are_none() -> None:
    table = Table({"ra": [10.0, np.nan, 370.0, 5.0, np.inf], "dec": [20.0, 1.0, -90.0, 91.0, 0.0]})
    assert [value is None for value in table_to_rows(table, "image").data["hpx29"].to_pylist()] == [
        False, True, False, True, True,
    ]  # fmt: skip
    same(table, there_and_back(table))


def test_what_is_no_plain_column_is_refused() -> None:
    with pytest.raises(OptionError, match="'when': expected numbers or text, got Time"):
        table_to_rows(Table({"when": Time(["2026-01-01", "2026-01-02"])}), "image")
