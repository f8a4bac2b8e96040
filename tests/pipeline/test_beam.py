"""The beam of images that state none."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.beam import estimate_beam
from survey_io.background import ArrayPixels, BackgroundMap, estimate_background
from survey_io.errors import InputError
from survey_io.simulate.continuum import SkyModel, noise_map, simulate_continuum


def estimate(image: np.ndarray, mesh: int = 128) -> float:
    pixels = ArrayPixels(image)
    return estimate_beam(pixels, estimate_background(pixels, mesh=mesh))


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 7.0])
def test_sources_give_the_beam(fwhm: float) -> None:
    side = int(120 * fwhm)
    sky = simulate_continuum((side, side + 64), beam_pixels=fwhm, seed=3, model=SkyModel(point_fraction=0.15))
    assert estimate(sky.image) == pytest.approx(fwhm, rel=0.08)


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 7.0])
def test_noise_alone_gives_the_beam(fwhm: float) -> None:
    image = noise_map((500, 640), SkyModel(), (fwhm, fwhm, 0.0), np.random.default_rng(1))
    assert estimate(image) == pytest.approx(fwhm, rel=0.08)


def test_unit_and_level_of_the_image_do_not_matter() -> None:
    sky = simulate_continuum((400, 400), beam_pixels=4.0, seed=3, rms=1.0).image
    assert estimate(sky * np.float32(1e-6) + np.float32(1e-4)) == pytest.approx(estimate(sky), rel=0.02)


def test_an_elliptical_beam_gives_its_mean() -> None:
    sky = simulate_continuum((500, 500), beam_pixels=(6.0, 4.0, 0.0), seed=3, model=SkyModel(point_fraction=0.15))
    assert estimate(sky.image) == pytest.approx(np.sqrt(24), rel=0.08)


def test_blank_parts_of_a_large_image_do_not_matter() -> None:
    # Of the nine windows one is wholly blank and others in part.
    image = np.full((1100, 2600), np.nan, np.float32)
    image[:, 1150:2100] = noise_map((1100, 950), SkyModel(), (4.0, 4.0, 0.0), np.random.default_rng(1))
    assert estimate(image) == pytest.approx(4.0, rel=0.08)


def test_a_blank_image_has_no_beam() -> None:
    blank = BackgroundMap(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32), 64)
    with pytest.raises(InputError, match="give --beam"):
        estimate_beam(ArrayPixels(np.full((128, 128), np.nan, np.float32)), blank)


def test_estimates_stay_within_their_range() -> None:
    white = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    assert estimate(white) == pytest.approx(1.2, abs=0.1)
