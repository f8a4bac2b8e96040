"""Catalogues come back from every format as they were written; regions and submissions are checked too."""

from __future__ import annotations

import os

import numpy as np
import pytest
import regions
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits, votable
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from survey_io import (
    IMAGE_COLUMNS,
    InputError,
    OptionError,
    OutputError,
    iau_name,
    make_table,
    read_catalogue,
    read_sdc1,
    write_catalogue,
    write_regions,
    write_sdc1,
)
from tests.conftest import WCS_VARIANTS, make_wcs

ENDINGS = {"fits": "fits", "votable": "vot", "parquet": "parquet", "ecsv": "ecsv", "csv": "csv"}
PARAMETERS = {
    "threshold": 0.5,
    "model": "light",
    "tile": 1024,
    "flow": False,
    "image": "a b.fits",
    "formats": ["fits"],
}


def catalogue(rows: int = 7, unit: str | None = "Jy/beam") -> Table:
    rng = np.random.default_rng(5)
    values = {}
    for column in IMAGE_COLUMNS:
        kind = np.dtype(column.dtype).kind
        values[column.name] = rng.normal(size=rows) if kind == "f" else np.arange(1, rows + 1)
    values["ra"], values["dec"] = rng.uniform(0, 360, rows), rng.uniform(-90, 90, rows)
    values["name"] = iau_name(values["ra"], values["dec"])
    for name in ("maj", "min", "maj_best", "min_best", "flux_best"):
        values[name] = np.abs(values[name]) + 1
    if rows:
        values["pa_deconv"][0] = np.nan
    return make_table(values, unit)


def same(got: Table, wanted: Table, *, units: bool = True) -> None:
    assert got.colnames == wanted.colnames
    for name in wanted.colnames:
        assert got[name].dtype.kind == wanted[name].dtype.kind and got[name].dtype.isnative, name
        if wanted[name].dtype.kind != "U":
            assert got[name].dtype == wanted[name].dtype, name
        np.testing.assert_array_equal(np.asarray(got[name]), np.asarray(wanted[name]), err_msg=name)
        assert not hasattr(got[name], "mask"), name
        if units:
            assert got[name].unit == wanted[name].unit, name
            assert got[name].description == wanted[name].description
            assert got[name].meta == wanted[name].meta


@pytest.mark.parametrize("rows", [7, 1, 0])
@pytest.mark.parametrize("format", ["fits", "votable", "parquet", "ecsv"])
def test_a_catalogue_comes_back(tmp_path, format, rows):
    table = catalogue(rows, "MJy/sr")
    path = write_catalogue(table, tmp_path / f"a.{ENDINGS[format]}", parameters=PARAMETERS)
    back = read_catalogue(path)
    same(back, table)
    assert back.meta["parameters"] == PARAMETERS
    same(read_catalogue(path, format=format), table)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("rows", [7, 0])
def test_csv_has_values_and_the_units_that_it_can_know(tmp_path, rows):
    table = catalogue(rows)
    path = write_catalogue(table, tmp_path / "a.csv")
    assert path.read_text().splitlines()[0] == ",".join(table.colnames) or path.read_text().startswith(
        '"source_id"'
    )
    back = read_catalogue(path)
    same(back, table, units=False)
    assert back["maj"].unit == u.arcsec and back["flux"].unit is None


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(ENDINGS)),
    hnp.arrays(np.float64, 3, elements=st.floats(allow_subnormal=False, allow_infinity=False, width=64)),
    hnp.arrays(np.int64, 3),
    st.lists(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
        min_size=3,
        max_size=3,
    ),
)
def test_any_values_come_back(tmp_path_factory, format, reals, integers, texts):
    texts = [f"x{text}" for text in texts]
    table = Table({"a": reals, "i": integers, "s": texts})
    back = read_catalogue(write_catalogue(table, tmp_path_factory.mktemp("any") / f"a.{ENDINGS[format]}"))
    np.testing.assert_array_equal(back["a"], reals)
    np.testing.assert_array_equal(back["i"], integers)
    assert back["s"].tolist() == texts


