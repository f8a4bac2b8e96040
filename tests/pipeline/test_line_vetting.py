"""Spectra over a cube's sources: the right lines of sight and channels, and a score that tells lines from nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.line_vetting import source_spectra, vet_lines
from pipeline.spectrum_finders import make_spectrum_finder
from survey_io.cube_noise import ArrayCube, estimate_cube_noise

SHAPE, BEAM = (420, 40, 52), (4.0, 4.0, 0.0)
SOURCES = {
    "z": np.array([200.2, 60.7, 330.0, 5.0]), "y": np.array([20.3, 12.0, 30.0, 39.0]),
    "x": np.array([31.0, 9.6, 40.0, 51.0]), "size_z": np.array([18.0, 9.0, 18.0, 10.0]),
    "size_y": np.array([6.0, 4.0, 5.0, 4.0]), "size_x": np.array([5.0, 4.0, 5.0, 4.0]),
}  # fmt: skip


@pytest.fixture(scope="module")
def cube():
    """Noise with a beam; lines at the first two sources, none at the third, and blank rows at the last."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    noise = gaussian_filter(rng.normal(size=SHAPE), (0, BEAM[0] / 2.355, BEAM[1] / 2.355), mode="wrap")
    data = noise / noise.std()
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for row, height in ((0, 2.2), (1, -4.0)):
        s = {name: values[row] for name, values in SOURCES.items()}
        distance = ((y - s["y"]) / s["size_y"]) ** 2 + ((x - s["x"]) / s["size_x"]) ** 2
        distance = distance + ((z - s["z"]) / s["size_z"]) ** 2
        data += abs(height) * np.exp(-4 * np.log(2) * distance)
    data[:, 34:, 46:] = np.nan
    data[201] = np.nan
    pixels = ArrayCube(data.astype(np.float32))
    return pixels, estimate_cube_noise(pixels)


def test_a_spectrum_is_in_units_of_its_noise_and_centred_on_its_source(cube):
    pixels, noise = cube
    spectra = source_spectra(pixels, noise, BEAM, SOURCES, 128)
    assert spectra.shape == (4, 256) and spectra.dtype == np.float32
    # The last source lies on blank voxels; channels beyond the cube and blank ones are blank.
    assert np.isnan(spectra[3]).all()
    assert np.isnan(spectra[1, : 128 - 61]).all() and np.isnan(spectra[0, 129])
    off = spectra[2][np.isfinite(spectra[2])]
    assert np.median(np.abs(off)) * 1.4826 == pytest.approx(1, abs=0.15) and abs(np.median(off)) < 0.15
    for row in (0, 1):
        smooth = np.convolve(np.nan_to_num(spectra[row]), np.ones(9), mode="same")
        assert abs(int(np.argmax(smooth)) - 128) <= 3


def test_lines_score_high_and_nothing_low_whatever_the_batch(cube):
    pixels, noise = cube
    finder, card = make_spectrum_finder("lines")
    calibration = card["calibration"]["reliability"]
    score = vet_lines(pixels, noise, BEAM, SOURCES, finder, calibration)
    assert score[0] > 0.6 and score[1] > 0.6 and score[2] < 0.3 and np.isnan(score[3])
    for row in range(4):
        own = {name: values[[row]] for name, values in SOURCES.items()}
        assert vet_lines(pixels, noise, BEAM, own, finder, calibration) == pytest.approx(
            score[[row]], abs=1e-4, nan_ok=True
        )


def test_a_line_in_absorption_is_none_of_a_galaxy(cube):
    pixels, noise = cube
    finder, card = make_spectrum_finder("lines")
    negative = ArrayCube(-pixels.array)
    noise = estimate_cube_noise(negative)
    score = vet_lines(negative, noise, BEAM, SOURCES, finder, card["calibration"]["reliability"])
    assert score[0] < 0.2 and score[1] < 0.2


def test_no_sources(cube):
    pixels, noise = cube
    none = {name: values[:0] for name, values in SOURCES.items()}
    finder, card = make_spectrum_finder("lines")
    assert len(vet_lines(pixels, noise, BEAM, none, finder, card["calibration"]["reliability"])) == 0
