"""Spectra laid out in channels: what a file leaves out is blank, and channels find their way back to the axis."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u

from survey_io.channels import MOST_BLANK, lay_out_channels
from survey_io.spectrum import Spectrum

LIGHT_KMS = 299_792.458


def spectrum(axis, unit="Angstrom", **fields) -> Spectrum:
    axis = np.asarray(axis, float)
    return Spectrum("s", "s.fits", axis, u.Unit(unit), np.arange(len(axis), dtype=float), **fields)


def test_a_regular_spectrum_has_its_bins_as_channels():
    channels = lay_out_channels(spectrum(4000 + 1.5 * np.arange(50)))
    assert channels.count == 50 and np.array_equal(channels.place, np.arange(50))
    assert channels.axis(10.5) == pytest.approx(4015.75) and channels.bin(10.5) == pytest.approx(10.5)
    # Straight on beyond both ends.
    assert channels.axis(-2.0) == pytest.approx(3997) and channels.axis(51.0) == pytest.approx(4076.5)
    assert channels.width(np.array([0.0, 49.0])) == pytest.approx([1.5, 1.5])


@pytest.mark.parametrize("axis", [4000 + 1.5 * np.arange(400), 4000 * np.exp(1e-3 * np.arange(400))])
def test_rows_that_are_left_out_are_blank_channels(axis):
    kept = np.r_[0:100, 103:250, 300:400]
    channels = lay_out_channels(spectrum(axis[kept]))
    assert channels.count == 400 and np.array_equal(channels.place, kept)
    filled = channels.fill(np.ones(len(kept)))
    assert np.isnan(filled[[100, 102, 250, 299]]).all() and np.nansum(filled) == len(kept)
    assert channels.axis(120.0) == pytest.approx(axis[120]) and channels.bin(103.0) == pytest.approx(100)


def test_the_gap_between_two_arms_is_not_filled_with_more_than_separates_them():
    axis = np.r_[4000 + np.arange(300.0), 9000 + 2 * np.arange(300.0)]
    channels = lay_out_channels(spectrum(axis))
    assert channels.count == 600 + MOST_BLANK
    assert channels.axis(np.array([0.0, channels.count - 1])) == pytest.approx([4000, 9598])


def test_frequency_and_velocity_by_axis():
    wave = lay_out_channels(spectrum([5000.0, 5001, 5002]))
    assert wave.frequency(1.0) == pytest.approx(299_792_458 / 5001e-10)
    assert np.isnan(wave.velocity(1.0))
    assert wave.speed(1.0, 2.0) == pytest.approx(LIGHT_KMS * 2 / 5001)
    rest = 1.42e9
    freq = lay_out_channels(spectrum([1.40e9, 1.41e9, 1.42e9], "Hz", rest_frequency=rest))
    assert freq.frequency(0.5) == pytest.approx(1.405e9)
    assert freq.velocity(np.array([0.0, 2.0])) == pytest.approx([LIGHT_KMS * (1 - 1.40 / 1.42), 0], abs=1e-6)
    for convention, expected in (("radio", rest * (1 - 1000 / LIGHT_KMS)), ("optical", rest / (1 + 1000 / LIGHT_KMS))):
        speed = lay_out_channels(
            spectrum([900.0, 1000, 1100], "km/s", rest_frequency=rest, convention=convention)
        )
        assert speed.velocity(1.0) == pytest.approx(1000)
        assert speed.frequency(1.0) == pytest.approx(expected)
        assert speed.speed(1.0, 1.5) == pytest.approx(150)
    assert np.isnan(lay_out_channels(spectrum([900.0, 1000], "km/s")).frequency(np.array([0.0, 1.0]))).all()
