"""Tiles, overviews, values and depth of an observation, against the pixels themselves."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from pipeline.preview import open_preview
from pipeline.preview.depth import area_limits, expected_completeness, find_truth, measure_recovery, read_truth
from pipeline.preview.overview import FACTOR, build_overview, load_overview, reduce_blocks, save_overview
from pipeline.preview.tiles import BLANK, FINE, SCALE, SOFTENING, TILE, Pyramid
from survey_io.background import ArrayPixels
from survey_io.errors import InputError


def noise(shape: tuple[int, int], *, rms: float = 2.0, level: float = 5.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, rms, shape).astype(np.float32)


def values_of(coded: np.ndarray) -> np.ndarray:
    """S/N that the numbers of a tile stand for."""
    return np.where(coded == BLANK, np.nan, SOFTENING * np.sinh(coded / SCALE))


@pytest.mark.parametrize("factor", [2, 3, 16])
def test_blocks_are_means_and_peaks_of_what_is_valid(factor: int) -> None:
    image = noise((37, 50))
    image[:20, 7:30] = np.nan
    mean, peak = reduce_blocks(image, image, factor)
    assert mean.shape == peak.shape == (-(-37 // factor), -(-50 // factor))
    for row in range(mean.shape[0]):
        for column in range(mean.shape[1]):
            block = image[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            good = block[np.isfinite(block)]
            if good.size:
                assert mean[row, column] == pytest.approx(good.mean(), rel=1e-5)
                assert peak[row, column] == good.max()
            else:
                assert np.isnan(mean[row, column]) and np.isnan(peak[row, column])


def test_an_overview_knows_level_noise_and_area() -> None:
    image = noise((700, 900))
    image[:, 450:] *= 3
    image[:, 450:] -= 10  # level 5 again, with three times the noise
    image[300:, :200] = np.nan
    overview = build_overview(ArrayPixels(image))
    assert overview.mean.shape == (-(-700 // FACTOR), -(-900 // FACTOR))
    assert overview.level == pytest.approx(5.0, abs=0.3)
    columns = np.arange(overview.rms.shape[1]) * overview.cell
    quiet, loud = overview.rms[:4, columns + overview.cell <= 450], overview.rms[:, columns >= 450]
    assert np.nanmedian(quiet) == pytest.approx(2.0, rel=0.08) and np.nanmedian(loud) == pytest.approx(6.0, rel=0.08)
    assert overview.area.sum() == pytest.approx(np.isfinite(image).sum(), rel=0.03)
    assert np.isnan(overview.rms[-1, 0])


def test_an_overview_is_kept_and_a_damaged_one_made_anew(tmp_path: Path) -> None:
    pixels, path = ArrayPixels(noise((300, 200))), tmp_path / "a" / "image.npz"
    made = build_overview(pixels)
    save_overview(made, path)
    again = load_overview(path)
    assert again is not None and again.noise == made.noise and np.array_equal(again.peak, made.peak)
    path.write_bytes(path.read_bytes()[:200])
    assert load_overview(path) is None
    assert Pyramid(pixels, path).overview.noise == made.noise and load_overview(path) is not None
    assert [one.name for one in path.parent.iterdir()] == ["image.npz"]
    # Where nothing can be written, as below a file, it is still made.
    assert Pyramid(pixels, path / "below" / "image.npz").overview.noise == made.noise


@pytest.mark.parametrize("level", range(5))
def test_tiles_hold_the_image_in_every_scale(level: int) -> None:
    image = noise((1500, 2100), rms=1e-4, level=3e-4)
    image[700:760, 900:1000] = np.nan
    pyramid = Pyramid(ArrayPixels(image))
    rows, columns = pyramid.grid(level)
    shown = np.block([[pyramid.tile(level, r, c) for c in range(columns)] for r in range(rows)])
    factor = 2**level
    expected, _ = reduce_blocks(image, image, factor)
    got = values_of(shown)[: expected.shape[0], : expected.shape[1]]
    scaled = (expected - pyramid.overview.level) / pyramid.noise[level]
    assert np.array_equal(np.isnan(got), np.isnan(scaled))
    inside = np.abs(scaled) < 5
    assert np.nanmax(np.abs(got - scaled)[inside]) < 0.03
    assert np.nanstd(got) == pytest.approx(1.0, rel=0.15)
    # Beyond the image there is nothing.
    assert np.all(shown[expected.shape[0] :] == BLANK) and np.all(shown[:, expected.shape[1] :] == BLANK)


def test_a_point_source_is_seen_from_afar() -> None:
    image = noise((4096, 4096), level=0.0)
    image[1234, 3456] = 100.0  # 50 times the noise, a 4096th of a coarse block
    pyramid = Pyramid(ArrayPixels(image))
    for level in range(1, pyramid.levels):
        y, x = 1234 // 2**level, 3456 // 2**level
        tile = values_of(pyramid.tile(level, y // TILE, x // TILE))
        assert tile[y % TILE, x % TILE] == pytest.approx(50, rel=0.06)
        assert np.nanmedian(np.abs(tile)) < 1


def test_constant_and_blank_images_have_tiles(tmp_path: Path) -> None:
    for value in (7.0, np.nan):
        pyramid = Pyramid(ArrayPixels(np.full((90, 40), value, np.float32)))
        tile = pyramid.tile(0, 0, 0)
        assert np.all(tile[:90, :40] == (BLANK if np.isnan(value) else 0)) and pyramid.top == 25.0
    with pytest.raises(IndexError):
        pyramid.tile(0, 0, 1)


def test_memory_stays_bounded_however_large_the_image_is(tmp_path: Path) -> None:
    side, path = 12_288, tmp_path / "large.fits"
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = True, -32, 2, side, side
    for axis, kind in enumerate(("RA---TAN", "DEC--TAN"), start=1):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = kind, 10.0, 1e-4
    with open(path, "wb") as file:
        file.write(header.tostring().encode())
        file.truncate(file.tell() + -(-side * side * 4 // 2880) * 2880)  # a hole in the file: 600 MB that take no room
    tracemalloc.start()
    try:
        preview = open_preview(path, tmp_path / "cache")
        assert preview is not None
        preview.plane_scale("image")
        for level in range(preview.describe()["levels"]):
            preview.tile("image", level, 0, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6


def test_bytes_of_a_tile_are_its_numbers() -> None:
    pyramid = Pyramid(ArrayPixels(noise((300, 300))))
    high, low = np.frombuffer(gzip.decompress(pyramid.tile_bytes(0, 1, 1)), np.uint8).reshape(2, TILE, TILE)
    assert np.array_equal((high.view(np.int8).astype(np.int16) << 8) | low, pyramid.tile(0, 1, 1))
    assert pyramid.levels == 2 and FINE == 4


def test_values_and_places_of_an_image(planted_sky: Any, tmp_path: Path) -> None:
    preview = open_preview(planted_sky.path, tmp_path)
    assert preview is not None and preview.planes == ["image"]
    truth = planted_sky.truth
    placed = preview.place(truth["ra"], truth["dec"], truth["maj"], truth["min"], truth["pa"])
    assert np.allclose(placed["x"], truth["x"], atol=1e-4) and np.allclose(placed["y"], truth["y"], atol=1e-4)
    assert np.allclose(placed["major"] * 1.5, truth["maj"], rtol=1e-3)
    # Without a size of its own a source gets the beam's.
    assert preview.place([53.1], [-27.8], [np.nan], [np.nan], [np.nan])["major"] == pytest.approx(9 / 1.5, rel=1e-3)
    brightest = int(np.argmax(truth["peak_flux"]))
    value = preview.probe("image", truth["x"][brightest], truth["y"][brightest])
    assert (value["ra"], value["dec"]) == pytest.approx((truth["ra"][brightest], truth["dec"][brightest]))
    assert value["value"] == pytest.approx(truth["peak_flux"][brightest], rel=0.1) and value["snr"] > 100
    assert preview.probe("image", -50, 3)["value"] is None
    with pytest.raises(IndexError):
        preview.spectrum(1, 1, 1)
    with pytest.raises(IndexError):
        preview.tile("0", 0, 0, 0)
    with pytest.raises(InputError, match="there is none"):
        open_preview(tmp_path / "gone.fits", tmp_path)


def test_a_changed_file_has_another_key(write_image: Callable[..., Path], tmp_path: Path) -> None:
    path = write_image(noise((60, 80)))
    first = open_preview(path, tmp_path / "cache")
    path.unlink()
    second = open_preview(write_image(noise((60, 81))), tmp_path / "cache")
    assert first is not None and second is not None and first.key != second.key


def test_flux_limits_and_expected_completeness() -> None:
    image = noise((1024, 1024), rms=1.0, level=0.0)
    image[:, 512:] *= 2
    overview = build_overview(ArrayPixels(image))
    limit, share = area_limits(overview, 5.0)
    assert share[-1] == pytest.approx(1.0) and np.all(np.diff(limit) >= 0)
    assert np.interp(0.25, share, limit) == pytest.approx(5.0, rel=0.06)
    assert np.interp(0.75, share, limit) == pytest.approx(10.0, rel=0.06)
    # At five times the quiet half's noise half of its sources are above the limit, and almost none of the other's.
    found = expected_completeness([0.1, 5.0, 10.0, 40.0], overview)
    assert found == pytest.approx([0, 0.25, 0.75, 1.0], abs=0.03)


def test_completeness_is_measured_against_a_truth_list(planted_sky: Any) -> None:
    assert find_truth(planted_sky.path) is None
    path = planted_sky.path.with_name("planted_truth.ecsv")
    planted_sky.truth.write(path, format="ascii.ecsv")
    assert find_truth(planted_sky.path) == path
    truth = read_truth(path)
    assert truth is not None and len(truth) == 12
    order = np.argsort(truth["flux"])
    seen = order[5:]  # the faint ones are missed; one row is false
    ra, dec = np.r_[truth["ra"][seen], 10.0], np.r_[truth["dec"][seen] + 1e-4, 10.0]
    recovery = measure_recovery(truth, ra, dec, 1.0, bins=2)
    assert recovery is not None and (recovery.rows, recovery.matched) == (8, 7)
    assert recovery.true.sum() == 12 and recovery.found.sum() == 7 and recovery.found[0] < recovery.true[0]
    # Two rows cannot be the same true source.
    twice = measure_recovery(truth, truth["ra"][[0, 0]], truth["dec"][[0, 0]], 1.0)
    assert twice is not None and twice.matched == 1
    path.write_text("nothing")
    assert read_truth(path) is None
    assert measure_recovery(Table({"ra": [1.0], "dec": [1.0], "flux": [0.0]}), [1.0], [1.0], 1.0) is None
