"""Noise of cubes: right for each channel and place, blind to galaxies, and interference is flagged."""

from __future__ import annotations

import numpy as np
import pytest

from survey_io.cube_noise import ArrayCube, estimate_cube_noise
from survey_io.simulate.hi import HiModel, noise_cube


@pytest.fixture(scope="module")
def model():
    return HiModel(shape=(240, 64, 80), noise_fall=0.4, rms=1e-3)


@pytest.fixture(scope="module")
def noise(model):
    return noise_cube(model, np.random.default_rng(8))


def whole(cube):
    return tuple(slice(0, n) for n in cube.shape)


def test_rms_of_each_channel(model, noise):
    found = estimate_cube_noise(ArrayCube(noise))
    assert found.rms(whole(noise)).mean(axis=(1, 2)) == pytest.approx(model.channel_rms(), rel=0.12)
    assert np.median(found.rms(whole(noise)).mean(axis=(1, 2)) / model.channel_rms()) == pytest.approx(1, abs=0.02)
    assert not found.flagged.any() and found.continuum_sights == 0


def test_noise_that_varies_over_the_sky(model, noise):
    gain = np.linspace(0.7, 1.4, noise.shape[2], dtype=np.float32)
    found = estimate_cube_noise(ArrayCube(noise * gain))
    rms = found.rms(whole(noise)).mean(axis=(0, 1))
    assert rms[-8:].mean() / rms[:8].mean() == pytest.approx(gain[-8:].mean() / gain[:8].mean(), rel=0.15)


def test_galaxies_do_not_count_as_noise(model, noise):
    bright = noise.copy()
    bright[100:140, 20:44, 20:50] += 0.02
    rms = estimate_cube_noise(ArrayCube(bright)).channel_rms
    assert rms[100:140] == pytest.approx(model.channel_rms()[100:140], rel=0.2)


def test_interference_and_blanks_are_flagged(noise):
    bad = noise.copy()
    bad[50] *= 5
    bad[60] = np.nan
    bad[70] = 0.0
    bad[:, :10] = np.nan
    found = estimate_cube_noise(ArrayCube(bad))
    assert list(np.flatnonzero(found.flagged)) == [50, 60, 70] and found.rfi_channels == 1
    assert not found.good(whole(bad))[0, :10].any() and found.good(whole(bad))[0, 10:].all()


@pytest.mark.parametrize("filler", [0.0, np.nan])
def test_channels_without_data_leave_the_noise_of_the_others_as_it_is(noise, filler):
    empty = noise.copy()
    empty[16:] = filler
    found, alone = estimate_cube_noise(ArrayCube(empty)), estimate_cube_noise(ArrayCube(noise[:16].copy()))
    assert found.flagged[16:].all() and found.good(whole(empty))[:16].all()
    np.testing.assert_allclose(found.rms(whole(empty))[:16], alone.rms((slice(0, 16), *whole(noise)[1:])), rtol=0.05)
    assert (empty[16:] == filler).all() or np.isnan(empty[16:]).all()


def test_continuum_is_taken_off_where_it_is_significant(noise):
    left = noise.copy()
    left[:, 30, 40] += 2e-3
    found = estimate_cube_noise(ArrayCube(left))
    assert found.continuum[30, 40] == pytest.approx(2e-3, rel=0.15)
    assert np.count_nonzero(found.continuum) < 6


def test_windows_outside_take_the_border(noise):
    found = estimate_cube_noise(ArrayCube(noise))
    window = (slice(-3, 2), slice(-1, 3), slice(78, 83))
    assert found.rms(window).shape == (5, 4, 5) and found.level(window).shape == (1, 4, 5)
    assert np.array_equal(found.rms(window)[0], found.rms(window)[3])


def test_bands_do_not_change_the_answer_for_big_cubes(noise, monkeypatch):
    one = estimate_cube_noise(ArrayCube(noise))
    monkeypatch.setattr("survey_io.cube_noise.SLAB_VOXELS", 100_000)
    two = estimate_cube_noise(ArrayCube(noise))
    assert np.array_equal(one.channel_rms, two.channel_rms) and np.array_equal(one.relative, two.relative)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4])
@pytest.mark.parametrize("height", [4.0, 25.0])
def test_a_galaxy_that_fills_many_channels_is_no_continuum(model, noise, share, height):
    wide = noise.copy()
    count = int(share * noise.shape[0])
    wide[60 : 60 + count, 30:36, 40:47] += height * 1e-3
    found = estimate_cube_noise(ArrayCube(wide))
    assert found.good(whole(wide))[0, 30:36, 40:47].all()
    # Less than half a sigma is taken off, whatever its height.
    assert np.abs(found.continuum[30:36, 40:47]).max() < 0.6e-3
    assert np.abs(found.continuum[30:36, 40:47]).mean() < 0.2e-3


def test_badly_subtracted_sources_are_flagged_still(model, noise):
    bad = noise.copy()
    rng = np.random.default_rng(4)
    bad[:, 20, 30] += 4e-3 * rng.normal(size=noise.shape[0]) + 1e-3
    found = estimate_cube_noise(ArrayCube(bad))
    assert not found.good(whole(bad))[0, 20, 30] and found.continuum_sights == 1