@pytest.mark.parametrize("format", ["fits", "votable", "parquet", "ecsv", "csv"])
def test_masked_values_are_nan_or_masked(tmp_path, format):
    table = Table({"a": np.ma.masked_equal([1.0, 2.0, 3.0], 2.0), "b": [1, 2, 3]}, masked=True)
    back = read_catalogue(write_catalogue(table, tmp_path / f"a.{ENDINGS[format]}"))
    np.testing.assert_array_equal(np.ma.filled(np.ma.asarray(back["a"]), np.nan), [1.0, np.nan, 3.0])
    assert back["b"].tolist() == [1, 2, 3]


def test_fits_keywords(tmp_path):
    table = catalogue()
    write_catalogue(table, tmp_path / "a.fits", parameters={**PARAMETERS, "command": "skysift " + "x" * 200})
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        header = hdus[1].header
    for number, column in enumerate(IMAGE_COLUMNS, start=1):
        assert header[f"TTYPE{number}"] == column.name
        assert header[f"TUCD{number}"] == column.ucd
        assert header[f"TCOMM{number}"] == column.meaning
        if column.unit:
            assert u.Unit(header[f"TUNIT{number}"], format="fits") == u.Unit(column.unit)
    assert header["SKYSIFT THRESHOLD"] == 0.5
    assert "x" * 60 in str(header["HISTORY"])


@pytest.mark.parametrize("rows", [3, 0])
def test_votable_is_valid_and_says_its_frame(tmp_path, rows):
    path = write_catalogue(catalogue(rows), tmp_path / "a.vot", parameters={"note": 'a < "b" & c'})
    with open(path, "rb") as file:
        document = votable.parse(file, verify="exception")
    (resource,) = document.resources
    (frame,) = resource.coordinate_systems
    assert frame.system == "ICRS"
    table = document.get_first_table()
    assert table.nrows == rows
    assert {field.name for field in table.fields if field.ref == frame.ID} == {
        "ra",
        "dec",
        "ra_err",
        "dec_err",
    }
    assert [field.ucd for field in table.fields] == [column.ucd for column in IMAGE_COLUMNS]
    assert next(field for field in table.fields if field.name == "peak_flux").unit == u.Jy / u.beam
    np.testing.assert_array_equal(table.array["flux"].data, catalogue(rows)["flux"])
    assert resource.infos[0].value == 'a < "b" & c'


def test_blocks_of_a_long_votable_join(tmp_path):
    table = Table({"i": np.arange(70_001, dtype=np.int16), "s": np.arange(70_001).astype(str)})
    back = read_catalogue(write_catalogue(table, tmp_path / "a.vot"))
    np.testing.assert_array_equal(back["i"], table["i"])
    np.testing.assert_array_equal(back["s"], table["s"])


def test_parquet_fields_carry_their_meaning(tmp_path):
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(write_catalogue(catalogue(), tmp_path / "a.parquet"))
    assert schema.field("peak_flux").metadata[b"unit"] == b"Jy / beam"
    assert schema.field("ra").metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    assert schema.metadata[b"coosys"] == b"ICRS"


def test_an_input_is_never_overwritten(tmp_path, planted_sky):
    before = planted_sky.path.read_bytes()
    link = tmp_path / "link.fits"
    link.symlink_to(planted_sky.path)
    for target in (planted_sky.path, link, tmp_path / "." / "planted.fits"):
        for write in (write_catalogue, write_regions, write_sdc1):
            with pytest.raises(OutputError, match="an input of the run"):
                write(catalogue(), target, inputs=[planted_sky.path])
    assert planted_sky.path.read_bytes() == before


