"""Background and noise: unbiased by sources, blanks and units, and one value per pixel however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from survey_io.background import (
    ArrayPixels,
    BackgroundMap,
    background_row,
    choose_mesh,
    estimate_background,
    finish_background,
    mesh_statistics,
)
from survey_io.simulate.continuum import SkyModel, noise_map, simulate_continuum

SHAPE = (320, 450)
WHOLE = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
BEAM = (4.0, 4.0, 0.0)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return noise_map(SHAPE, SkyModel(), BEAM, np.random.default_rng(3))


def test_statistics_of_gaussian_samples_are_unbiased() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, (400, 1024)).astype(np.float32)
    level, rms = mesh_statistics(samples)
    assert level.mean() == pytest.approx(3.0, abs=0.03)
    assert rms.mean() == pytest.approx(2.0, rel=0.01)
    assert level.std() < 0.25 and rms.std() < 0.2


def test_statistics_forgive_a_tenth_of_bright_pixels() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 1, (200, 1024)).astype(np.float32)
    samples[:, :100] += rng.exponential(50, (200, 100)).astype(np.float32)
    level, rms = mesh_statistics(samples)
    assert abs(level.mean()) < 0.15 and rms.mean() == pytest.approx(1.0, abs=0.1)


def test_statistics_need_a_tenth_of_valid_samples_and_some_spread() -> None:
    samples = np.random.default_rng(2).normal(size=(4, 200)).astype(np.float32)
    samples[0, 19:] = np.nan
    samples[1, 21:] = np.nan
    samples[2] = 5.0
    level, rms = mesh_statistics(samples)
    assert np.isnan(rms[[0, 2]]).all() and np.isnan(level[[0, 2]]).all()
    assert np.isfinite(rms[[1, 3]]).all()


def test_beam_correlated_noise_has_the_rms_it_was_given(noise: np.ndarray) -> None:
    level, rms = estimate_background(ArrayPixels(noise), mesh=96).sample(WHOLE)
    assert level.shape == rms.shape == SHAPE and level.dtype == rms.dtype == np.float32
    assert rms.mean() == pytest.approx(1.0, abs=0.03)
    assert abs(level).max() < 0.35


def test_sources_hardly_move_the_estimate() -> None:
    # As dense as the SKA challenge at 560 MHz.
    model = SkyModel(density=0.026, sidelobe_level=0.0)
    sky = simulate_continuum(SHAPE, beam_pixels=4.0, seed=5, model=model, rms=1.0)
    found = estimate_background(ArrayPixels(sky.image), mesh=96)
    assert found.typical_rms == pytest.approx(1.0, abs=0.25)
    assert found.typical_rms < 0.5 * sky.image.std()
    assert abs(np.median(found.background)) < 0.4


@pytest.mark.parametrize("unit", [1e-7, 3e5])
def test_unit_of_the_image_is_the_unit_of_the_maps(noise: np.ndarray, unit: float) -> None:
    reference = estimate_background(ArrayPixels(noise), mesh=64)
    scaled = estimate_background(ArrayPixels(noise * np.float32(unit)), mesh=64)
    np.testing.assert_allclose(scaled.rms, reference.rms * unit, rtol=1e-4)
    np.testing.assert_allclose(scaled.background, reference.background * unit, atol=1e-4 * unit)


def test_blank_borders_neither_count_nor_spread(noise: np.ndarray) -> None:
    blank = noise.copy()
    blank[:70], blank[:, 400:] = np.nan, np.nan
    level, rms = estimate_background(ArrayPixels(blank), mesh=64).sample(WHOLE)
    assert np.isfinite(rms).all() and np.isfinite(level).all()
    assert rms[70:, :400].mean() == pytest.approx(1.0, abs=0.04)
    assert rms.min() > 0.7 and rms.max() < 1.3


def test_constant_and_blank_images_have_no_rms() -> None:
    for value in (1.0, 0.0, np.nan):
        found = estimate_background(ArrayPixels(np.full((100, 100), value, np.float32)), mesh=32)
        assert np.isnan(found.rms).all()
        assert np.isnan(found.sample((slice(0, 50), slice(0, 50)))[1]).all()


def test_a_gradient_and_a_step_in_noise_are_recovered(noise: np.ndarray) -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    slope = (0.02 * x - 0.01 * y).astype(np.float32)
    loud = 1 + 2 * (x > 225)
    level, rms = estimate_background(ArrayPixels(noise * loud + slope), mesh=48).sample(WHOLE)
    inner = (slice(40, -40), slice(40, -40))
    assert np.abs(level - slope)[inner].mean() < 0.5
    assert np.polyfit(x[160, 20:180], level[160, 20:180], 1)[0] == pytest.approx(0.02, rel=0.25)
    assert np.median(rms[:, :150]) == pytest.approx(1.0, abs=0.1)
    assert np.median(rms[:, 300:]) == pytest.approx(3.0, abs=0.3)


def test_sampling_does_not_know_how_windows_are_cut(noise: np.ndarray) -> None:
    found = estimate_background(ArrayPixels(noise), mesh=64)
    whole = found.sample(WHOLE)
    for y in range(0, SHAPE[0], 37):
        for x in range(0, SHAPE[1], 53):
            window = (slice(y, min(y + 37, SHAPE[0])), slice(x, min(x + 53, SHAPE[1])))
            for part, reference in zip(found.sample(window), whole, strict=True):
                np.testing.assert_allclose(part, reference[window], atol=1e-6, rtol=0)


def test_positions_are_sampled_like_windows(noise: np.ndarray) -> None:
    found = estimate_background(ArrayPixels(noise), mesh=64)
    level, rms = found.sample(WHOLE)
    y, x = np.random.default_rng(4).integers(0, SHAPE, (50, 2)).T
    at = found.at(y, x)
    np.testing.assert_allclose(at[0], level[y, x], atol=1e-6)
    np.testing.assert_allclose(at[1], rms[y, x], atol=1e-6)


def test_mesh_values_hold_at_the_centres_of_their_cells() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = BackgroundMap(values, values + 1, 10)
    # The centre of the first cell of ten pixels lies at 4.5.
    level, rms = found.at(np.array([4.5, 14.5, 24.5]), np.array([4.5, 24.5, 34.5]))
    np.testing.assert_allclose(level, [0, 6, 11])
    np.testing.assert_allclose(rms, [1, 7, 12])


def test_rows_made_apart_give_the_same_map(noise: np.ndarray) -> None:
    pixels, mesh = ArrayPixels(noise), 64
    rows = [background_row(pixels, row, mesh=mesh) for row in range(5)]
    apart = finish_background([b for b, _ in rows], [r for _, r in rows], mesh=mesh)
    whole = estimate_background(pixels, mesh=mesh)
    np.testing.assert_array_equal(apart.rms, whole.rms)
    np.testing.assert_array_equal(apart.background, whole.background)


def test_a_mesh_too_small_for_its_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 pixels with step=4, got 7"):
        estimate_background(ArrayPixels(np.zeros((64, 64), np.float32)), mesh=7, step=4)


@pytest.mark.parametrize(
    ("shape", "beam", "mesh"),
    [((4000, 4000), 4.0, 96), ((4000, 4000), 1.0, 64), ((9000, 9000), 40.0, 512), ((150, 4000), 8.0, 74)],
)
def test_mesh_grows_with_the_beam_within_limits(shape: tuple[int, int], beam: float, mesh: int) -> None:
    assert choose_mesh(shape, beam) == mesh
    assert choose_mesh(shape, beam) % 2 == 0


def test_an_array_reads_like_a_file() -> None:
    pixels = ArrayPixels(np.arange(6, dtype=np.float64).reshape(2, 3))
    assert pixels.shape == (2, 3)
    got = pixels.read((slice(-1, 2), slice(1, 5)))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [[np.nan] * 4, [1, 2, np.nan, np.nan], [4, 5, np.nan, np.nan]])
    assert np.isnan(pixels.read((slice(5, 7), slice(0, 2)))).all()
