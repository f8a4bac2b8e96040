"""The weightless finder of lines: planted lines come back, noise stays quiet, windows agree with the whole."""

from __future__ import annotations

import numpy as np
import pytest

from models.detectors.smooth_clip import SmoothClip, measure_scale_rms
from models.registry import get_model
from survey_io.cube_noise import ArrayCube, estimate_cube_noise
from survey_io.simulate.hi import Galaxies, HiModel, noise_cube, paint_galaxies

MODEL = HiModel(shape=(110, 70, 64), rms=1e-5)


@pytest.fixture(scope="module")
def noise():
    return noise_cube(MODEL, np.random.default_rng(5))


def prepared(cube):
    pixels = ArrayCube(cube)
    found = estimate_cube_noise(pixels)
    detector = get_model("smooth-clip").build()
    window = tuple(slice(0, n) for n in cube.shape)
    rms = measure_scale_rms(pixels, found, MODEL.beam_px, detector=detector)
    return detector, (cube - found.level(window)) / found.rms(window), rms


def test_noise_alone_has_few_candidates(noise):
    detector, snr, rms = prepared(noise)
    found = detector.find(snr.astype(np.float32), MODEL.beam_px, rms)
    assert len(found["z"]) < 60 and found["peak_snr"].max(initial=0) < 6


def test_planted_lines_are_found_at_their_scale(noise):
    names = ("x", "y", "z", "flux", "size", "w20", "pa", "inclination", "snr")
    values = ([20.0, 45.0], [20.0, 50.0], [40.0, 70.0], [60.0, 90.0], [4.0, 20.0], [120.0, 400.0], [10.0, 200.0],
              [30.0, 70.0], [0.0, 0.0])  # fmt: skip
    planted = Galaxies(**{name: np.array(value) for name, value in zip(names, values, strict=True)})
    detector, snr, rms = prepared(noise + paint_galaxies(MODEL, planted))
    found = detector.find(snr.astype(np.float32), MODEL.beam_px, rms)
    for row in range(2):
        apart = np.hypot(found["x"] - planted.x[row], found["y"] - planted.y[row])
        near = (apart < 3) & (np.abs(found["z"] - planted.z[row]) < 12)
        assert found["peak_snr"][near].max(initial=0) > 10
    best = np.argmax(found["peak_snr"])
    assert found["score"][best] > 0.999 and found["size"].shape == (len(found["z"]), 3)


def test_a_window_with_its_halo_gives_what_the_whole_gives(noise):
    detector, snr, rms = prepared(noise)
    snr = snr.astype(np.float32)
    snr[40:44, 30:40, 20:30] += 4
    snr[10, :, 5] = np.nan
    halo = detector.halo(MODEL.beam_px)
    core = (slice(30, 60), slice(22, 44), slice(18, 40))
    sides = zip(core, halo, snr.shape, strict=True)
    window = tuple(slice(max(c.start - h, 0), min(c.stop + h, n)) for c, h, n in sides)
    whole, part = detector.find(snr, MODEL.beam_px, rms), detector.find(snr[window], MODEL.beam_px, rms)

    def rows(found, origin):
        places = np.stack([found[axis] + o for axis, o in zip("zyx", origin, strict=True)], -1)
        inside = np.all([(p >= c.start) & (p < c.stop) for p, c in zip(places.T, core, strict=True)], axis=0)
        table = np.column_stack([places, found["scale"], found["peak_snr"]])[inside]
        return table[np.lexsort(table.T)]

    a, b = rows(whole, (0, 0, 0)), rows(part, [w.start for w in window])
    assert len(a) > 0 and a.shape == b.shape
    assert a[:, :4] == pytest.approx(b[:, :4]) and a[:, 4] == pytest.approx(b[:, 4], rel=1e-4)


def test_filters_longer_than_the_cube_are_left_out(noise):
    detector = SmoothClip()
    short = ArrayCube(noise[:20])
    rms = measure_scale_rms(short, estimate_cube_noise(short), MODEL.beam_px, detector=detector)
    assert [np.isnan(r) for r in rms] == [width > 20 for _, width in detector.scales]
