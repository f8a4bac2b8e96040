"""Simulated HI cubes: what is painted is what the truth says, and the population is that of the challenge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from survey_io.cube import open_cube
from survey_io.sdc2 import read_sdc2
from survey_io.simulate.hi import (
    Galaxies,
    HiModel,
    contaminate,
    draw_galaxies,
    noise_cube,
    paint_galaxies,
    simulate_hi,
    truth_table,
    write_hi,
)
from survey_io.simulate.hi_paint import width_at
from survey_io.spectral import HI_REST_FREQUENCY, LIGHT

TRUTH = Path(__file__).resolve().parents[3] / "shared" / "data" / "sdc2_templates" / "sky_ldev_truthcat_v2.txt"


def galaxy(pa: float, inclination: float = 60.0, w20: float = 250.0, size: float = 25.0) -> Galaxies:
    values = (22.3, 31.7, 60.4, 50.0, size, w20, pa, inclination, 0.0)
    names = ("x", "y", "z", "flux", "size", "w20", "pa", "inclination", "snr")
    return Galaxies(**{name: np.array([value]) for name, value in zip(names, values, strict=True)})


@pytest.mark.parametrize("pa", [0.0, 40.0, 135.0, 200.0, 310.0])
def test_a_galaxy_is_where_the_truth_says(pa):
    model, one = HiModel(shape=(120, 60, 48)), galaxy(pa)
    cube = paint_galaxies(model, one).astype(float)
    z, y, x = np.indices(cube.shape)
    total = cube.sum()
    centre = [(cube * axis).sum() / total for axis in (z, y, x)]
    assert centre == pytest.approx([60.4, 31.7, 22.3], abs=0.02)
    assert total / model.beam_area * model.channel_width == pytest.approx(50.0, rel=1e-4)
    # Receding gas has the lower frequency, so the lower channel.
    receding, approaching = cube[:60].sum(axis=0), cube[61:].sum(axis=0)
    dx, dy = (
        (receding * axis).sum() / receding.sum() - (approaching * axis).sum() / approaching.sum()
        for axis in (x[0], y[0])
    )
    assert (np.degrees(np.arctan2(-dx, dy)) - pa + 180) % 360 - 180 == pytest.approx(0, abs=0.5)
    profile = cube.sum(axis=(1, 2))
    seen = np.flatnonzero(profile > 0.2 * profile.max())
    width = (seen[-1] - seen[0] + 1) * model.channel_width * LIGHT * HI_REST_FREQUENCY / model.frequency(60) ** 2
    assert width == pytest.approx(250.0, rel=0.12)
    assert one.snr[0] > 3


def moments(model: HiModel, cube: np.ndarray) -> tuple[float, float, float]:
    """Flux, w20 and position angle (between the receding and the approaching half) seen in a noise-free cube."""
    profile = cube.sum(axis=(1, 2), dtype=float)
    per_channel = LIGHT * model.channel_width * HI_REST_FREQUENCY / model.frequency(len(cube) / 2) ** 2
    middle = int((profile * np.arange(len(cube))).sum() / profile.sum())
    _, y, x = np.indices(cube.shape)
    low, high = cube[:middle].sum(axis=0, dtype=float), cube[middle + 1 :].sum(axis=0, dtype=float)
    dx, dy = ((low * axis).sum() / low.sum() - (high * axis).sum() / high.sum() for axis in (x[0], y[0]))
    flux = profile.sum() / model.beam_area * model.channel_width
    return flux, width_at(profile) * per_channel, float(np.degrees(np.arctan2(-dx, dy)))


@pytest.mark.parametrize("seed", range(6))
def test_lopsided_warped_and_hollow_galaxies_keep_their_truth(seed):
    # Channels of 2 km/s, so that they do not widen the profile.
    model = HiModel(shape=(400, 72, 72), channel_width=6e3, lopsided=0.7, warp=30, hole=1.0)
    rng = np.random.default_rng(seed)
    drawn = draw_galaxies(replace(model, shape=(4000, 72, 72), density=3), rng)[:1]
    drawn.x[:], drawn.y[:], drawn.z[:] = 35.3, 36.2, 199.6
    drawn.size[:], drawn.w20[:], drawn.inclination[:] = rng.uniform(8, 45), rng.uniform(60, 500), rng.uniform(30, 85)
    cube = paint_galaxies(model, drawn)
    flux, w20, pa = moments(model, cube)
    assert flux == pytest.approx(drawn.flux[0], rel=1e-3)
    assert w20 == pytest.approx(drawn.w20[0], rel=0.02, abs=2)
    # The warp and the brighter side pull the light's angle; the truth is the inner disc's.
    assert abs((pa - drawn.pa[0] + 180) % 360 - 180) < 25
    assert cube.min() > -0.01 * cube.max()
    plain = drawn[:]
    for name in ("lopsided", "skew", "warp_pa", "warp_inclination", "hole"):
        getattr(plain, name)[:] = 0
    assert np.abs(paint_galaxies(model, plain) - cube).max() > 0.03 * cube.max()


def test_what_shapes_a_galaxy_is_seen():
    model = HiModel(shape=(120, 72, 72))
    y, x = np.indices(model.shape[1:])

    def painted(**shape: float) -> np.ndarray:
        one = galaxy(0.0, inclination=45.0, size=60.0)
        one.x[:], one.y[:] = 36, 36
        for name, value in shape.items():
            getattr(one, name)[:] = value
        return paint_galaxies(model, one).sum(axis=0, dtype=float)

    plain = painted()
    assert (plain * (y - 36)).sum() / plain.sum() == pytest.approx(0, abs=0.01)
    north = painted(lopsided=0.5)
    assert (north * (y - 36)).sum() / north.sum() > 1
    assert painted(hole=1.0)[36, 36] < 0.6 * plain[36, 36]
    # A warp turns the faint outskirts and leaves the bright middle.
    turned = painted(warp_pa=40.0)
    assert (turned * (x - 36) * (y - 36)).sum() < -0.01 * (turned * (y - 36) ** 2).sum()
    assert turned[36, 36] == pytest.approx(plain[36, 36], rel=0.01)


def test_noise_has_the_beams_autocorrelation_and_falls_with_frequency():
    model = HiModel(shape=(64, 96, 96), noise_fall=0.3)
    noise = noise_cube(model, np.random.default_rng(1)) / model.channel_rms()[:, None, None]
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    for lag in (1, 2, 3):
        seen = (noise[:, :, lag:] * noise[:, :, :-lag]).mean()
        assert seen == pytest.approx(np.exp(-4 * np.log(2) * (lag / model.beam_px) ** 2), abs=0.02)
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01
    rms = model.channel_rms()
    assert rms[0] / rms[-1] == pytest.approx(1.15 / 0.85, rel=1e-3)


@pytest.mark.skipif(not TRUTH.is_file(), reason="the challenge's truth list is not here")
def test_the_population_is_that_of_the_challenge():
    truth = read_sdc2(TRUTH)
    model = HiModel(shape=(6668, 256, 256), first_frequency=0.95e9, density=30)
    ours = truth_table(model, draw_galaxies(model, np.random.default_rng(4)))
    assert len(ours) > 8000
    for name, limit in (("line_flux_integral", 0.04), ("hi_size", 0.15), ("w20", 0.2), ("pa", 0.03), ("i", 0.04)):
        distance = ks_2samp(np.asarray(ours[name]), np.asarray(truth[name])).statistic
        assert distance < limit, (name, distance)
    for name in ("hi_size", "w20"):
        ratio = np.median(ours[name]) / np.median(truth[name])
        assert ratio == pytest.approx(1.0, abs=0.2), name


def test_files_and_seeds(tmp_path):
    model = HiModel(shape=(40, 50, 60), density=60, interference=0.1, continuum=5)
    cube, galaxies = simulate_hi(model, seed=3)
    again, _ = simulate_hi(model, seed=3)
    assert np.array_equal(cube, again) and len(galaxies) > 2
    assert not np.array_equal(cube, simulate_hi(model, seed=4)[0])
    files = write_hi(model, cube, galaxies, tmp_path)
    opened, truth = open_cube(files["cube"]), read_sdc2(files["truth"])
    assert np.array_equal(opened.pixels.read(), cube)
    x, y = opened.plane.sky_to_pixel(truth["ra"], truth["dec"])
    assert x == pytest.approx(galaxies.x, abs=1e-3) and y == pytest.approx(galaxies.y, abs=1e-3)
    assert opened.spectral.channel(truth["central_freq"]) == pytest.approx(galaxies.z, abs=1e-3)


def test_contamination_is_seen():
    model = HiModel(shape=(100, 40, 40), continuum=30, interference=0.2)
    clean = noise_cube(model, np.random.default_rng(1))
    dirty = clean.copy()
    contaminate(model, dirty, np.random.default_rng(2))
    loud = dirty.std(axis=(1, 2)) > 2 * clean.std(axis=(1, 2))
    assert 8 < loud.sum() < 35
    assert np.abs((dirty - clean)[~loud].mean(axis=0)).max() > 1e-6
