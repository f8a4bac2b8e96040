"""Light curves on a grid: from their first bin on, long ones in windows, magnitudes as fluxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u

from models.answers import AnswerCalibration, Answers
from pipeline.place import place, told_windows
from survey_io.errors import InputError
from survey_io.spectral_grid import SpectralGrid
from survey_io.spectrum import Spectrum

GRID = SpectralGrid(start=0.0, step=1 / 144, count=4096, unit="d")
WAVES = SpectralGrid(start=4000.0, step=2.0, count=500, unit="Angstrom")
LENGTH = GRID.count * GRID.step


def curve(days, start=2458325.3, step=2 / 1440, **changes):
    """A light curve whose flux is the time since its beginning."""
    time = start + step * np.arange(round(days / step))
    return Spectrum("star", "star.fits", time, u.d, 1.0 + (time - start), **changes)


def test_a_light_curve_begins_where_the_grid_does():
    for start in (0.0, -3.0, 1325.3, 2458325.3):
        (one,) = place(curve(27.0, start), GRID)
        assert one.seen[0] == pytest.approx(1, abs=1e-6)
        # The first bin of 10 minutes is the mean of five of 2 minutes.
        assert one.flux[0] == pytest.approx(1 + 4 / 1440, abs=1e-5)
        assert one.start == pytest.approx(start + 4 / 1440, abs=1e-6)
        assert np.isfinite(one.flux).sum() == pytest.approx(27 * 144, abs=1)
        np.testing.assert_allclose(one.flux[:3800] - 1 + start, one.start + GRID.centres()[:3800], atol=1e-4)


def test_bins_that_miss_at_the_beginning_do_not_count():
    spectrum = curve(20.0)
    flux = spectrum.flux.copy()
    flux[:1440] = np.nan
    (one,) = place(replace(spectrum, flux=flux), GRID)
    assert one.flux[0] == pytest.approx(3 + 4 / 1440, abs=1e-5)
    assert one.start == pytest.approx(spectrum.axis[1440] + 4 / 1440, abs=1e-6)


def test_units_of_time_do_not_matter():
    days = curve(20.0, 100.0)
    seconds = replace(days, axis=days.axis * 86400, unit=u.s)
    (one,), (other,) = place(days, GRID), place(seconds, GRID)
    np.testing.assert_allclose(other.flux, one.flux, rtol=1e-6)
    assert other.start == pytest.approx(one.start)


def test_a_quarter_of_kepler_is_seen_in_windows_that_cover_it():
    quarter = curve(90.0, 131.5, 29.4 / 1440, error=np.ones(round(90 * 1440 / 29.4)))
    windows = place(quarter, GRID)
    assert len(windows) == 4
    seen = np.concatenate([one.flux[np.isfinite(one.flux)] for one in windows])
    assert seen.min() == pytest.approx(1, abs=0.02) and seen.max() == pytest.approx(91, abs=0.05)
    for one, other in zip(windows, windows[1:-1], strict=False):
        assert other.start == pytest.approx(one.start + LENGTH, abs=0.03)
    # The last is whole, and begins within the one before.
    assert np.isfinite(windows[-1].flux).mean() > 0.99 and windows[-1].start < windows[-2].start + LENGTH - 1
    assert all(len(one.spectrum.axis) == len(one.spectrum.error) < 1500 for one in windows)


def test_sectors_far_apart_each_begin_with_their_own_first_bin():
    first, second = curve(27.0, 1325.0), curve(26.0, 2036.0)
    both = replace(
        first, axis=np.concatenate([first.axis, second.axis]), flux=np.concatenate([first.flux, second.flux])
    )
    windows = place(both, GRID)
    assert [round(one.start) for one in windows] == [1325, 2036]
    assert all(one.flux[0] == pytest.approx(1 + 4 / 1440, abs=1e-4) for one in windows)


def test_a_little_more_than_a_window_is_one_window():
    assert len(place(curve(1.03 * LENGTH), GRID)) == 1
    assert len(place(curve(1.2 * LENGTH), GRID)) == 2


def test_dips_in_magnitudes_go_down():
    spectrum = curve(20.0)
    magnitude = np.where((spectrum.axis % 2.0) < 0.2, 12.5, 12.0)
    (one,) = place(replace(spectrum, flux=magnitude, flux_unit=u.mag), GRID)
    assert np.nanmax(one.flux) == pytest.approx(1) and np.nanmin(one.flux) == pytest.approx(10**-0.2)


def test_spectra_stay_where_they_are():
    axis = 3900 + 1.0 * np.arange(2000)
    (one,) = place(Spectrum("s", "s.fits", axis, u.AA, axis), WAVES)
    assert one.start == 0
    np.testing.assert_allclose(one.flux, WAVES.centres())


@pytest.mark.parametrize(
    ("spectrum", "grid", "said"),
    [
        (Spectrum("s", "s.fits", np.arange(4000.0, 5000), u.AA, np.ones(1000)), GRID,
         "s.fits: expected an axis of the kind of d, s has one in Angstrom"),
        (curve(20.0), WAVES, "star.fits: expected an axis of the kind of Angstrom, star has one in d"),
        (curve(0.5), GRID, "star.fits: expected a light curve with 0.85 d of data or more, 'star' fills 1.8%"),
    ],
)  # fmt: skip
def test_what_does_not_belong_on_the_grid_is_said_in_a_line(spectrum, grid, said):
    with pytest.raises(InputError) as caught:
        place(spectrum, grid)
    assert said in caught.value.message and "model" in caught.value.message


def test_the_window_least_like_the_background_is_told():
    answers = Answers(("none", "transit"))
    raw = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [3.0, 0.0], [0.5, 0.4]])
    owner = [0, 0, 0, 4, 7]
    assert list(told_windows(raw, owner, answers, AnswerCalibration((0.5,)), "none")) == [1, 3, 4]
    assert list(told_windows(raw, owner, answers, AnswerCalibration(), None)) == [0, 3, 4]
    assert len(told_windows(np.empty((0, 2)), [], answers, AnswerCalibration(), "none")) == 0
