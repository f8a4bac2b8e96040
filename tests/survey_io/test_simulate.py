"""Simulated skies: noise, shapes, counts and truth against what is known without the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from survey_io import open_image
from survey_io.simulate import continuum as sim
from survey_io.simulate.continuum import SkyModel, Sources, simulate_continuum
from survey_io.simulate.render import (
    EXPONENTIAL_MIX,
    FWHM_TO_SIGMA,
    add_gaussians,
    add_sidelobes,
    correlated_noise,
    covariance,
    ellipse,
)
from survey_io.simulate.tables import SDC1_COLUMNS, image_header, truth_table, write_simulation

BEAM = (6.0, 4.0, 0.6)
QUIET = SkyModel(sidelobe_level=0.0, background=0.0)


def one_source(*, kind: int = sim.GAUSSIAN, x=70.3, y=55.8, flux=1e4, major=14.0, minor=5.0, theta=0.5) -> Sources:
    values = {"x": x, "y": y, "flux": flux, "major": major, "minor": minor, "theta": theta}
    columns = {name: np.array([value], float) for name, value in values.items()}
    return Sources(**columns, kind=np.array([kind]), core_fraction=np.zeros(1))


def moments(image: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Centroid (x, y) and second moments (xx, xy, yy) of an image."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum(dtype=float)
    cx, cy = (image * x).sum() / total, (image * y).sum() / total
    dx, dy = x - cx, y - cy
    return cx, cy, np.array([(image * a).sum() / total for a in (dx * dx, dx * dy, dy * dy)])


def apart(a: float, b: float, period: float) -> float:
    """Smallest distance of two angles."""
    return abs((a - b + period / 2) % period - period / 2)


# --- noise ----------------------------------------------------------------------------------------


def test_noise_has_unit_rms_and_the_beams_autocorrelation() -> None:
    fields = [sim.noise_map((500, 640), SkyModel(), BEAM, np.random.default_rng(seed)) for seed in range(4)]
    assert fields[0].shape == (500, 640) and fields[0].dtype == np.float32
    assert np.mean([f.std() for f in fields]) == pytest.approx(1.0, abs=0.015)
    xx, xy, yy = covariance(*(np.array(v) for v in BEAM))
    det = xx * yy - xy**2
    for dy, dx in ((0, 2), (2, 0), (2, 2), (2, -2), (3, 1), (4, 4), (0, 15)):
        if dx >= 0:
            products = [f[dy:, dx:] * f[: 500 - dy, : 640 - dx] for f in fields]
        else:
            products = [f[dy:, :dx] * f[: 500 - dy, -dx:] for f in fields]
        expected = np.exp(-0.5 * (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / det)
        assert np.mean(products) == pytest.approx(expected, abs=0.03), (dy, dx)


def test_opposite_borders_of_the_noise_are_not_correlated() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([sim.noise_map((64, 64), SkyModel(), (6.0, 6.0, 0.0), rng) for _ in range(200)])
    # Neighbouring rows would show 0.93.
    assert abs(np.mean(fields[:, 0] * fields[:, -1])) < 0.1
    assert abs(np.mean(fields[:, :, 0] * fields[:, :, -1])) < 0.1


def test_a_narrow_kernel_gives_whiter_noise_that_filtering_beats() -> None:
    white = correlated_noise((200, 300), None, np.random.default_rng(0))
    assert abs(np.mean(white[1:] * white[:-1])) < 0.02 and white.std() == pytest.approx(1, abs=0.02)
    assert sim.detectability(SkyModel()) == pytest.approx(1.0)
    assert sim.detectability(SkyModel(kernel=0.3)) > 1.5


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "count"), [((60, 80), 40), ((700, 900), 12)])
def test_gaussians_are_drawn_as_their_formula_says(shape: tuple[int, int], count: int) -> None:
    # The two sizes take the two ways of adding stamps.
    rng = np.random.default_rng(count)
    x, y = rng.uniform(-5, shape[1] + 5, count), rng.uniform(-5, shape[0] + 5, count)
    peak = rng.uniform(0.5, 300, count) * rng.choice([-1, 1], count)
    cov = covariance(rng.uniform(4, 9, count), rng.uniform(2, 4, count), rng.uniform(0, np.pi, count))
    image = np.zeros(shape, np.float32)
    add_gaussians(image, x, y, peak, cov, floor=1e-4)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    direct = np.zeros(shape)
    for i in range(count):
        inverse = np.linalg.inv([[cov[0, i], cov[1, i]], [cov[1, i], cov[2, i]]])
        d = np.stack([columns - x[i], rows - y[i]], -1)
        direct += peak[i] * np.exp(-0.5 * np.einsum("...i,ij,...j", d, inverse, d))
    np.testing.assert_allclose(image, direct, atol=2e-3)


def test_ellipse_undoes_covariance() -> None:
    rng = np.random.default_rng(2)
    minor = rng.uniform(1, 5, 50)
    major, theta = minor * rng.uniform(1.05, 4, 50), rng.uniform(0, np.pi, 50)
    got = ellipse(covariance(major, minor, theta))
    np.testing.assert_allclose(got[0], major)
    np.testing.assert_allclose(got[1], minor)
    np.testing.assert_allclose(got[2], theta, atol=1e-9)


def test_the_exponential_mix_follows_the_exponential() -> None:
    share, sigma = np.array(EXPONENTIAL_MIX).T
    assert (share > 0).all() and share.sum() == pytest.approx(1.0, abs=1e-3)
    r = np.linspace(0.1, 8, 200)[:, None]
    enclosed = 1 - (share * np.exp(-(r**2) / (2 * sigma**2))).sum(axis=1)
    np.testing.assert_allclose(enclosed, 1 - (1 + r[:, 0]) * np.exp(-r[:, 0]), atol=0.01)
    middle = (r[:, 0] > 0.3) & (r[:, 0] < 5)
    profile = (share / (2 * np.pi * sigma**2) * np.exp(-(r**2) / (2 * sigma**2))).sum(axis=1)
    np.testing.assert_allclose(profile[middle], np.exp(-r[middle, 0]) / (2 * np.pi), rtol=0.12)


@pytest.mark.parametrize("kind", [sim.POINT, sim.GAUSSIAN, sim.DISC])
def test_a_source_has_its_flux_position_and_shape_on_the_image(kind: int) -> None:
    beam = (5.0, 4.0, 1.2)
    source = one_source(kind=kind, major=10.0, minor=6.0, theta=2.3)
    sky = sim.paint((180, 200), source, QUIET, beam, np.random.default_rng(0)).astype(float)
    assert sky.sum() / (np.pi * 5 * 4 / (4 * np.log(2))) == pytest.approx(1e4, rel=0.01)
    x, y, cov = moments(sky)
    assert (x, y) == (pytest.approx(70.3, abs=0.02), pytest.approx(55.8, abs=0.02))
    assert source.peak[0] == pytest.approx(sky.max(), rel=0.05)
    own = cov - covariance(*(np.array(v) for v in beam))
    major, minor, theta = ellipse(own)
    # An exponential disc's variance per axis is 3 squared scale lengths; its FWHM counts as sqrt 2 of them.
    factor = np.sqrt(1.5) / FWHM_TO_SIGMA if kind == sim.DISC else 1.0
    assert major == pytest.approx(10.0 * factor, rel=0.03)
    assert minor == pytest.approx(6.0 * factor, rel=0.03)
    assert apart(theta, 2.3, np.pi) < 0.03


def test_a_double_has_the_moments_that_its_truth_states() -> None:
    rng = np.random.default_rng(8)
    source = one_source(kind=sim.DOUBLE, x=100.0, y=90.0, major=40.0, minor=9.0, theta=2.0)
    source.core_fraction[:] = 0.1
    sky = sim.paint((180, 200), source, QUIET, (4.0, 4.0, 0.0), rng).astype(float)
    x, y, cov = moments(sky)
    assert (x, y) == (pytest.approx(source.x[0], abs=0.05), pytest.approx(source.y[0], abs=0.05))
    beam = covariance(*(np.array(v) for v in (4.0, 4.0, 0.0)))
    major, minor, theta = ellipse(cov - beam)
    assert major == pytest.approx(source.major[0], rel=0.02)
    assert minor == pytest.approx(source.minor[0], rel=0.05)
    assert apart(theta, source.theta[0], np.pi) < 0.02
    # Two lobes: the middle is fainter than the brightest part.
    assert sky[round(float(y)), round(float(x))] < 0.8 * sky.max()
    assert source.peak[0] == pytest.approx(sky.max(), rel=0.1)


# --- population -----------------------------------------------------------------------------------


def counts_above(flux: np.ndarray, model: SkyModel) -> np.ndarray:
    """N(> S) up to a constant: the integral of d ln N / d ln S = -(slope + curve log10 S) by hand."""
    x, low = np.log10(flux), np.log10(sim.FAINTEST)
    # Below half a sigma the slope no longer flattens.
    bend = -0.3 * (np.minimum(x, -0.3) - low) + np.where(x > -0.3, (x**2 - 0.09) / 2, 0.0)
    return np.exp(-np.log(10) * (model.slope * (x - low) + model.curve * bend))


@pytest.mark.parametrize("model", [SkyModel(), SkyModel(slope=0.7, curve=0.15)])
def test_fluxes_follow_the_models_counts(model: SkyModel) -> None:
    flux = sim.draw_fluxes(200_000, model, np.random.default_rng(1))
    assert flux.min() >= sim.FAINTEST and flux.max() <= sim.BRIGHTEST
    end = counts_above(np.array(sim.BRIGHTEST), model)
    for level in (0.5, 1.0, 5.0, 30.0, 200.0):
        expected = (counts_above(np.array(level), model) - end) / (1 - end)
        error = np.sqrt(expected * (1 - expected) / len(flux))
        assert np.mean(flux > level) == pytest.approx(expected, abs=4 * error + 0.003 * expected)
    assert sim.counts_ratio(model) == pytest.approx(1 / counts_above(np.array(5.0), model), rel=0.01)


@pytest.fixture(scope="module")
def population() -> Sources:
    model = SkyModel(density=0.02)
    return sim.draw_sources((1500, 2000), model, (5.0, 3.2, 0.3), np.random.default_rng(2))


def test_density_counts_sources_above_five_sigma_per_beam(population: Sources) -> None:
    beams = (1500 + 24) * (2000 + 24) / (np.pi * 16 / (4 * np.log(2)))
    expected = 0.02 * beams
    assert (population.flux > 5).sum() == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.01 * expected)


def test_sizes_follow_those_of_the_data_challenge(population: Sources) -> None:
    # SDC1 truth at 560 MHz: median major axis 0.28 beams at 10 sigma, growing as the root of the flux;
    # median axis ratio 0.42 there and falling with flux.
    resolved = (population.kind == sim.GAUSSIAN) | (population.kind == sim.DISC)
    size, ratio = population.major / 4.0, population.minor / population.major

    def near(flux: float) -> np.ndarray:
        return resolved & (abs(np.log(population.flux / flux)) < 0.25)

    assert np.median(size[near(10)]) == pytest.approx(0.28, rel=0.06)
    assert np.median(size[near(40)]) / np.median(size[near(10)]) == pytest.approx(2.0, rel=0.12)
    assert np.std(np.log(size[near(5)])) == pytest.approx(0.47, rel=0.12)
    assert np.median(ratio[near(10)]) == pytest.approx(0.42, rel=0.06)
    assert np.median(ratio[near(100)]) < 0.33
    assert (population.minor <= population.major).all() and (population.minor > 0).all()


def test_kinds_come_in_the_shares_of_the_model() -> None:
    model = SkyModel(density=0.02, point_fraction=0.2, disc_fraction=0.3, double_fraction=0.1)
    drawn = sim.draw_sources((900, 900), model, (4.0, 4.0, 0.0), np.random.default_rng(4))
    bright = drawn.kind[drawn.flux >= 10]
    for kind, share in ((sim.POINT, 0.2), (sim.GAUSSIAN, 0.4), (sim.DISC, 0.3), (sim.DOUBLE, 0.1)):
        assert np.mean(bright == kind) == pytest.approx(share, abs=0.05)
    assert not (drawn.kind[drawn.flux < 10] == sim.DOUBLE).any()
    assert np.histogram(drawn.theta, 4, (0, np.pi))[0].min() > 0.2 * len(drawn)


def test_random_models_stay_in_their_range() -> None:
    rng = np.random.default_rng(5)
    models = [SkyModel.random(rng) for _ in range(200)]
    assert all(0.0015 <= m.density <= 0.05 and 0.2 <= m.kernel <= 1.0 for m in models)
    assert all(m.point_fraction + m.disc_fraction + m.double_fraction < 1 for m in models)
    assert {m.sidelobe_level > 0 for m in models} == {True, False} == {m.background > 0 for m in models}


# --- truth ----------------------------------------------------------------------------------------


def table_of(source: Sources, shape: tuple[int, int] = (140, 160)) -> tuple[Table, fits.Header]:
    header = image_header(shape, BEAM, pixel_scale=0.6, frequency=1.4e9, centre=(30.0, -35.0))
    return truth_table(source, header, shape, rms=2e-6, pixel_scale=0.6), header


@pytest.mark.parametrize("theta", [0.0, 0.4, 1.3, 2.2, 3.0])
def test_the_angle_of_the_truth_is_that_of_the_image_on_the_sky(theta: float) -> None:
    source = one_source(major=20.0, minor=4.0, theta=theta)
    sky = sim.paint((140, 160), source, QUIET, (3.0, 3.0, 0.0), np.random.default_rng(0))
    truth, header = table_of(source)
    x, y, cov = moments(sky.astype(float))
    along = ellipse(cov)[2]
    wcs = WCS(header)
    centre, end = (
        SkyCoord(*wcs.pixel_to_world_values(x + t * np.cos(along), y + t * np.sin(along)), unit="deg")
        for t in (0.0, 5.0)
    )
    pa = centre.position_angle(end).to_value(u.deg) % 180
    assert apart(truth["pa_sky"][0], pa, 180) < 0.5
    # The challenge's angle is 90 degrees less the position angle, for galaxies within -90..90.
    assert apart(truth["pa"][0], 90 - pa, 180) < 0.5
    assert -90 <= truth["pa"][0] <= 90 and 0 <= truth["pa_sky"][0] < 180
    assert truth["x"][0] == pytest.approx(x, abs=0.02) and truth["y"][0] == pytest.approx(y, abs=0.02)
    expected = wcs.pixel_to_world(70.3, 55.8)
    assert expected.separation(SkyCoord(truth["ra_core"][0], truth["dec_core"][0], unit="deg")).arcsec < 1e-6


@pytest.mark.parametrize(
    ("kind", "size", "factor", "source_class"),
    [
        (sim.POINT, 2, 1.0, 2),
        (sim.GAUSSIAN, 2, 1.0, 3),
        (sim.DISC, 3, 1 / np.sqrt(2), 3),
        (sim.DOUBLE, 1, 5 / 2.355, 1),
    ],
)
def test_sizes_of_the_truth_are_of_the_type_it_states(kind: int, size: int, factor: float, source_class: int) -> None:
    source = one_source(kind=kind, flux=50.0)
    source.peak = np.array([20.0])
    row = table_of(source)[0][0]
    assert (row["size"], row["class"]) == (size, source_class)
    assert row["b_maj"] == pytest.approx(14 * 0.6 * factor) and row["b_min"] == pytest.approx(5 * 0.6 * factor)
    assert row["maj"] == pytest.approx(14 * 0.6) and row["min"] == pytest.approx(5 * 0.6)
    assert apart(row["pa"], 90 - row["pa_sky"], 180) < 1e-9
    assert (-90 if source_class == 3 else 0) <= row["pa"] <= (90 if source_class == 3 else 360)
    assert row["flux"] == pytest.approx(50 * 2e-6) and row["snr"] == 50 and row["peak_snr"] == 20


def test_sources_outside_are_in_the_image_but_not_in_the_truth() -> None:
    source = one_source(x=-4.0)
    assert sim.paint((140, 160), source, QUIET, BEAM, np.random.default_rng(0)).max() > 100
    assert len(table_of(source)[0]) == 0
    for x, inside in ((-0.49, 1), (-0.51, 0), (159.49, 1), (159.51, 0)):
        one = one_source(x=x)
        one.peak = np.ones(1)
        assert len(table_of(one)[0]) == inside


# --- whole skies ----------------------------------------------------------------------------------


def test_the_seed_decides_the_sky() -> None:
    first, again, other = (simulate_continuum((70, 90), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image, again.image)
    assert list(first.truth["flux"]) == list(again.truth["flux"])
    assert not np.array_equal(first.image, other.image)


def test_an_image_is_its_sky_plus_noise_of_the_stated_rms() -> None:
    got = simulate_continuum((300, 260), seed=1, rms=3e-5)
    assert got.image.shape == (300, 260) and got.image.dtype == np.float32
    assert (got.image - got.noise_free).std() == pytest.approx(3e-5, rel=0.03)
    assert got.primary_beam is None


def test_an_empty_sky_is_noise_and_an_empty_table() -> None:
    got = simulate_continuum((64, 64), model=SkyModel(density=0.0))
    assert len(got.truth) == 0 and set(SDC1_COLUMNS) <= set(got.truth.colnames)
    assert not got.noise_free.any()


def test_sidelobes_ring_bright_sources_only_when_asked() -> None:
    def draw(flux: float, level: float) -> np.ndarray:
        source = one_source(kind=sim.POINT, flux=flux, x=100.0, y=100.0)
        model = replace(QUIET, sidelobe_level=level)
        return sim.paint((200, 200), source, model, BEAM, np.random.default_rng(0))

    rings = draw(1e4, 0.005) - draw(1e4, 0.0)
    assert 0.2 * 50 < abs(rings).max() <= 2 * 50
    assert rings.min() < 0 < rings.max()
    assert abs(rings[98:103, 98:103]).max() == 0
    # Rings below half a sigma are left out.
    np.testing.assert_array_equal(draw(90, 0.005), draw(90, 0.0))


def test_sidelobes_of_sources_beyond_the_border_are_cut_there() -> None:
    image = np.zeros((50, 60), np.float32)
    peak = np.array([1e3, 1e3])
    add_sidelobes(
        image, np.array([-10.0, 500.0]), np.array([20.0, 20.0]), peak, beam_fwhm=4.0, level=0.01,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert abs(image[:, :20]).max() > 1 and np.isfinite(image).all()


def test_background_is_a_smooth_wave_of_its_amplitude() -> None:
    model = SkyModel(density=0.0, background=2.0)
    sky = simulate_continuum((400, 400), model=model, rms=1.0, beam_pixels=2.5, seed=2).noise_free
    assert 1.0 < abs(sky).max() <= 2.0001
    assert abs(np.diff(sky, axis=0)).max() < 0.2


def test_doubles_appear_when_asked() -> None:
    some = simulate_continuum((200, 200), model=SkyModel(density=0.03, double_fraction=0.5), seed=1).truth
    none = simulate_continuum((200, 200), model=SkyModel(density=0.03, double_fraction=0.0), seed=1).truth
    assert (some["kind"] == sim.DOUBLE).sum() > 10 and not (none["kind"] == sim.DOUBLE).any()
    assert (some["size"][some["kind"] == sim.DOUBLE] == 1).all()


def test_a_primary_beam_dims_the_sky_but_not_the_true_fluxes() -> None:
    options = {"seed": 6, "model": replace(QUIET, density=0.01, double_fraction=0.0), "rms": 1.0}
    full = simulate_continuum((150, 210), **options)
    dimmed = simulate_continuum((150, 210), **options, primary_beam_fwhm=0.6)
    response = dimmed.primary_beam
    assert response.shape == (150, 210) and response.max() == pytest.approx(1.0, abs=1e-3)
    # The FWHM is 0.6 of the longer side: half response at 63 px from the centre.
    assert response[75, 104 + 63] == pytest.approx(0.5, abs=0.01)
    distance = np.hypot(full.truth["x"] - 104.5, full.truth["y"] - 74.5)
    gain = 2.0 ** -((distance / 63) ** 2)
    np.testing.assert_allclose(dimmed.truth["peak_snr"], np.asarray(full.truth["peak_snr"]) * gain, rtol=0.01)
    np.testing.assert_array_equal(dimmed.truth["flux"], full.truth["flux"])
    assert dimmed.noise_free[:, :20].sum() < 0.3 * full.noise_free[:, :20].sum()
    noise = dimmed.image - dimmed.noise_free
    assert noise[:, :30].std() == pytest.approx(1.0, abs=0.15)


def test_written_skies_read_back(tmp_path: Path) -> None:
    made = simulate_continuum((90, 120), beam_pixels=BEAM, seed=2, centre=(80.0, 10.0), primary_beam_fwhm=0.8)
    paths = write_simulation(made, tmp_path / "new", stem="deep")
    assert {p.name for p in paths.values()} == {path.name for path in (tmp_path / "new").iterdir()}
    seen = open_image(paths["image"])
    np.testing.assert_array_equal(seen.pixels.read((slice(0, 90), slice(0, 120))), made.image)
    assert seen.jansky_per_beam() == 1.0 and seen.frequency == 1.4e9
    assert seen.pixel_scale == pytest.approx(0.6, rel=1e-3)
    np.testing.assert_allclose(seen.beam_pixels(), BEAM, rtol=1e-3)
    np.testing.assert_allclose(
        seen.sky_to_pixel(made.truth["ra_core"], made.truth["dec_core"]),
        [made.truth["x"], made.truth["y"]],
        atol=1e-5,
    )
    np.testing.assert_array_equal(fits.getdata(paths["primary_beam"]), made.primary_beam)
    text = Table.read(paths["truth_sdc1"], format="ascii.basic")
    assert tuple(text.colnames) == SDC1_COLUMNS and len(text) == len(made.truth)
    np.testing.assert_allclose(text["flux"], made.truth["flux"], rtol=1e-6)
    assert len(Table.read(paths["truth"])) == len(made.truth)


def test_a_single_number_is_a_round_beam() -> None:
    header = simulate_continuum((40, 40), beam_pixels=4.0, pixel_scale=2.0).header
    assert header["BMAJ"] == header["BMIN"] == pytest.approx(8 / 3600)
