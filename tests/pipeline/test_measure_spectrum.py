"""Measured lines: planted centres, widths, fluxes and equivalent widths come back within their stated errors."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.measure_spectrum import measure_spectrum_lines, noise_correlation
from survey_io.columns import Flag
from survey_io.simulate.line_shapes import gaussian_profile, horn_profile, top_hat_profile, voigt_profile

COUNT = 1200


def spectrum(seed: int = 0, level: float = 50.0):
    rng = np.random.default_rng(seed)
    return level + rng.normal(size=COUNT), np.full(COUNT, level), np.ones(COUNT)


def paint(flux, z, width, amount, profile=None):
    low, part = (profile or gaussian_profile()).paint(COUNT, z, width)
    flux[low : low + len(part)] += amount * part


def rows(*lines):
    z, width, sign = (np.array(column, float) for column in zip(*sorted(lines), strict=True))
    return {"z": z, "width": width, "sign": sign}


@pytest.mark.parametrize("width", [2.5, 8.0, 40.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_errors_are_what_they_say(width, sign):
    pulls = {"z": [], "width": [], "flux": []}
    amount = sign * 14 * np.sqrt(1.5 * width)
    for seed in range(60):
        flux, level, rms = spectrum(seed)
        centre = 600 + 0.37 * (seed % 7)
        paint(flux, centre, width, amount)
        # The detector is off by a tenth of the width.
        m = measure_spectrum_lines(flux, level, rms, rows((centre + 0.1 * width, 1.2 * width, sign)))
        true = {"z": centre, "width": np.hypot(width, 0.68), "flux": amount}
        for name, values in pulls.items():
            values.append((m[name][0] - true[name]) / m[f"{name}_err"][0])
        assert m["flags"][0] & Flag.FIT_FAILED == 0 and np.sign(m["peak"][0]) == sign
    for name, values in pulls.items():
        assert abs(np.median(values)) < 0.6, name
        assert 0.5 < 1.4826 * np.median(np.abs(values - np.median(values))) < 1.6, name


@pytest.mark.parametrize(
    "profile", [voigt_profile(0.5), top_hat_profile(0.1), horn_profile(0.08), horn_profile(0.05, lopsided=0.1)]
)
def test_bright_lines_of_other_shapes(profile):
    flux, level, rms = spectrum(3)
    paint(flux, 500.4, 30.0, 9000.0, profile)
    m = measure_spectrum_lines(flux, level, rms, rows((503.0, 25.0, 1)))
    assert m["z"][0] == pytest.approx(500.4, abs=2.5)
    assert m["width"][0] == pytest.approx(30, rel=0.08)
    assert m["flux"][0] == pytest.approx(9000, rel=0.07)


def test_equivalent_width_is_the_lost_flux_over_the_continuum():
    flux, level, rms = spectrum(1, level=200.0)
    paint(flux, 400.0, 10.0, -3000.0)
    m = measure_spectrum_lines(flux, level, rms, rows((400.0, 10.0, -1)))
    assert m["lost"][0] == pytest.approx(15, rel=0.03) and 0 < m["lost_err"][0] < 0.5
    # In emission it is negative, and without a continuum there is none.
    flux, level, rms = spectrum(1, level=0.0)
    paint(flux, 400.0, 10.0, 3000.0)
    assert np.isnan(measure_spectrum_lines(flux, level, rms, rows((400.0, 10.0, 1)))["lost"][0])


def test_neighbours_share_the_channels_between_them():
    flux, level, rms = spectrum(2)
    paint(flux, 500.0, 10.0, 1000.0)
    paint(flux, 516.0, 10.0, 1000.0)
    m = measure_spectrum_lines(flux, level, rms, rows((500.0, 10.0, 1), (516.0, 10.0, 1)))
    assert m["z"] == pytest.approx([500, 516], abs=0.3)
    assert m["flux"] == pytest.approx([1000, 1000], rel=0.1)
    assert (m["flags"] & Flag.BLENDED != 0).all() and m["last"][0] < m["first"][1]


def test_edges_gaps_and_hopeless_lines_are_flagged():
    flux, level, rms = spectrum(4)
    paint(flux, 2.0, 12.0, 900.0)
    paint(flux, 600.0, 12.0, 900.0)
    flux[603] = np.nan
    m = measure_spectrum_lines(flux, level, rms, rows((2.0, 12.0, 1), (600.0, 12.0, 1), (900.0, 12.0, 1)))
    assert m["flags"][0] & Flag.SPECTRAL_EDGE and not m["flags"][1] & Flag.SPECTRAL_EDGE
    assert m["flags"][1] & Flag.FLAGGED_CHANNELS and m["z"][1] == pytest.approx(600, abs=1)
    assert m["snr"][2] < 3 and np.isfinite(m["flux"][2])
    narrow, level, rms = spectrum(5)
    narrow[300] += 60
    assert measure_spectrum_lines(narrow, level, rms, rows((300.0, 2.0, 1)))["flags"][0] & Flag.UNRESOLVED


def test_the_scale_of_the_flux_does_not_matter():
    flux, level, rms = spectrum(6)
    paint(flux, 700.2, 9.0, 300.0)
    one = measure_spectrum_lines(flux, level, rms, rows((700.0, 9.0, 1)))
    other = measure_spectrum_lines(1e-17 * flux, 1e-17 * level, 1e-17 * rms, rows((700.0, 9.0, 1)))
    for name in ("z", "z_err", "width", "snr", "lost", "flags"):
        assert other[name] == pytest.approx(one[name], rel=1e-9), name
    assert other["flux"] == pytest.approx(1e-17 * one["flux"], rel=1e-9)


def test_nothing_to_measure():
    flux, level, rms = spectrum()
    empty = {name: np.empty(0) for name in ("z", "width", "sign")}
    m = measure_spectrum_lines(flux, level, rms, empty)
    assert all(len(values) == 0 for values in m.values()) and m["flags"].dtype == np.int64


@pytest.mark.parametrize(
    ("kernel", "expected"), [((1.0,), 1.0), ((0.25, 0.5, 0.25), 1 / 0.6124), ((0.5, 0.5), np.sqrt(2))]
)
def test_sums_over_correlated_noise_are_noisier(kernel, expected):
    raw = np.random.default_rng(7).normal(size=4000 + len(kernel) - 1)
    noise = np.convolve(raw, kernel, mode="valid") / np.linalg.norm(kernel)
    # Slow bends are no correlation of the noise.
    bent = noise + 2 * np.sin(np.arange(4000) / 300)
    assert noise_correlation(noise) == pytest.approx(expected, abs=0.12)
    assert noise_correlation(bent) == pytest.approx(expected, abs=0.15)
