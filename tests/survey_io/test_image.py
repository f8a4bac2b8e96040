"""``open_image`` on every dialect of FITS image, and on files that are none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

from survey_io import InputError, OutputError, PixelSource, SkysiftError, open_image
from tests.conftest import BEAM, PIXEL, image_header, make_wcs

RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(40, 70)).astype(np.float32)
WHOLE = (slice(0, 40), slice(0, 70))


def test_a_plain_image(planted_sky):
    sky = open_image(planted_sky.path)
    assert sky.shape == (150, 210)
    assert sky.unit == u.Jy / u.beam
    assert sky.jansky_per_beam() == 1.0
    assert (sky.beam.major, sky.beam.minor, sky.beam.pa) == pytest.approx(BEAM)
    assert sky.beam.origin == "header"
    assert sky.pixel_scale == pytest.approx(PIXEL, rel=1e-6)
    assert sky.stem == "planted"
    assert sky.notes == ()
    sky.require_finite()
    ra, dec = sky.pixel_to_sky(planted_sky.truth["x"], planted_sky.truth["y"])
    np.testing.assert_allclose(ra, planted_sky.truth["ra"], atol=1e-10)
    np.testing.assert_allclose(dec, planted_sky.truth["dec"], atol=1e-10)


@pytest.mark.parametrize(
    "shape", [(40, 70), (1, 40, 70), (1, 1, 40, 70), (40, 1, 70), (40, 70, 1), (1, 40, 1, 70)]
)
def test_axes_of_length_one_may_stand_anywhere(tmp_path, shape):
    header = fits.Header()
    names = iter(("RA---SIN", "DEC--SIN"))
    others = iter(("FREQ", "STOKES"))
    for axis, length in enumerate(shape[::-1], start=1):
        celestial = length != 1
        header[f"CTYPE{axis}"] = name = next(names if celestial else others)
        header[f"CRVAL{axis}"] = {"RA---SIN": 10.0, "DEC--SIN": -30.0, "FREQ": 1.4e9, "STOKES": 1.0}[name]
        header[f"CDELT{axis}"] = {"RA---SIN": -4e-4, "DEC--SIN": 4e-4, "FREQ": 1e6, "STOKES": 1.0}[name]
        header[f"CRPIX{axis}"] = {"RA---SIN": 60.0, "DEC--SIN": 11.0}.get(name, 1.0)
    fits.PrimaryHDU(DATA.reshape(shape), header).writeto(tmp_path / "a.fits")
    sky = open_image(tmp_path / "a.fits")
    np.testing.assert_array_equal(sky.pixels.read(), DATA)
    assert sky.frequency == (1.4e9 if len(shape) > 2 else None)
    assert np.ravel(sky.pixel_to_sky(59, 10)) == pytest.approx([10.0, -30.0])


def test_a_matrix_that_mixes_in_an_axis_of_length_one(tmp_path):
    header = fits.Header()
    for axis, (name, value, step) in enumerate(
        (("RA---SIN", 10.0, -4e-4), ("DEC--SIN", -30.0, 4e-4), ("FREQ", 1.4e9, 1e6)), start=1
    ):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = name, value, step
        header[f"CRPIX{axis}"] = (8.0, 9.0, 3.0)[axis - 1]
    header["PC1_2"], header["PC1_3"], header["PC3_2"] = 0.2, 0.7, 0.1
    fits.PrimaryHDU(DATA[None], header).writeto(tmp_path / "a.fits")
    x, y = np.array([0.0, 69.0, 20.0]), np.array([3.0, 0.0, 39.0])
    expected = WCS(header).all_pix2world(x, y, 0, 0)[:2]
    np.testing.assert_allclose(open_image(tmp_path / "a.fits").pixel_to_sky(x, y), expected, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16, np.int32, np.int64])
def test_stored_types(write_image, dtype):
    values = (DATA * 20 + 100).astype(dtype)
    values_read = open_image(write_image(values)).pixels.read(WHOLE)
    assert values_read.dtype == np.float32 and values_read.dtype.isnative and values_read.flags.c_contiguous
    np.testing.assert_array_equal(values_read, values.astype(np.float32))


def test_scaled_integers_with_blank(tmp_path):
    stored = np.arange(12, dtype=np.int16).reshape(3, 4)
    hdu = fits.PrimaryHDU(stored, image_header(make_wcs()))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.25, 1000.0, 5
    hdu.writeto(tmp_path / "a.fits")
    # astropy folds the keywords into the values on writing unless they are set last, in the file.
    raw = fits.getheader(tmp_path / "a.fits", do_not_scale_image_data=True)
    assert (raw["BSCALE"], raw["BZERO"]) == (0.25, 1000.0)
    expected = np.arange(12).reshape(3, 4) * 0.25 + 1000.0
    expected[1, 1] = np.nan
    np.testing.assert_array_equal(open_image(tmp_path / "a.fits").pixels.read(), expected.astype(np.float32))


def test_unsigned_integers(write_image):
    values = np.array([[0, 1, 40000], [65535, 7, 8]], dtype=np.uint16)
    np.testing.assert_array_equal(open_image(write_image(values)).pixels.read(), values)


def test_a_window_reaches_outside_and_infinite_is_blank(write_image):
    values = DATA.copy()
    values[0, 0], values[39, 69] = np.inf, -np.inf
    pixels = open_image(write_image(values)).pixels
    window = (slice(-3, 44), slice(60, 75))
    got = pixels.read(window)
    expected = np.full((47, 15), np.nan, dtype=np.float32)
    expected[3:43, :10] = DATA[:, 60:]
    expected[42, 9] = np.nan
    np.testing.assert_array_equal(got, expected)
    assert np.isnan(pixels.read((slice(0, 1), slice(0, 1)))).all()
    assert np.isnan(pixels.read((slice(100, 103), slice(-9, -2)))).all()
    assert pixels.read((slice(100, 103), slice(-9, -2))).shape == (3, 7)


@pytest.mark.parametrize("window", [(0, 11, 0, 14), (3, 8, 5, 14), (6, 20, 9, 31), (4, 5, 13, 14)])
def test_every_nth_pixel_is_that_of_the_whole_window(write_image, window):
    values = np.arange(11 * 14, dtype=np.float32).reshape(11, 14)
    values[6, 9] = np.inf
    pixels = open_image(write_image(values)).pixels
    window = slice(*window[:2]), slice(*window[2:])
    for step in (1, 2, 3):
        np.testing.assert_array_equal(pixels.read_every(window, step), pixels.read(window)[::step, ::step])


def test_sources_travel_between_processes(planted_sky):
    sky = open_image(planted_sky.path)
    packed = pickle.dumps(sky.pixels)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).read(), sky.pixels.read())
    again = pickle.loads(pickle.dumps(sky))
    assert again.beam == sky.beam and again.beam_pixels() == sky.beam_pixels()


def test_a_source_whose_file_shrinks_says_so(planted_sky):
    pixels = open_image(planted_sky.path).pixels
    os.truncate(planted_sky.path, 20000)
    with pytest.raises(InputError, match="can no longer be read"):
        pixels.read()


def test_another_extension(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    plain = fits.ImageHDU(np.zeros((5, 6)), name="WEIGHT")
    first = fits.ImageHDU(DATA, image_header(make_wcs()), name="SCI")
    second = fits.ImageHDU(DATA[:20], image_header(make_wcs()), name="OTHER")
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), table, plain, first, second]).writeto(path)
    assert open_image(path).shape == (40, 70)
    assert open_image(path).pixels.hdu == 3
    for wanted in (4, "4", "OTHER", "other"):
        assert open_image(path, hdu=wanted).shape == (20, 70)
    with pytest.raises(InputError, match=r"unit 'NONE', the file has 0 \(PRIMARY\), .*3 \(SCI\)"):
        open_image(path, hdu="NONE")
    with pytest.raises(InputError, match="unit 9"):
        open_image(path, hdu=9)
    with pytest.raises(InputError, match="unit 2 has the axes none, none"):
        open_image(path, hdu="WEIGHT")


@pytest.mark.parametrize(("opener", "ending"), [(gzip.open, "gz"), (bz2.open, "bz2"), (lzma.open, "xz")])
def test_compressed_files_are_unpacked_once(planted_sky, tmp_path, opener, ending):
    packed = tmp_path / f"planted.fits.{ending}"
    with opener(packed, "wb") as file:
        file.write(planted_sky.path.read_bytes())
    scratch = tmp_path / "scratch"
    sky = open_image(packed, scratch=scratch)
    np.testing.assert_array_equal(sky.pixels.read(), fits.getdata(planted_sky.path))
    assert sky.stem == "planted" and sky.path == packed and sky.pixels.scratch
    (copy,) = scratch.iterdir()
    made = copy.stat().st_ino
    open_image(packed, scratch=scratch)
    assert [file.stat().st_ino for file in scratch.iterdir()] == [made]
    os.utime(packed, ns=(time.time_ns(), time.time_ns() + 10**9))
    open_image(packed, scratch=scratch)
    assert len(list(scratch.iterdir())) == 2


def test_a_damaged_compressed_file(planted_sky, tmp_path):
    packed = gzip.compress(planted_sky.path.read_bytes())
    broken = bytearray(packed)
    broken[len(packed) // 2 : len(packed) // 2 + 40] = bytes(40)
    for name, content in (("cut.fits.gz", packed[: len(packed) // 2]), ("broken.fits.gz", bytes(broken))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="damaged or cut short"):
            open_image(tmp_path / name, scratch=tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_scratch_folder_that_cannot_be_written(planted_sky, tmp_path):
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(planted_sky.path.read_bytes()))
    with pytest.raises(OutputError, match="scratch folder"):
        open_image(packed, scratch=planted_sky.path / "below a file")


@pytest.mark.parametrize("tiles", [None, (16, 32)])
@pytest.mark.parametrize("codec", ["RICE_1", "GZIP_2"])
@pytest.mark.parametrize("leading", [(), (1, 1)])
def test_tile_compressed_floats(tmp_path, tiles, codec, leading):
    data = DATA.copy()
    data[:3] = np.nan
    if tiles and leading:
        tiles = leading + tiles
    header = image_header(make_wcs())
    packed = fits.CompImageHDU(
        data.reshape(leading + data.shape), header, compression_type=codec, tile_shape=tiles
    )
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "a.fits.fz")
    sky = open_image(tmp_path / "a.fits.fz", scratch=tmp_path / "scratch")
    with fits.open(tmp_path / "a.fits.fz") as hdus:
        expected = hdus[1].data.reshape(40, 70)
    np.testing.assert_array_equal(sky.pixels.read(), expected)
    assert np.isnan(sky.pixels.read()[:3]).all()
    assert sky.stem == "a" and sky.beam is not None


def test_tile_compressed_integers(tmp_path):
    packed = fits.CompImageHDU(np.arange(2800, dtype=np.int32).reshape(40, 70), image_header(make_wcs()))
    packed.header["BSCALE"], packed.header["BZERO"], packed.header["BLANK"] = 0.5, -3.0, 2799
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "a.fits.fz")
    got = open_image(tmp_path / "a.fits.fz", scratch=tmp_path).pixels.read()
    np.testing.assert_array_equal(got.ravel()[:-1], np.arange(2799) * 0.5 - 3)
    assert np.isnan(got[-1, -1])


def test_a_tile_compressed_file_cut_short(tmp_path):
    packed = fits.CompImageHDU(RNG.normal(size=(300, 300)).astype(np.float32), image_header(make_wcs()))
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "a.fits")
    os.truncate(tmp_path / "a.fits", (tmp_path / "a.fits").stat().st_size // 2)
    with pytest.raises(InputError, match="cut short"):
        open_image(tmp_path / "a.fits", scratch=tmp_path / "scratch")


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be opened, and a word of the line that says why."""
    header = image_header(make_wcs())
    (folder / "text.fits").write_text("not an image\n" * 400)
    (folder / "empty.fits").write_bytes(b"")
    (folder / "folder.fits").mkdir()
    fits.PrimaryHDU(DATA, header).writeto(folder / "cut.fits")
    os.truncate(folder / "cut.fits", 8000)
    fits.PrimaryHDU(DATA, header).writeto(folder / "cut_header.fits")
    os.truncate(folder / "cut_header.fits", 1000)
    fits.PrimaryHDU(DATA).writeto(folder / "no_wcs.fits")
    fits.PrimaryHDU(DATA[0], header).writeto(folder / "1d.fits")
    fits.PrimaryHDU(DATA[None, None, None], header).writeto(folder / "5d.fits")
    fits.PrimaryHDU(np.zeros((3, 40, 70)), header).writeto(folder / "cube.fits")
    fits.HDUList([fits.PrimaryHDU()]).writeto(folder / "nothing.fits")
    singular = header.copy()
    singular["CDELT1"] = 0.0
    fits.PrimaryHDU(DATA, singular).writeto(folder / "singular.fits")
    return {
        "text.fits": "not one",
        "empty.fits": "empty",
        "folder.fits": "not a file",
        "gone.fits": "no such file",
        "cut.fits": "ends after 8000",
        "cut_header.fits": "FITS image",
        "no_wcs.fits": "axes none, none",
        "1d.fits": "1 axis",
        "5d.fits": "5 axes",
        "cube.fits": "cube",
        "nothing.fits": "no pixels",
        "singular.fits": "celestial",
    }