def test_an_earlier_catalogue_is_replaced_whole_or_not_at_all(tmp_path):
    path = write_catalogue(catalogue(3), tmp_path / "a.vot")
    before = path.read_bytes()
    broken = Table({"a": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="dimensions"):
        write_catalogue(broken, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.vot"]
    write_catalogue(catalogue(5), path)
    assert len(read_catalogue(path)) == 5


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.fits").mkdir()
    for path in (tmp_path / "file" / "a.fits", tmp_path / "folder.fits", "/proc/none/a.fits"):
        with pytest.raises(OutputError, match="choose another folder") as raised:
            write_catalogue(catalogue(), path)
        assert str(path) in str(raised.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.fits"]
    assert (
        read_catalogue(write_catalogue(catalogue(), tmp_path / "new" / "deep" / "a.fits"))["ra"].unit == u.deg
    )


def test_unknown_formats_and_bad_files(tmp_path):
    with pytest.raises(OptionError, match="fits, votable, parquet, ecsv, csv, sdc1, got 'hdf5'"):
        write_catalogue(catalogue(), tmp_path / "a.fits", format="hdf5")
    with pytest.raises(OptionError, match="got '.dat5'"):
        write_catalogue(catalogue(), tmp_path / "a.dat5")
    with pytest.raises(InputError, match="no such file"):
        read_catalogue(tmp_path / "a.fits")
    for name in ("a.fits", "a.vot", "a.parquet", "a.txt"):
        (tmp_path / name).write_text("not a catalogue\n1 2\n")
        with pytest.raises(InputError, match=name):
            read_catalogue(tmp_path / name)


@pytest.mark.parametrize("name", ["plain", "turned", "across ra 0", "far from the reference"])
def test_regions_draw_the_major_axis_on_the_position_angle(tmp_path, name):
    wcs = WCS_VARIANTS[name]()
    table = catalogue(4)
    x, y = np.array([10.0, 60.0, 110.0, 160.0]), np.array([20.0, 50.0, 80.0, 110.0])
    table["ra"], table["dec"] = wcs.all_pix2world(x, y, 0)
    table["maj"], table["min"], table["pa"] = (
        [30.0, 20.0, 12.0, 40.0],
        [10.0, 6.0, 9.0, 8.0],
        [0.0, 40.0, 90.0, 155.0],
    )
    back = regions.Regions.read(write_regions(table, tmp_path / "a.reg"), format="ds9")
    assert len(back) == 4
    for region, row, px, py in zip(back, table, x, y, strict=True):
        drawn = region.to_pixel(wcs)
        centre = SkyCoord(row["ra"] * u.deg, row["dec"] * u.deg)
        tip = centre.directional_offset_by(row["pa"] * u.deg, row["maj"] / 2 * u.arcsec)
        side = centre.directional_offset_by((row["pa"] + 90) * u.deg, row["min"] / 2 * u.arcsec)
        for point in (tip, side):
            # The end of each half axis lies on the outline: just inside and just outside of it differ.
            px_end, py_end = wcs.world_to_pixel(point)
            inside, outside = (
                regions.PixCoord(px + f * (px_end - px), py + f * (py_end - py)) for f in (0.97, 1.03)
            )
            assert inside in drawn and outside not in drawn


def test_region_files_begin_as_ds9_expects_and_mark_sources_without_size(tmp_path):
    table = catalogue(3)
    table["maj"][1] = np.nan
    path = write_regions(table, tmp_path / "a.reg", label="name")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# Region file format: DS9") and lines[2] == "icrs"
    assert lines[4].startswith("point(") and lines[3].startswith("ellipse(") and '"' in lines[3]
    assert f"text={{{table['name'][0]}}}" in lines[3]
    assert [type(region).__name__ for region in regions.Regions.read(path, format="ds9")] == [
        "EllipseSkyRegion",
        "PointSkyRegion",
        "EllipseSkyRegion",
    ]
    assert regions.Regions.read(write_regions(catalogue(0), tmp_path / "b.reg"), format="ds9").regions == []


def test_a_submission_to_sdc1(tmp_path):
    table = catalogue(5)
    table["ra"] = [359.5, 0.5, 180.5, 10.0, 20.0]
    table["pa_best"] = [0.0, 90.0, 135.0, np.nan, 90.0001]
    table["maj_best"][2], table["min_best"][1], table["flux_best"][4] = np.nan, 0.0, -1.0
    path = write_catalogue(table, tmp_path / "a_sdc1.txt")
    header, *rows = path.read_text().splitlines()
    assert header == "id ra_core dec_core ra_cent dec_cent flux core_frac b_maj b_min pa size class"
    assert len(rows) == 4, "a flux below 0 is no source of the challenge"
    back = read_sdc1(path)
    np.testing.assert_allclose(back["ra_core"], [-0.5, 0.5, -179.5, 10.0])
    np.testing.assert_array_equal(back["ra_core"], back["ra_cent"])
    np.testing.assert_allclose(back["dec_core"], table["dec"][:4], atol=1e-8)
    np.testing.assert_allclose(back["flux"], table["flux_best"][:4], rtol=1e-6)
    np.testing.assert_allclose(back["pa"], [-90, 0, -45, -90])
    assert (back["b_maj"] > 0).all() and (back["b_min"] > 0).all()
    assert back["id"].tolist() == [1, 2, 3, 4] and back["flux"].unit == u.Jy
    assert set(back["core_frac"]) == {0.0375} and set(back["size"]) == {2} and set(back["class"]) == {3}
    assert len(read_catalogue(path)) == 4


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 180, exclude_max=True))
def test_angles_of_sdc1_lie_where_its_scorer_folds_like_its_truth(tmp_path_factory, pa):
    table = catalogue(1)
    table["pa_best"] = np.float32(pa)
    got = read_sdc1(write_sdc1(table, tmp_path_factory.mktemp("pa") / "a.txt"))["pa"][0]
    assert -90 <= got < 90
    assert abs((got + pa - 90 + 90) % 180 - 90) < 1e-3 or abs(
        (got + pa - 90 + 90) % 180 - 90
    ) == pytest.approx(0, abs=1e-3)


def test_what_sdc1_cannot_take(tmp_path):
    table = catalogue(3)
    table["source_id"] = [1, 1, 2]
    with pytest.raises(OutputError, match="1 repeated"):
        write_sdc1(table, tmp_path / "a.txt")
    with pytest.raises(OutputError, match="Jy, got adu beam"):
        write_sdc1(catalogue(3, "adu"), tmp_path / "a.txt")
    scaled = catalogue(3)
    scaled["flux_best"].unit = u.mJy
    np.testing.assert_allclose(
        read_sdc1(write_sdc1(scaled, tmp_path / "b.txt"))["flux"], scaled["flux_best"] / 1e3, rtol=1e-6
    )
    assert len(read_sdc1(write_sdc1(catalogue(0), tmp_path / "c.txt"))) == 0
    classed = catalogue(2)
    classed["size_class"], classed["source_class"] = [1, 3], [1, 2]
    back = read_sdc1(write_sdc1(classed, tmp_path / "d.txt"))
    assert back["size"].tolist() == [1, 3] and back["class"].tolist() == [1, 2]


def test_the_truth_of_sdc1(shared_data):
    truth = read_sdc1(shared_data / "sdc1_crop" / "truth_left.txt")
    assert len(truth) == 10146 and truth["pa"].max() > 180


def test_names_are_truncated():
    assert iau_name(187.70593, 12.39112) == "SKS J123049.42+122328.0"
    # 59.99999 s and 59.99 arcsec would round up to the next minute.
    assert iau_name(15 * (1 + 59.99999 / 3600), -(10 + 59.99 / 3600)) == "SKS J010059.99-100059.9"
    assert iau_name(359.9999999, -0.00001) == "SKS J235959.99-000000.0"
    assert iau_name(-0.5, 90.0) == "SKS J235800.00+900000.0"
    assert iau_name(15 * 10.0 / 3600, 0.1, prefix="T") == "T J000010.00+000600.0"
    names = iau_name([[1.0, np.nan]], [[2.0, 3.0]])
    assert names.shape == (1, 2) and names[0, 1] == ""
    assert iau_name([], []).shape == (0,)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 359.9999999), st.floats(-90, 90))
