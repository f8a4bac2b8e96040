"""The two wide filters beside a network: nearby discs are found, noise and point-like residuals are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.detections import Detections
from pipeline.cube_bright import BLOCK, find_bright, measure_bright_rms
from survey_io.simulate.hi import HiModel, noise_cube

MODEL = HiModel(shape=(96, 72, 80), noise_fall=0.0)
REACH = 24


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