def test_bad_files_get_one_line_each(tmp_path):
    for name, word in bad_files(tmp_path).items():
        with pytest.raises(InputError) as raised:
            open_image(tmp_path / name)
        message = str(raised.value)
        assert name in message and word in message and "expected" in message, message
        assert "\n" not in message and len(message) < 420
        assert raised.value.exit_status == 2


def test_an_image_without_a_value(write_image):
    sky = open_image(write_image(np.full((40, 70), np.nan, dtype=np.float32)))
    with pytest.raises(InputError, match="all 40 x 70 pixels are NaN"):
        sky.require_finite()
    one = np.full((4000, 3000), np.nan, dtype=np.float32)
    one[3999, 0] = 1.0
    open_image(write_image(one, name="one.fits")).require_finite()


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(InputError("two\n lines", path="a", shape=(1, 2))))
    assert isinstance(error, SkysiftError)
    assert str(error) == "two lines" and error.fields == {"path": "a", "shape": (1, 2)}


def test_real_images_open(shared_data):
    refused = {"1904_comp.fits": "table", "image.fits": "axes none"}
    paths = [
        *(shared_data / "continuum_images").glob("*/*.fits"),
        *(shared_data / "sdc1_crop").glob("*.fits"),
    ]
    assert paths
    for path in paths:
        if path.name in refused:
            with pytest.raises(InputError, match=refused[path.name]):
                open_image(path)
            continue
        sky = open_image(path)
        sky.require_finite()
        with fits.open(path) as hdus:
            expected = hdus[0].data.squeeze().astype(np.float32)
        np.testing.assert_array_equal(sky.pixels.read(), expected)


