"""Beside a network: nearby discs are found, noise and point-like residuals are not; what is too bright is trusted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter1d

from models.detections import Detections
from pipeline import cube_bright
from pipeline.cube_bright import BLOCK, BRIGHT_LOGIT, find_bright, measure_bright_rms, trust_bright_lines
from survey_io.simulate.hi import HiModel, noise_cube

MODEL = HiModel(shape=(96, 72, 80), noise_fall=0.0)
REACH = 24
HALO = (60, 20, 20)


class Unit:
    """A cube in S/N units as `measure_bright_rms` reads it."""

    def __init__(self, snr):
        self.snr, self.shape = snr, snr.shape

    def read(self, window):
        return self.snr[window].copy()

    def level(self, window):
        return 0.0

    def rms(self, window):
        return 1.0


@pytest.fixture(scope="module")
def noise():
    return noise_cube(MODEL, np.random.default_rng(4)) / np.float32(MODEL.rms)


@pytest.fixture(scope="module")
def rms(noise):
    return measure_bright_rms(Unit(noise), Unit(noise), MODEL.beam_px, REACH)


def blob(shape, centre, sigma, height):
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    parts = [((axis - c) / s) ** 2 for axis, c, s in zip((z, y, x), centre, sigma, strict=True)]
    return (height * np.exp(-0.5 * sum(parts))).astype(np.float32)


def test_noise_is_measured_and_holds_nothing(noise, rms):
    assert 0 < rms[1] < rms[0] < 1
    empty = Detections.empty(3, ["net_flux"])
    assert len(find_bright(noise, MODEL.beam_px, rms, REACH, empty)) == 0


def test_a_disc_of_many_beams_is_found_once_unless_it_is_known(noise, rms):
    cube = noise + blob(noise.shape, (50, 30, 44), (9, 9, 9), 3.0)
    empty = Detections.empty(3, ["net_flux"])
    found = find_bright(cube, MODEL.beam_px, rms, REACH, empty)
    assert len(found) == 1
    assert found.centre[0] == pytest.approx([50, 30, 44], abs=4)
    assert np.isnan(found.params["net_flux"]).all() and found.logit[0] > 3
    known = Detections(
        np.array([[52.0, 31.0, 42.0]]), np.array([[20.0, 12.0, 12.0]], np.float32), np.array([1.0], np.float32),
        np.array([[52, 31, 42]]), {"net_flux": np.ones(1, np.float32)},
    )  # fmt: skip
    assert len(find_bright(cube, MODEL.beam_px, rms, REACH, known)) == 0
    known.logit[0] = -1
    assert len(find_bright(cube, MODEL.beam_px, rms, REACH, known)) == 1


def test_what_is_no_wider_than_the_beam_is_left_to_the_network(noise, rms):
    spot = np.zeros(noise.shape[1:], np.float32)
    spot[40, 30] = 1
    sigma = MODEL.beam_px / 2.3548
    spot = gaussian_filter(spot, sigma)
    cube = noise + 6 * (spot / spot.max())[None]
    assert len(find_bright(cube, MODEL.beam_px, rms, REACH, Detections.empty(3))) == 0


def test_a_window_sees_what_the_whole_sees(noise, rms):
    cube = noise + blob(noise.shape, (50, 30, 44), (9, 9, 9), 3.0)
    whole = find_bright(cube, MODEL.beam_px, rms, REACH, Detections.empty(3))
    start = np.array(BLOCK) * np.array([4, 1, 5])
    part = find_bright(
        np.ascontiguousarray(cube[start[0] :, start[1] :, start[2] :]), MODEL.beam_px, rms, REACH, Detections.empty(3)
    ).shifted(tuple(start))
    np.testing.assert_allclose(part.centre, whole.centre)


def detections(*rows) -> Detections:
    """Rows are (z, y, x, channels, logit)."""
    values = np.array(rows, float)
    size = np.column_stack([values[:, 3], np.full(len(rows), 4.0), np.full(len(rows), 4.0)]).astype(np.float32)
    return Detections(values[:, :3], size, values[:, 4].astype(np.float32), np.rint(values[:, :3]).astype(int))


def test_what_is_too_bright_for_noise_is_trusted_once():
    snr = np.zeros((120, 40, 40), np.float32)
    # Horns of a wide line, and a faint piece between them.
    snr[30, 20, 18], snr[80, 20, 22], snr[55, 20, 20] = 20.0, 22.0, 6.0
    rows = detections((55, 20, 20, 90, -0.9), (58, 20, 20, 10, -2.0), (100, 5, 5, 20, -1.0), (55, 20, 21, 88, -1.5))
    logit = trust_bright_lines(rows, snr, HALO)
    assert logit[0] > logit[3] > BRIGHT_LOGIT - 0.1
    assert logit[1] == rows.logit[1] and logit[2] == rows.logit[2]


def test_what_is_sure_stays_as_it_is_and_noise_is_not_raised():
    snr = np.zeros((60, 30, 30), np.float32)
    snr[30, 15, 15], snr[10, 5, 5] = 30.0, 7.0
    logit = trust_bright_lines(detections((30, 15, 15, 8, 9.0), (10, 5, 5, 8, 0.5)), snr, HALO)
    assert logit.tolist() == [9.0, 0.5]


def test_nothing_found_raises_nothing():
    assert len(trust_bright_lines(Detections.empty(3), np.zeros((8, 8, 8), np.float32), HALO)) == 0


@pytest.mark.parametrize("shape", [(9, 41, 30), (4, 300, 17), (3, 5, 600), (1, 1, 1)])
def test_filters_are_those_of_scipy(shape):
    """Blocks, a boxcar and Gaussians with nothing beyond the window, also where one matrix does not hold a side."""
    cube = np.random.default_rng(5).normal(size=[n * b + 1 for n, b in zip(shape, cube_bright.BLOCK, strict=True)])
    cube = cube.astype(np.float32)
    blocks = cube_bright._block_means(cube)
    parts = cube[tuple(slice(0, n * b) for n, b in zip(shape, cube_bright.BLOCK, strict=True))]
    sides = [one for n, b in zip(shape, cube_bright.BLOCK, strict=True) for one in (n, b)]
    np.testing.assert_allclose(blocks, parts.reshape(sides).mean(axis=(1, 3, 5)), atol=1e-6)
    means = cube_bright._boxcar(blocks)
    expected = uniform_filter1d(blocks, cube_bright.BOXCAR, axis=0, mode="constant")
    np.testing.assert_allclose(means, expected, atol=1e-6)
    for sigma in (0.4, 1.6, 3.3):
        expected = gaussian_filter(means, (0, sigma, sigma), mode="constant", truncate=cube_bright.TRUNCATE)
        np.testing.assert_allclose(cube_bright._smooth(means, sigma), expected, atol=2e-6)
