"""Products of single sources: right units and coordinates, sums that are those of the catalogue, runs that continue."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from pipeline.cube_product_picture import slice_along
from pipeline.cube_products import chosen_rows
from pipeline.detect import detect
from pipeline.gaussians import beam_area
from pipeline.options import DetectOptions, parse_options
from survey_io.cube import open_cube
from survey_io.errors import OptionError
from survey_io.simulate.hi import Galaxies, HiModel, noise_cube, paint_galaxies, write_hi
from survey_io.spectra import find_spectra, open_spectra

MODEL = HiModel(shape=(110, 70, 84), rms=3e-6)
KINDS = ("cube.fits", "mask.fits", "mom0.fits", "mom1.fits", "mom2.fits", "spec.fits", "spec.txt")


def galaxies() -> Galaxies:
    x, y, z = np.array([20.2, 60.4, 81.0]), np.array([22.3, 45.6, 6.0]), np.array([40.4, 71.2, 52.0])
    n = len(x)
    return Galaxies(
        x, y, z, np.array([60.0, 50.0, 30.0]), np.full(n, 20.0), np.full(n, 220.0), np.array([30.0, 200.0, 100.0]),
        np.full(n, 60.0), np.zeros(n),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    truth = galaxies()
    voxels = paint_galaxies(MODEL, truth) + noise_cube(MODEL, np.random.default_rng(2))
    path = write_hi(MODEL, voxels, truth, folder)["cube"]
    options = DetectOptions(output=folder / "out", model="smooth-clip", workers=1, products="all")
    return open_cube(path), detect(path, options), options


def test_every_source_has_all_its_files(run):
    cube, result, _ = run
    folder = result.files["products"]
    assert len(result.table) == 3 and result.manifest["counts"]["products"] == 3
    names = {f"cube_{number}_{kind}" for number in (1, 2, 3) for kind in KINDS} | {f"cube_{n}.png" for n in (1, 2, 3)}
    assert {path.name for path in folder.iterdir()} == names
    assert all((folder / f"cube_{n}.png").stat().st_size > 20_000 for n in (1, 2, 3))


def test_sums_are_those_of_the_catalogue(run):
    cube, result, _ = run
    area = float(beam_area(*cube.plane.beam_pixels()[:2]))
    for row in result.table:
        start = result.files["products"] / f"cube_{row['source_id']}"
        with fits.open(f"{start}_mom0.fits") as hdus:
            assert u.Unit(hdus[0].header["BUNIT"]) == u.Jy / u.beam * u.km / u.s
            assert np.nansum(hdus[0].data, dtype=float) / area == pytest.approx(row["line_flux_kms"], rel=2e-4)
        table = Table.read(f"{start}_spec.fits")
        width = cube.spectral.width(table["channel"])
        assert (table["flux_density"] * width).sum() == pytest.approx(row["line_flux"], rel=2e-4)
        assert table["flux_density"].unit == u.Jy and table["velocity"].unit == u.km / u.s
        error = np.sqrt(((table["flux_density_err"] * width) ** 2).sum())
        assert error == pytest.approx(row["line_flux_err"], rel=0.03)
        assert table["n_pixels"].sum() == row["n_voxels"]
        assert np.loadtxt(f"{start}_spec.txt")[:, 3] == pytest.approx(np.asarray(table["flux_density"]), rel=1e-6)
        # The table's own line of sight: the bright half of the channels lies within w50.
        bright = table[table["flux_density"] > 0.5 * table["flux_density"].max()]
        assert np.ptp(bright["velocity"]) == pytest.approx(row["w50"], abs=40)


def test_spectra_are_read_back(run):
    cube, result, _ = run
    for row in result.table:
        table = Table.read(f"{result.files['products']}/cube_{row['source_id']}_spec.fits")
        for suffix, tolerance in (("fits", 1e-12), ("txt", 1e-8)):
            (spectrum,) = open_spectra(result.files["products"] / f"cube_{row['source_id']}_spec.{suffix}").spectra
            order = np.argsort(table["frequency"])
            seen = np.asarray(table["flux_outline_err"])[order] > 0
            assert spectrum.axis == pytest.approx(np.asarray(table["frequency"])[order], rel=tolerance)
            expected = np.where(seen, np.asarray(table["flux_outline"])[order], np.nan)
            assert spectrum.flux == pytest.approx(expected, rel=1e-6, nan_ok=True)
            assert spectrum.unit == u.Hz and spectrum.flux_unit == u.Jy
            assert spectrum.rest_frequency == pytest.approx(cube.spectral.rest_frequency, rel=1e-8)
    # A folder of products gives each source's spectrum once.
    assert len(find_spectra([result.files["products"]])) == len(result.table)


def test_the_box_lies_where_it_says(run):
    cube, result, _ = run
    for row in result.table:
        start = result.files["products"] / f"cube_{row['source_id']}"
        box = open_cube(f"{start}_cube.fits")
        mask = fits.getdata(f"{start}_mask.fits")
        assert mask.sum() == row["n_voxels"]
        first = np.array([np.nonzero(mask)[axis].min() for axis in range(3)])
        corner = np.array([row[f"{axis}_min"] for axis in "zyx"]) - first
        window = tuple(slice(int(c), int(c) + n) for c, n in zip(corner, box.shape, strict=True))
        assert np.array_equal(box.pixels.read(), cube.pixels.read(window), equal_nan=True)
        sky = np.array(box.plane.pixel_to_sky(3.0, 5.0))
        assert sky == pytest.approx(np.array(cube.plane.pixel_to_sky(3.0 + corner[2], 5.0 + corner[1])), abs=1e-9)
        assert box.spectral.frequency(4) == pytest.approx(cube.spectral.frequency(4 + corner[0]), rel=1e-12)
        assert box.plane.beam.major == pytest.approx(cube.plane.beam.major)
        flat = WCS(fits.getheader(f"{start}_mom1.fits"))
        assert flat.naxis == 2 and np.array(flat.wcs_pix2world(3.0, 5.0, 0)) == pytest.approx(sky, abs=1e-9)


def test_velocity_field_shows_the_rotation(run):
    cube, result, _ = run
    for row in result.table[:2]:
        start = result.files["products"] / f"cube_{row['source_id']}"
        with fits.open(f"{start}_mom1.fits") as hdus:
            assert hdus[0].header["BUNIT"] == "km s-1"
            field, header = hdus[0].data, hdus[0].header
        flux = fits.getdata(f"{start}_mom0.fits")
        finite = np.isfinite(field) & (flux > 0.3 * np.nanmax(flux))
        mean = np.average(field[finite], weights=flux[finite])
        assert mean == pytest.approx(row["v_opt"], abs=12)
        y, x = np.nonzero(finite)
        plane = np.column_stack([x, y, np.ones(len(x))])
        slope, *_ = np.linalg.lstsq(plane, field[finite], rcond=None)
        # East is towards lower x here.
        angle = np.degrees(np.arctan2(-slope[0], slope[1])) % 360
        assert abs((angle - row["kin_pa"] + 180) % 360 - 180) < 12
        spread = fits.getdata(f"{start}_mom2.fits")
        assert 5 < np.nanmedian(spread[finite]) < 0.5 * row["w50"]
        assert header["OBJECT"] == row["name"]


def test_number_of_sources_and_leftovers(run, tmp_path):
    cube, result, options = run
    assert list(chosen_rows(result.table, "all")) == [0, 1, 2]
    two = chosen_rows(result.table, 2)
    assert len(two) == 2 and set(two) == set(np.argsort(-np.asarray(result.table["snr"]))[:2])
    folder = tmp_path / "cube_products"
    folder.mkdir()
    (folder / "cube_9_mom0.fits").touch()
    (folder / "cube_9.png").touch()
    (folder / "notes.txt").touch()
    (folder / "cube_of_mine.fits").touch()
    again = detect(cube.path, options.with_changes(output=tmp_path, products=1))
    kept = {path.name for path in again.files["products"].iterdir()}
    assert {"notes.txt", "cube_of_mine.fits"} < kept and not {name for name in kept if "cube_9" in name}
    assert len(kept) == 2 + len(KINDS) + 1


def test_an_interrupted_run_continues(run, tmp_path):
    cube, _, options = run

    def stop(stage, done, total):
        if stage == "products" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect(cube.path, options.with_changes(output=tmp_path), progress=stop)
    first = tmp_path / "cube_products" / "cube_1_cube.fits"
    before = first.stat().st_mtime_ns
    seen = []
    detect(cube.path, options.with_changes(output=tmp_path), progress=lambda *call: seen.append(call))
    assert first.stat().st_mtime_ns == before and (tmp_path / "cube_products" / "cube_3.png").is_file()
    assert ("products", 1, 3) in seen and ("products", 3, 3) in seen


def test_the_option():
    for given, meant in (("all", "all"), ("ALL", "all"), ("3", 3), (0, 0), ("none", 0), (None, 0)):
        assert parse_options(DetectOptions, {"products": given}).products == meant
    for wrong in ("some", -1, "2.5"):
        with pytest.raises(OptionError, match="products"):
            parse_options(DetectOptions, {"products": wrong})


def test_a_slice_follows_its_direction():
    voxels = np.zeros((5, 30, 40), np.float32)
    angle = np.radians(30)
    unit = np.array([np.cos(angle), np.sin(angle)])
    for channel in range(5):
        # One point per channel along the direction, 4 px apart.
        x, y = 20 + (channel - 2) * 4 * unit[0], 15 + (channel - 2) * 4 * unit[1]
        rows, columns = np.mgrid[:30, :40]
        voxels[channel] = np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / 1.5**2)
    voxels[:, 0] = np.nan
    image, offset = slice_along(voxels, (20.0, 15.0), unit, 12.0, (3.0, 3.0, 0.0))
    peaks = offset[np.nanargmax(image, axis=1)]
    assert list(peaks) == [-8, -4, 0, 4, 8]
    outside, _ = slice_along(voxels, (38.0, 15.0), np.array([1.0, 0.0]), 12.0, (3.0, 3.0, 0.0))
    assert np.isnan(outside[:, -5:]).all() and np.isfinite(outside[:, 5]).all()
