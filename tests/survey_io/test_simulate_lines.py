"""Simulated spectra: profiles, noise and signal-to-noise are what the truth says, and a file says where."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from survey_io.simulate.line_shapes import (
    SHAPES,
    draw_profile,
    gaussian_profile,
    horn_profile,
    top_hat_profile,
    voigt_profile,
)
from survey_io.simulate.lines import FWHM_RANGE, LineModel, simulate_lines, write_spectrum

QUIET = LineModel(channels=4000, spikes=0, gaps=0, noise_bend=0, absorbing=0.4)


@pytest.mark.parametrize(
    "profile",
    [gaussian_profile(), voigt_profile(0.4), voigt_profile(1.0), top_hat_profile(0.1), horn_profile(0.05),
     horn_profile(0.2, inner=0.5, lopsided=0.3)],
)  # fmt: skip
def test_a_profile_has_the_flux_centre_and_width_that_it_is_painted_with(profile):
    low, part = profile.paint(4000, 1500.3, 100.0)
    assert part.sum() == pytest.approx(1, abs=1e-6) and (part >= -1e-12).all()
    above = np.flatnonzero(part >= 0.5 * part.max()) + low
    assert above[-1] - above[0] + 1 == pytest.approx(100, abs=1.5)
    assert 0.5 * (above[0] + above[-1]) == pytest.approx(1500.3, abs=0.8)


def test_a_narrow_line_keeps_its_flux_and_centre_in_few_channels():
    for centre in (50.0, 50.25, 50.5):
        low, part = gaussian_profile().paint(100, centre, 2.0)
        assert part.sum() == pytest.approx(1, abs=1e-6)
        assert (part * (low + np.arange(len(part)))).sum() == pytest.approx(centre, abs=1e-3)


def test_a_line_at_the_edge_is_cut_there():
    low, part = gaussian_profile().paint(100, 0.0, 10.0)
    assert low == 0 and part.sum() == pytest.approx(0.5, abs=0.05)
    assert len(gaussian_profile().paint(100, 180.0, 10.0)[1]) == 0


def test_horns_stand_at_the_edges_and_lean_as_asked():
    _, part = horn_profile(0.04, inner=0.1, lopsided=0.1).paint(400, 200.0, 100.0)
    middle = part[len(part) // 2]
    left, right = part[: len(part) // 2].max(), part[len(part) // 2 :].max()
    assert left > 1.2 * middle and right > 1.3 * left


@pytest.mark.parametrize(("smoothing", "lag"), [("none", 0.0), ("hanning", 2 / 3), ("resampled", None)])
def test_noise_has_unit_rms_and_the_correlation_of_its_kind(smoothing, lag):
    model = LineModel(channels=60_000, density=0, spikes=0, gaps=0, noise_bend=0, smoothing=smoothing, resampling=1.93)
    flux = simulate_lines(model, 1).flux
    assert flux.std() == pytest.approx(1, abs=0.03)
    measured = np.mean(flux[1:] * flux[:-1])
    expected = lag if lag is not None else (2 / 3 - 1.93**-2 + 1.93**-3 / 2) / (2 / 3)
    assert measured == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("smoothing", ["none", "hanning", "resampled"])
def test_the_stated_snr_is_that_of_the_matched_filter(smoothing):
    model = LineModel(
        channels=20_000, density=2, width=12, width_scatter=0.3, shapes=("gaussian",), absorbing=0.5, blended=0.0,
        least_snr=8, most_snr=30, bright=0.2, spikes=0, gaps=0, noise_bend=0, smoothing=smoothing, resampling=1.93,
    )  # fmt: skip
    sky = simulate_lines(model, 3)
    noise = simulate_lines(LineModel(**{**model.__dict__, "density": 0}), 4).flux
    ratios = []
    for row in sky.lines:
        low, part = gaussian_profile().paint(20_000, row["z"], float(np.sqrt(row["width"] ** 2 - 0.68**2)))
        if low == 0 or low + len(part) == 20_000:
            continue
        scatter = np.convolve(noise, part, mode="valid").std()
        ratios.append(abs(row["flux"]) * (part @ part) / scatter / row["snr"])
    # In Hanning-smoothed spectra the line is smoothed too, which this filter is not.
    assert len(ratios) > 20 and np.median(ratios) == pytest.approx(1, abs=0.08)


def test_the_flux_in_the_channels_is_that_of_the_truth():
    model = LineModel(**{**QUIET.__dict__, "channels": 12_000, "density": 2, "blended": 0.0, "least_snr": 20})
    sky = simulate_lines(model, 8)
    apart = np.diff(sky.lines["z"])
    alone = np.r_[np.inf, apart] > 150
    alone &= np.r_[apart, np.inf] > 150
    alone &= (sky.lines["z"] > 100) & (sky.lines["z"] < 11_900) & (sky.lines["shape"] != "voigt")
    assert alone.sum() >= 3
    for row in sky.lines[alone]:
        span = slice(int(row["z"] - 6 * row["width"]), int(row["z"] + 6 * row["width"]) + 1)
        error = np.sqrt(span.stop - span.start)
        assert sky.flux[span].sum() == pytest.approx(row["flux"], abs=4 * error)


def test_one_seed_one_spectrum_and_all_kinds_of_lines():
    model = LineModel(channels=8000, density=20, width_scatter=1.5, absorbing=0.5, gaps=1.0, flagged=0.02, spikes=2)
    one, same, other = (simulate_lines(model, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.flux, same.flux)
    assert not np.array_equal(one.flux, other.flux)
    assert set(one.lines["shape"]) <= set(SHAPES) and len(set(one.lines["shape"])) >= 2
    assert (one.lines["flux"] > 0).any() and (one.lines["flux"] < 0).any()
    assert one.lines["width"].min() >= FWHM_RANGE[0] and one.lines["width"].max() < FWHM_RANGE[1] + 2
    np.testing.assert_array_equal(np.isnan(one.flux), one.blank)
    assert 0.02 < one.blank.mean() < 0.3


def test_what_a_gap_hides_does_not_count():
    model = LineModel(**{**QUIET.__dict__, "density": 30, "width": 6, "gaps": 6.0})
    sky = simulate_lines(model, 2)
    inside = np.array([
        sky.blank[max(int(z - 2 * width), 0) : int(z + 2 * width) + 1].all() for z, width in sky.lines["z", "width"]
    ])  # fmt: skip
    assert inside.any() and (sky.lines["snr"][inside] < 2).all() and (sky.lines["snr"][~inside] > 2).any()


def test_profiles_of_every_shape_are_drawn():
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        assert draw_profile(shape, rng).cumulative[-1] == pytest.approx(1)


def test_a_spectrum_is_written_with_its_axis(tmp_path):
    sky = simulate_lines(QUIET, 1)
    path = write_spectrum(sky, tmp_path / "s.fits", kind="VRAD", unit="m/s", first=2e5, step=-500.0,
                          rest_frequency=1.42e9)  # fmt: skip
    with fits.open(path) as hdus:
        header, data = hdus[0].header, hdus[0].data
    assert header["CTYPE1"] == "VRAD" and header["CDELT1"] == -500 and header["RESTFRQ"] == 1.42e9
    np.testing.assert_allclose(data, sky.flux.astype(np.float32))
