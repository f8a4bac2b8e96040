"""The weightless finder of lines: planted lines come out, spikes and noise do not, gaps count as gaps."""

from __future__ import annotations

import numpy as np
import pytest

from models.detectors.line_clip import LineClip
from survey_io.simulate.line_shapes import gaussian_profile

FINDER = LineClip()


def spectrum(count: int = 3000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def plant(snr: np.ndarray, z: float, width: float, flux: float) -> None:
    low, part = gaussian_profile().paint(len(snr), z, width)
    snr[low : low + len(part)] += (flux * part).astype(np.float32)


@pytest.mark.parametrize("width", [2.5, 8.0, 40.0, 130.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_line_is_found_with_its_place_width_and_flux(width, sign):
    snr = spectrum()
    flux = sign * 25 * np.sqrt(1.5 * width)
    plant(snr, 1501.3, width, flux)
    found = FINDER.find(snr, FINDER.noise(snr))
    best = int(np.argmax(found["score"]))
    assert found["z"][best] == pytest.approx(1501.3, abs=0.5 + 0.05 * width)
    assert found["width"][best] == pytest.approx(width, rel=0.5)
    assert found["flux"][best] == pytest.approx(flux, rel=0.2) and np.sign(found["peak_snr"][best]) == sign


def test_noise_of_filters_is_one_for_white_noise_and_more_for_correlated():
    assert FINDER.noise(spectrum(20_000)) == pytest.approx(np.ones(len(FINDER.widths)), abs=0.15)
    hanning = np.convolve(spectrum(20_002), [0.25, 0.5, 0.25], mode="valid") / 0.6124
    assert FINDER.noise(hanning)[3:9] == pytest.approx(np.full(6, 1 / 0.6124), abs=0.25)


def test_few_candidates_in_noise():
    snr = spectrum(20_000, seed=4)
    found = FINDER.find(snr, FINDER.noise(snr))
    assert (np.abs(found["peak_snr"]) > 5).sum() <= 1


def test_a_spike_is_no_line():
    snr = spectrum()
    snr[700], snr[701], snr[1400] = 400.0, 80.0, -50.0
    found = FINDER.find(snr, FINDER.noise(snr))
    assert not ((abs(found["z"] - 700) < 5) | (abs(found["z"] - 1400) < 5)).any()


def test_gaps_are_not_observed():
    snr = spectrum()
    plant(snr, 1000.0, 20.0, 300.0)
    snr[997:1004] = np.nan
    found = FINDER.find(snr, FINDER.noise(snr))
    near = abs(found["z"] - 1000) < 25
    assert near.any() and found["flux"][near].max() == pytest.approx(300, rel=0.4)
    assert np.isfinite(found["score"]).all()


def test_windows_agree():
    snr = spectrum(4000, seed=2)
    for z in (600.0, 1500.0, 2900.0):
        plant(snr, z, 15.0, 120.0)
    noise = FINDER.noise(snr)
    whole, part = FINDER.find(snr, noise), FINDER.find(snr[1000:2400], noise)
    halo = FINDER.halo
    inner = (whole["z"] > 1000 + halo) & (whole["z"] < 2400 - halo)
    other = (part["z"] > halo) & (part["z"] < 1400 - halo)
    assert inner.sum() == other.sum() > 0
    for name in ("width", "flux", "score"):
        np.testing.assert_allclose(whole[name][inner], part[name][other], rtol=1e-9)
    np.testing.assert_allclose(whole["z"][inner], part["z"][other] + 1000)
