"""Opening cubes: windows of voxels, axis orders, beams, and what is wrong with a file in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from survey_io.cube import is_cube, open_cube
from survey_io.errors import InputError
from survey_io.spectral import HI_REST_FREQUENCY

SHAPE = (7, 9, 11)
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hi_cubes"


def sky_header(**more) -> fits.Header:
    cards = {
        "CTYPE1": "RA---SIN", "CRVAL1": 150.0, "CRPIX1": 4.0, "CDELT1": -0.001, "CUNIT1": "deg",
        "CTYPE2": "DEC--SIN", "CRVAL2": 20.0, "CRPIX2": 3.0, "CDELT2": 0.001, "CUNIT2": "deg",
        "CTYPE3": "FREQ", "CRVAL3": 1.3e9, "CRPIX3": 2.0, "CDELT3": 1e5, "CUNIT3": "Hz",
        "RESTFRQ": HI_REST_FREQUENCY, "BUNIT": "Jy/beam", "BMAJ": 0.005, "BMIN": 0.004, "BPA": 20.0,
    }  # fmt: skip
    return fits.Header({**cards, **more})


@pytest.fixture
def voxels():
    return np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


def write(path, data, header, **options):
    fits.PrimaryHDU(data, header).writeto(path, **options)
    return path


def test_windows_are_those_of_the_array_and_nan_outside(tmp_path, voxels):
    voxels[2, 3, 4] = np.nan
    cube = open_cube(write(tmp_path / "c.fits", voxels, sky_header()))
    assert cube.shape == SHAPE and cube.stem == "c" and is_cube(cube.path)
    got = cube.pixels.read((slice(-1, 4), slice(2, 12), slice(-2, 5)))
    assert got.shape == (5, 10, 7) and got.dtype == np.float32 and got.dtype.isnative
    assert np.isnan(got[0]).all() and np.isnan(got[:, 7:]).all() and np.isnan(got[:, :, :2]).all()
    assert np.array_equal(got[1:, :7, 2:], voxels[:4, 2:, :5], equal_nan=True)
    again = pickle.loads(pickle.dumps(cube.pixels))
    assert np.array_equal(again.read(), voxels, equal_nan=True)
    assert np.array_equal(cube.pixels.plane(5).read(), voxels[5])


@pytest.mark.parametrize("order", ["stokes last", "stokes third", "four stokes"])
def test_degenerate_and_polarisation_axes(tmp_path, voxels, order):
    if order == "stokes last":
        data, header = voxels[None], sky_header(CTYPE4="STOKES", CRVAL4=1.0, CRPIX4=1.0, CDELT4=1.0)
    else:
        data = voxels[:, None] if order == "stokes third" else np.stack([voxels, 0 * voxels, voxels, voxels], 1)
        header = sky_header(
            CTYPE3="STOKES", CRVAL3=1.0, CRPIX3=1.0, CDELT3=1.0, CUNIT3="",
            CTYPE4="FREQ", CRVAL4=1.3e9, CRPIX4=2.0, CDELT4=1e5, CUNIT4="Hz",
        )  # fmt: skip
    cube = open_cube(write(tmp_path / "c.fits", data, header))
    assert cube.shape == SHAPE
    assert np.array_equal(cube.pixels.read(), voxels)
    assert cube.spectral.frequency(1) == pytest.approx(1.3e9)
    assert any("Stokes I" in note for note in cube.notes) == (order == "four stokes")


def test_scaled_integers_and_compression(tmp_path, voxels):
    stored = np.rint(voxels * 100).astype(np.int16)
    stored[0, 0, 0] = -32768
    hdu = fits.PrimaryHDU(stored, sky_header())
    hdu.header["BLANK"] = -32768
    hdu.writeto(tmp_path / "i.fits")
    with fits.open(tmp_path / "i.fits", mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BSCALE"], hdus[0].header["BZERO"] = 0.01, 5.0
    expected = stored * 0.01 + 5.0
    expected[0, 0, 0] = np.nan
    assert open_cube(tmp_path / "i.fits").pixels.read() == pytest.approx(expected, abs=1e-5, nan_ok=True)
    write(tmp_path / "z.fits.gz", voxels, sky_header())
    assert np.array_equal(open_cube(tmp_path / "z.fits.gz", scratch=tmp_path).pixels.read(), voxels)
    packed = fits.CompImageHDU(voxels, sky_header(), compression_type="GZIP_2", quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "p.fits.fz")
    assert open_cube(tmp_path / "p.fits.fz", scratch=tmp_path).pixels.read() == pytest.approx(voxels, abs=1e-6)


def test_beams(tmp_path, voxels):
    none = open_cube(write(tmp_path / "n.fits", voxels, sky_header(BMAJ=-1.0, BMIN=-1.0)))
    assert none.plane.beam is None and any("beam" in note for note in none.notes)
    header = sky_header()
    del header["BMAJ"], header["BMIN"], header["BPA"]
    columns = [
        fits.Column("BMAJ", "1E", unit="arcsec", array=np.linspace(10, 16, SHAPE[0])),
        fits.Column("BMIN", "1E", unit="arcsec", array=np.full(SHAPE[0], 9.0)),
        fits.Column("BPA", "1E", unit="deg", array=np.zeros(SHAPE[0])),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="BEAMS")
    fits.HDUList([fits.PrimaryHDU(voxels, header), table]).writeto(tmp_path / "b.fits")
    each = open_cube(tmp_path / "b.fits")
    assert len(each.beams) == SHAPE[0] and each.plane.beam.major == pytest.approx(13.0)
    assert each.beams[0].major == pytest.approx(10.0) and each.plane.beam.origin == "table"
    given = open_cube(tmp_path / "b.fits", beam=(20.0, 10.0, 0.0))
    assert given.beams is None and given.plane.beam.major == 20.0


def test_the_sky_is_that_of_the_header(tmp_path, voxels):
    cube = open_cube(write(tmp_path / "c.fits", voxels, sky_header()))
    ra, dec = cube.plane.pixel_to_sky(3.0, 2.0)
    assert (float(ra), float(dec)) == pytest.approx((150.0, 20.0), abs=1e-9)
    assert cube.plane.pixel_scale == pytest.approx(3.6, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"CTYPE3": "TIME"}, "spectral axis"), ({"CTYPE3": "VOPT", "CUNIT3": "m/s", "CRVAL3": 1e6, "RESTFRQ": None},
         "--rest-frequency"), ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "sky axes"),
    ],
)  # fmt: skip
def test_bad_headers_get_one_line(tmp_path, voxels, change, word):
    header = sky_header()
    for key, value in change.items():
        if value is None:
            del header[key]
        else:
            header[key] = value
    with pytest.raises(InputError, match=word) as error:
        open_cube(write(tmp_path / "c.fits", voxels, header))
    assert "\n" not in str(error.value)


def test_one_channel_truncated_and_missing(tmp_path, voxels):
    one = write(tmp_path / "one.fits", voxels[:1], sky_header())
    assert not is_cube(one)
    with pytest.raises(InputError, match="one channel"):
        open_cube(one)
    path = write(tmp_path / "c.fits", np.tile(voxels, (10, 1, 1)), sky_header())
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InputError, match="cut short"):
        open_cube(path)
    with pytest.raises(InputError, match="no such file"):
        open_cube(tmp_path / "none.fits")
    assert not is_cube(tmp_path / "none.fits")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real cubes are not here")
@pytest.mark.parametrize(
    ("name", "shape", "rest"),
    [
        ("WEIN069", (83, 70, 134), None), ("NGC_2903", (113, 89, 70), None),
        ("l1448_13co", (53, 105, 105), 1.102e11),
    ],
)  # fmt: skip
def test_real_cubes_open(name, shape, rest):
    cube = open_cube(REAL / f"{name}.fits", rest_frequency=rest)
    assert cube.shape == shape and np.isfinite(cube.pixels.read((slice(3, 5), slice(20, 30), slice(20, 30)))).all()
