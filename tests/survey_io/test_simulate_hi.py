"""Simulated HI cubes: what is painted is what the truth says, and the population is that of the challenge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from survey_io.cube import open_cube
from survey_io.errors import OptionError
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


@pytest.mark.parametrize(("beam", "minor", "pa"), [(7.0, None, 0.0), (12.0, None, 0.0), (14.0, 7.0, 30.0)])
def test_power_spectrum_of_the_noise_is_that_of_the_beam(beam, minor, pa):
    model = HiModel(shape=(80, 90, 108), beam=beam, beam_minor=minor, beam_pa=pa, noise_fall=0.0)
    noise = noise_cube(model, np.random.default_rng(2)) / model.rms
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0) / noise[0].size
    major, minor, _ = model.beam_shape
    # North is up and east is left: along the major axis lies (-sin pa, cos pa) in (x, y).
    fy, fx = np.fft.fftfreq(90)[:, None], np.fft.fftfreq(108)[None]
    along = fy * np.cos(np.radians(pa)) - fx * np.sin(np.radians(pa))
    across = fy * np.sin(np.radians(pa)) + fx * np.cos(np.radians(pa))
    expected = np.exp(-(np.pi**2) / (4 * np.log(2)) * ((major * along) ** 2 + (minor * across) ** 2))
    expected *= power.sum() / expected.sum()
    ratio = power / expected
    strong = expected > 0.03 * expected.max()
    assert strong.sum() > 300
    assert np.abs(ratio[strong] - 1).max() < 0.6 and ratio[strong].mean() == pytest.approx(1.0, abs=0.03)
    # Rings of equal power, from the largest scales down: none departs from the beam's by a tenth.
    for low, high in ((0.5, 1), (0.25, 0.5), (0.1, 0.25), (0.03, 0.1)):
        ring = (expected > low * expected.max()) & (expected <= high * expected.max())
        assert ratio[ring].mean() == pytest.approx(1.0, abs=0.08), (low, high)


def test_a_long_beam_lies_as_its_header_says(tmp_path):
    model = HiModel(shape=(120, 81, 81), beam=16.0, beam_minor=8.0, beam_pa=40.0)
    point = galaxy(0.0, size=0.5)
    point.x[:], point.y[:] = 40, 40
    image = paint_galaxies(model, point).sum(axis=0, dtype=float)
    assert image.sum() / model.beam_area * model.channel_width == pytest.approx(50.0, rel=1e-3)
    y, x = np.indices(image.shape) - 40.0
    xx, yy, xy = ((image * axis).sum() / image.sum() for axis in (x * x, y * y, x * y))
    assert np.degrees(0.5 * np.arctan2(-2 * xy, yy - xx)) == pytest.approx(40.0, abs=0.5)
    spread = np.sqrt(np.linalg.eigvalsh([[xx, xy], [xy, yy]])) * np.sqrt(8 * np.log(2)) * model.pixel_scale
    assert spread == pytest.approx([8.0, 16.0], rel=0.02)
    files = write_hi(model, paint_galaxies(model, point), point, tmp_path)
    beam = open_cube(files["cube"]).plane.beam
    assert (beam.major, beam.minor, beam.pa) == pytest.approx((16.0, 8.0, 40.0))
    with pytest.raises(OptionError, match="minor axis of at least"):
        HiModel(beam=7.0, beam_minor=9.0)
    with pytest.raises(OptionError, match="minor axis of at least"):
        HiModel(beam=3.0)


@pytest.mark.parametrize("width", [15e3, 120e3])
def test_other_channels_hold_the_same_galaxy(width):
    model, one = HiModel(shape=(240, 60, 48), channel_width=width), galaxy(25.0)
    one.z[:] = 120.0
    cube = paint_galaxies(model, one)
    flux, w20, pa = moments(model, cube)
    per_channel = LIGHT * width * HI_REST_FREQUENCY / model.frequency(120) ** 2
    assert flux == pytest.approx(50.0, rel=1e-3) and pa == pytest.approx(25.0, abs=3)
    assert w20 == pytest.approx(250.0, abs=0.5 * per_channel)


@pytest.mark.skipif(not TRUTH.is_file(), reason="the challenge's truth list is not here")
@pytest.mark.parametrize("atlas", [False, True], ids=["discs", "templates"])
def test_the_population_is_that_of_the_challenge(atlas):
    """Over the challenge's band (redshift 0.235 to 0.495) the quantiles agree as measured and stated here.

    Line flux within 3% from the 10th to the 98th percentile (the faintest 2% of ours are 11% fainter); HI size within
    10% and 15% at the 98th; w20 within 8%, the challenge's own list being uneven since it repeats few templates.
    Inclinations of templates are those of 36 galaxies and agree within 15% only.
    """
    truth = read_sdc2(TRUTH)
    model = HiModel(
        shape=(6668, 256, 256), first_frequency=0.95e9, density=30, templates=TRUTH.parent if atlas else None
    )
    ours = truth_table(model, draw_galaxies(model, np.random.default_rng(4)))
    assert len(ours) > 8000
    limits = {"line_flux_integral": 0.03, "hi_size": 0.1, "w20": 0.08, "i": 0.15 if atlas else 0.03}
    levels = np.array([10, 25, 50, 75, 90])
    for name, limit in limits.items():
        seen, true = (np.percentile(np.asarray(table[name], float), levels) for table in (ours, truth))
        assert seen == pytest.approx(true, rel=limit), name
    ends = (("line_flux_integral", 0.05), ("hi_size", 0.16), ("w20", 0.1))
    for name, limit in ends:
        seen, true = (np.percentile(np.asarray(table[name], float), 98) for table in (ours, truth))
        assert seen == pytest.approx(true, rel=limit), name
    distances = {"line_flux_integral": 0.03, "hi_size": 0.05, "w20": 0.07, "pa": 0.03, "central_freq": 0.05}
    for name, limit in distances.items():
        distance = ks_2samp(np.asarray(ours[name], float), np.asarray(truth[name], float)).statistic
        assert distance < limit, (name, distance)
    # Size and width go with flux as in the challenge: medians in four ranges of flux.
    for low, high in ((1, 3), (3, 10), (10, 30), (30, 600)):
        for name, limit in (("hi_size", 0.1), ("w20", 0.12)):
            seen, true = (
                np.median(table[name][(table["line_flux_integral"] > low) & (table["line_flux_integral"] < high)])
                for table in (ours, truth)
            )
            assert float(seen) == pytest.approx(float(true), rel=limit), (name, low)


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


def test_interference_is_loud_and_leaves_the_galaxies_alone():
    model = HiModel(shape=(400, 40, 40), interference=0.2)
    clean = noise_cube(model, np.random.default_rng(1))
    dirty = clean.copy()
    contaminate(model, dirty, np.random.default_rng(2))
    loud = dirty.std(axis=(1, 2)) > 2 * clean.std(axis=(1, 2))
    assert 40 < loud.sum() < 130
    assert np.array_equal(dirty[~loud], clean[~loud])
    # It comes in runs of channels, and its noise has the beam's correlation.
    assert np.diff(loud.astype(int)).clip(0).sum() < 0.4 * loud.sum()
    rough = dirty[loud] / dirty[loud].std(axis=(1, 2))[:, None, None]
    beam = np.exp(-4 * np.log(2) / model.beam_px**2)
    assert (rough[:, :, 1:] * rough[:, :, :-1]).mean() == pytest.approx(beam, abs=0.03)
    signal = np.full(model.shape, 1e-3, np.float32)
    contaminate(model, signal, np.random.default_rng(2))
    assert signal[loud].mean() == pytest.approx(1e-3, rel=0.05)


def test_flagged_channels_are_blank_and_their_galaxies_listed():
    model = HiModel(shape=(300, 64, 64), flagged=0.15, density=20)
    cube, galaxies = simulate_hi(model, seed=6)
    blank = np.isnan(cube).all(axis=(1, 2))
    assert np.array_equal(blank, np.isnan(cube).any(axis=(1, 2)))
    assert 0.05 < blank.mean() < 0.3
    whole, same = simulate_hi(replace(model, flagged=0.0), seed=6)
    assert np.array_equal(cube[~blank], whole[~blank]) and np.array_equal(galaxies.flux, same.flux)


def test_residual_continuum_ripples_over_10_mhz_and_is_no_galaxy():
    # Channels of 0.5 MHz over 300 MHz, and far more sources than the sky has.
    model = HiModel(shape=(600, 96, 96), channel_width=0.5e6, first_frequency=0.9e9, continuum=30)
    lags, seen, alike = np.array([1, 10, 20, 40]), [], []
    for seed in range(30):
        left = np.zeros(model.shape, np.float32)
        contaminate(model, left, np.random.default_rng(seed))
        assert 1e-5 < left.std(axis=0).max() < 2e-3
        y, x = (left.std(axis=0) > 1e-5).nonzero()
        spectra = left[:, y, x].astype(float)
        power = (spectra**2).mean(axis=0)
        seen.append([(spectra[lag:] * spectra[:-lag] / power).mean() for lag in lags])
        alike.append(np.corrcoef(spectra.T).mean())
    assert np.mean(seen, axis=0) == pytest.approx(np.exp(-0.5 * (0.5 * lags / 10) ** 2), abs=0.08)
    # 96 px are 269 arcsec: gain errors, alike over 512, are nearly the same all over.
    assert np.mean(alike) > 0.75
    # None of it is in the truth, which is that of the clean cube.
    wide = replace(model, shape=(512, 96, 96), channel_width=30e3, density=5)
    assert np.array_equal(simulate_hi(wide, seed=2)[1].x, simulate_hi(replace(wide, continuum=0.0), seed=2)[1].x)


def test_a_long_beam_takes_the_whole_way():
    model = HiModel(shape=(60, 48, 56), beam=12.0, beam_minor=7.0, beam_pa=70.0, density=60, continuum=2, flagged=0.1)
    cube, galaxies = simulate_hi(model, seed=1)
    assert cube.dtype == np.float32 and len(galaxies) > 3 and np.isfinite(cube).any()
