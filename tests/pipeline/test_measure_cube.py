"""Measurement of lines: planted discs in noise come back with position, frequency, flux, width and angle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from models.detections import Detections
from pipeline.cube_catalogue import build_cube_catalogue
from pipeline.link import link_lines
from pipeline.measure_cube import measure_lines
from survey_io.columns import Flag
from survey_io.cube import open_cube
from survey_io.cube_noise import ArrayCube, estimate_cube_noise
from survey_io.simulate.hi import Galaxies, HiModel, noise_cube, paint_galaxies, truth_table, write_hi

MODEL = HiModel(shape=(150, 90, 76), rms=2e-6)
SIZES = {"size_z": 20.0, "size_y": 6.0, "size_x": 6.0}


def galaxies(pa=(30.0, 120.0, 210.0, 300.0)) -> Galaxies:
    n = len(pa)
    x, y = np.array([20.2, 55.4, 19.7, 56.1])[:n], np.array([22.3, 20.6, 66.2, 68.8])[:n]
    return Galaxies(
        x, y, np.array([50.4, 71.2, 90.8, 101.6])[:n], np.full(n, 60.0), np.full(n, 22.0), np.full(n, 250.0),
        np.array(pa), np.full(n, 60.0), np.zeros(n),
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    truth = galaxies()
    cube = paint_galaxies(MODEL, truth) + noise_cube(MODEL, np.random.default_rng(2))
    files = write_hi(MODEL, cube, truth, tmp_path_factory.mktemp("cube"))
    opened = open_cube(files["cube"])
    noise = estimate_cube_noise(opened.pixels)
    sources = {"x": truth.x.copy(), "y": truth.y.copy(), "z": truth.z + 2.0}
    sources |= {name: np.full(len(truth), value) for name, value in SIZES.items()}
    result = measure_lines(
        opened.pixels, noise, opened.spectral, beam=opened.plane.beam_pixels(), pixel_scale=opened.plane.pixel_scale,
        sources=sources,
    )  # fmt: skip
    return opened, truth, result


def test_positions_and_fluxes(measured):
    _, truth, m = measured
    for axis in "xyz":
        assert m[axis] == pytest.approx(getattr(truth, axis), abs=0.35 if axis == "z" else 0.3), axis
    assert m["flux"] == pytest.approx(truth.flux, rel=0.04)
    assert (np.abs(m["flux"] - truth.flux) < 5 * m["flux_err"] + 0.03 * truth.flux).all()
    assert (m["snr"] > 30).all()


def test_catalogue_on_the_sky(measured):
    cube, truth, m = measured
    n = len(truth)
    found = Detections(
        np.stack([m["z"], m["y"], m["x"]], -1), np.ones((n, 3), np.float32), np.zeros(n, np.float32),
        np.zeros((n, 3), np.int64), {},
    )  # fmt: skip
    table = build_cube_catalogue(cube, found, m, p_real=np.ones(n), cosmology=(67.0, 0.32))
    true = truth_table(MODEL, truth)
    assert np.asarray(table["ra"]) == pytest.approx(np.asarray(true["ra"]), abs=0.4 * 2.8 / 3600)
    assert np.asarray(table["frequency"]) == pytest.approx(np.asarray(true["central_freq"]), abs=1.2e4)
    turn = (np.asarray(table["kin_pa"]) - truth.pa + 180) % 360 - 180
    assert np.abs(turn).max() < 6
    assert np.asarray(table["w20"]) == pytest.approx(truth.w20, rel=0.12)
    assert (np.asarray(table["w50"]) < np.asarray(table["w20"])).all()
    assert np.asarray(table["inclination"]) == pytest.approx(truth.inclination, abs=15)
    assert (table["hi_mass"] > 1e9).all() and table["hi_mass"].unit == "solMass"
    per_hz = np.asarray(table["line_flux_kms"]) / np.asarray(table["line_flux"])
    assert per_hz == pytest.approx(299792.458 * 1420405751.768 / np.asarray(table["frequency"]) ** 2, rel=1e-6)
    again = build_cube_catalogue(cube, found, m, p_real=np.ones(n))
    assert np.isnan(again["hi_mass"]).all()
    assert (again["pb_gain"] == 1).all()


def test_fluxes_are_divided_by_the_primary_beam(measured, tmp_path):
    cube, truth, m = measured
    n = len(truth)
    found = Detections(
        np.stack([m["z"], m["y"], m["x"]], -1), np.ones((n, 3), np.float32), np.zeros(n, np.float32),
        np.zeros((n, 3), np.int64), {},
    )  # fmt: skip
    y, x = np.mgrid[: cube.shape[1], : cube.shape[2]]
    header = cube.plane.wcs.to_header()
    fits.PrimaryHDU((0.1 + 0.8 * x / x.max()).astype(np.float32), header).writeto(tmp_path / "pb.fits")
    plain = build_cube_catalogue(cube, found, m, p_real=np.ones(n))
    table = build_cube_catalogue(cube, found, m, p_real=np.ones(n), primary_beam=tmp_path / "pb.fits")
    gain = 0.1 + 0.8 * m["x"] / x.max()
    assert np.asarray(table["pb_gain"]) == pytest.approx(gain, rel=1e-3)
    for name in ("line_flux", "line_flux_err", "line_flux_kms", "peak_flux", "local_rms"):
        assert np.asarray(table[name]) == pytest.approx(np.asarray(plain[name]) / gain, rel=1e-3), name
    assert np.array_equal(table["snr"], plain["snr"])
    assert np.array_equal((table["flags"] & Flag.LOW_PRIMARY_BEAM) > 0, gain < 0.2)


def test_a_source_depends_on_nothing_but_itself_and_its_neighbours(measured):
    cube, truth, m = measured
    noise = estimate_cube_noise(cube.pixels)
    sources = {"x": truth.x.copy(), "y": truth.y.copy(), "z": truth.z + 2.0}
    sources |= {name: np.full(len(truth), value) for name, value in SIZES.items()}
    one = measure_lines(
        cube.pixels, noise, cube.spectral, beam=cube.plane.beam_pixels(), pixel_scale=cube.plane.pixel_scale,
        sources=sources, which=np.array([2]),
    )  # fmt: skip
    for name, values in one.items():
        assert np.array_equal(values, m[name][2:3], equal_nan=True), name


def test_edges_and_flagged_channels_are_said():
    one = galaxies((45.0,))
    one.z[:] = 1.0
    cube = paint_galaxies(MODEL, one) + noise_cube(MODEL, np.random.default_rng(2))
    cube[6] = np.nan
    pixels = ArrayCube(cube)
    from survey_io.spectral import HI_REST_FREQUENCY, SpectralAxis

    axis = SpectralAxis("FREQ", MODEL.first_frequency, MODEL.channel_width, 150, HI_REST_FREQUENCY)
    sources = {"x": one.x, "y": one.y, "z": one.z + 3} | {k: np.array([v]) for k, v in SIZES.items()}
    m = measure_lines(
        pixels, estimate_cube_noise(pixels), axis, beam=(2.5, 2.5, 0.0), pixel_scale=2.8, sources=sources
    )
    assert m["flags"][0] & Flag.SPECTRAL_EDGE and m["flags"][0] & Flag.FLAGGED_CHANNELS
    assert m["z_min"][0] == 0 and m["flux"][0] < 0.8 * one.flux[0]


def detections(centre, peak) -> Detections:
    centre = np.array(centre, float)
    size = np.tile(np.array([7.0, 3.5, 3.5], np.float32), (len(centre), 1))
    peak = np.array(peak, np.float32)
    return Detections(centre, size, peak, np.rint(centre).astype(np.int64), {"peak_snr": peak})


def test_horns_of_one_galaxy_are_joined_and_other_galaxies_are_not():
    truth = galaxies()
    cube = paint_galaxies(MODEL, truth) + noise_cube(MODEL, np.random.default_rng(3))
    pixels = ArrayCube(cube)
    places, peaks = [], []
    for row in range(len(truth)):
        for side in (-1, 1):
            step = side * 5.0
            angle = np.radians(truth.pa[row])
            # Receding gas: lower channel, towards the position angle.
            places.append((truth.z[row] - side * 8, truth.y[row] + 0.4 * step * np.cos(angle),
                           truth.x[row] - 0.4 * step * np.sin(angle)))  # fmt: skip
            peaks.append(30.0 + row + side)
    joined = link_lines(pixels, estimate_cube_noise(pixels), detections(places, peaks), MODEL.beam_px)
    assert len(joined) == len(truth) and (joined.params["n_linked"] == 2).all()


def test_touching_galaxies_keep_their_flux_apart():
    pair = galaxies((30.0, 120.0))
    pair.x[1], pair.y[1], pair.z[1] = pair.x[0] + 9.0, pair.y[0], pair.z[0] + 4
    model = replace(MODEL, rms=1e-6)
    cube = paint_galaxies(model, pair) + noise_cube(model, np.random.default_rng(3))
    pixels = ArrayCube(cube)
    from survey_io.spectral import HI_REST_FREQUENCY, SpectralAxis

    axis = SpectralAxis("FREQ", model.first_frequency, model.channel_width, 150, HI_REST_FREQUENCY)
    sources = {"x": pair.x, "y": pair.y, "z": pair.z} | {k: np.full(2, v) for k, v in SIZES.items()}
    m = measure_lines(
        pixels, estimate_cube_noise(pixels), axis, beam=(2.5, 2.5, 0.0), pixel_scale=2.8, sources=sources
    )
    assert m["flux"] == pytest.approx(pair.flux, rel=0.12)
    assert (m["flags"] & Flag.BLENDED).all()