def test_a_name_lies_within_one_digit_of_its_position(ra, dec):
    name = iau_name(ra, dec).removeprefix("SKS J")
    hours, sign = name[:9], name[9]
    seconds = int(hours[:2]) * 3600 + int(hours[2:4]) * 60 + float(hours[4:])
    degrees = int(name[10:12]) + int(name[12:14]) / 60 + float(name[14:]) / 3600
    assert -1e-7 <= ra / 15 * 3600 - seconds < 0.01
    assert -1e-9 <= abs(dec) - degrees < 0.1 / 3600
    assert (sign == "-") == (np.copysign(1.0, dec) < 0)


def test_tables_for_other_programs_have_their_wcs_frame(tmp_path):
    """A position from the image's WCS is that of the catalogue: no frame is lost on the way."""
    wcs = make_wcs()
    table = catalogue(1)
    table["ra"], table["dec"] = wcs.all_pix2world([5.0], [6.0], 0)
    read = Table.read(write_catalogue(table, tmp_path / "a.vot"), format="votable")
    position = SkyCoord(read["ra"][0] * u.deg, read["dec"][0] * u.deg, frame="icrs")
    np.testing.assert_allclose(np.ravel(wcs.world_to_pixel(position)), [5.0, 6.0], atol=1e-6)