def test_reading_does_not_keep_the_image(tmp_path):
    path = tmp_path / "big.fits"
    header = image_header(make_wcs())
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"], header["BITPIX"], header["SIMPLE"] = (
        2,
        8192,
        8192,
        -32,
        True,
    )
    small = fits.PrimaryHDU(np.zeros((1, 1), dtype=np.float32), image_header(make_wcs()))
    small.header["NAXIS1"] = small.header["NAXIS2"] = 8192
    text = small.header.tostring().encode()
    path.write_bytes(text)
    os.truncate(path, len(text) + 8192 * 8192 * 4)
    pixels: PixelSource = open_image(path).pixels
    for start in range(0, 8192, 1024):
        pixels.read((slice(start, start + 1024), slice(0, 8192)))
    with open("/proc/self/maps") as maps:
        assert str(path) not in maps.read()


def test_the_scratch_folder_is_private_by_default(planted_sky, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "system"))
    (tmp_path / "system").mkdir()
    packed = tmp_path / "a.fits.gz"
    with gzip.open(packed, "wb") as target, open(planted_sky.path, "rb") as source:
        shutil.copyfileobj(source, target)
    copy = open_image(packed).pixels.path
    assert copy.parent.parent == tmp_path / "system"
    assert copy.parent.stat().st_mode & 0o077 == 0
