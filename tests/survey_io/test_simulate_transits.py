"""Simulated light curves: dips as closed forms have them, truth that the flux bears out, seeds, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from survey_io.errors import OptionError
from survey_io.simulate import star_noise
from survey_io.simulate.eclipses import Orbit, light_lost, overlap, scaled_axis, time_from_middle, trapezoid
from survey_io.simulate.star_noise import StarNoiseModel
from survey_io.simulate.transits import CLASSES, GRID, TransitModel, simulate_transits, write_transits
from survey_io.spectra import open_spectra

TIME = GRID.centres()
QUIET = StarNoiseModel.quiet()
BOXES = TransitModel(transit=1, binary=0, shape="box", snr=(20, 50), bright=0, star=QUIET)


@pytest.fixture(scope="module")
def curves():
    return list(simulate_transits(120, seed=3))


def test_the_window_is_a_sector_of_tess():
    assert GRID.count * GRID.step == pytest.approx(28.44, abs=0.01) and GRID.centres()[0] == 0


def test_a_seed_gives_the_same_curves_and_another_does_not(curves):
    again = list(simulate_transits(3, seed=3))
    for one, other in zip(again, curves, strict=False):
        assert np.array_equal(one.flux, other.flux, equal_nan=True) and one.snr == other.snr
    assert not np.array_equal(next(simulate_transits(1, seed=4)).flux, curves[0].flux, equal_nan=True)


def test_folded_boxes_have_the_depth_duration_and_signal_to_noise_told():
    for one in simulate_transits(25, seed=8, model=BOXES):
        seen = np.isfinite(one.flux)
        inside = seen & (np.abs(time_from_middle(TIME, one.period, one.epoch)) < 0.5 * one.duration)
        count = inside.sum()
        lost = 1 - one.flux[inside].mean()
        # The mean of what is in transit scatters by the noise over the root of its bins.
        assert lost == pytest.approx(one.depth, abs=4.5 * one.noise / np.sqrt(count))
        assert one.snr == pytest.approx(one.depth / one.noise * np.sqrt(count), rel=1e-6)
        outside = one.flux[seen & ~inside]
        assert outside.mean() == pytest.approx(1, abs=4.5 * one.noise / np.sqrt(len(outside)))
        assert outside.std() == pytest.approx(one.noise, rel=0.06)
        # An event's bins add to its duration, but for where its ends fall within bins or beyond the window.
        whole = (np.abs(time_from_middle(TIME, one.period, one.epoch)) < 0.5 * one.duration).sum()
        events = np.floor((TIME[-1] - one.epoch) / one.period) + 1
        assert whole * GRID.step == pytest.approx(events * one.duration, abs=1.01 * events * GRID.step + one.duration)
        assert 2 <= one.events <= events + 1 and 0 <= one.epoch < one.period


def test_every_shape_has_its_signal_to_noise_and_is_no_deeper_than_told():
    for shape in ("box", "trapezoid", "limb-darkened"):
        for one in simulate_transits(8, seed=2, model=replace(BOXES, shape=shape)):
            seen = np.isfinite(one.flux)
            assert np.sqrt(((1 - one.dips[seen]) ** 2).sum()) / one.noise == pytest.approx(one.snr, rel=1e-6)
            deepest = 1 - one.dips.min()
            # Bins of ten minutes blur what is short; limb-darkened dips are deepest in their middle.
            assert one.depth * (1 - 1e-9 if shape == "box" else 0.3) <= deepest <= one.depth * (1 + 1e-9)
            assert one.shape == shape and one.depth <= BOXES.deepest


def test_some_planets_are_as_plain_as_giants_around_near_stars():
    model = TransitModel(transit=1, binary=0, snr=(5, 10), bright=0.3)
    snr = np.array([one.snr for one in simulate_transits(80, seed=6, model=model)])
    assert (snr > 10).mean() == pytest.approx(0.3, abs=0.15) and 50 < snr.max() <= 100 and snr.min() >= 5


def test_durations_are_keplers():
    # The Earth before the Sun: 215 solar radii, 13 hours.
    axis = scaled_axis(365.25, 1.0)
    assert axis == pytest.approx(215, rel=0.005)
    assert 24 * Orbit(365.25, 0.00917, 0.0, axis).duration == pytest.approx(13.1, abs=0.1)
    # Of stars of one density central passages last as the cube root of the period.
    short, long = (Orbit(period, 0.01, 0.0, scaled_axis(period, 1.4)).duration for period in (1.5, 12.0))
    assert long / short == pytest.approx(2, rel=0.02)
    grazing = Orbit(3.0, 0.1, 1.05, 8.0)
    assert grazing.full_duration == 0 < grazing.duration and Orbit(3.0, 0.1, 1.2, 8.0).duration == 0


def test_discs_overlap_as_counted_on_a_raster():
    side = np.linspace(-1, 1, 1201)
    x, y = np.meshgrid(side, side)
    star = x**2 + y**2 < 1
    for ratio in (0.1, 0.5, 1.0, 1.3):
        for distance in (0.0, 0.3, 0.7, 1.05, 2.4):
            counted = (star & ((x - distance) ** 2 + y**2 < ratio**2)).sum() / star.sum()
            assert overlap(np.array([distance]), ratio)[0] == pytest.approx(counted, abs=2e-3)


def test_limb_darkened_passages():
    first, second = 0.4, 0.25
    orbit = Orbit(5.0, 0.05, 0.0, 12.0, (first, second))
    at = np.linspace(-0.5, 0.5, 2001)
    lost = light_lost(at, orbit)
    # In the middle of the disc the star is brighter than on average.
    assert lost.max() == pytest.approx(0.05**2 / (1 - first / 3 - second / 6), rel=1e-3)
    assert (lost[np.abs(at) > 0.5 * orbit.duration] == 0).all() and (lost[np.abs(at) < 0.49 * orbit.duration] > 0).all()
    # A quadratic limb: the light lost at a distance z is in proportion to the brightness there.
    half = at[np.abs(lost - 0.8 * lost.max()).argmin()]
    shade = 1 - np.sqrt(1 - (12 * np.sin(2 * np.pi * half / 5.0)) ** 2)
    assert 1 - first * shade - second * shade**2 == pytest.approx(0.8, abs=0.01)
    # Behind the star nothing is lost, and uniform discs lose their area.
    assert (light_lost(at + 2.5, orbit) == 0).all()
    assert light_lost(np.zeros(1), replace(orbit, limb=(0.0, 0.0)))[0] == pytest.approx(0.05**2)
    wide = trapezoid(at, 0.4, 0.2)
    assert wide.sum() * (at[1] - at[0]) == pytest.approx(0.3, rel=1e-3) and wide.max() == 1


def test_shares_classes_and_what_only_dips_have(curves):
    labels = np.array([one.label for one in curves])
    shares = np.bincount(labels, minlength=3) / len(labels)
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.2], atol=0.13)
    assert CLASSES == ("none", "transit", "eclipsing binary")
    for one in curves:
        assert np.isfinite(one.flux).mean() > 0.3 and np.isfinite(one.flux[0])
        if one.label == 0:
            assert (one.dips == 1).all() and one.snr == 0 and np.isnan(one.period)
        else:
            assert one.events >= 2 and one.snr >= 5 and 0.5 <= one.period <= 14
    binaries = [one for one in curves if one.label == 2]
    assert max(one.depth for one in binaries) > 0.1 > 0.005 > min(one.depth for one in binaries)
    # Odd and even eclipses differ where one star is cooler.
    assert any(one.second_depth < 0.5 * one.depth for one in binaries)


def test_stars_vary_as_much_as_told():
    rng = np.random.default_rng(5)
    grains = np.stack([star_noise.granulation(TIME, 0.1, 1e-3, rng) for _ in range(20)])
    assert grains.std() == pytest.approx(1e-3, rel=0.05)
    # Its power is half at the time scale's frequency and falls with the fourth power beyond.
    power = (np.abs(np.fft.rfft(grains, axis=1)) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(len(TIME), GRID.step)
    low, high = (power[(frequency > a) & (frequency < b)].mean() for a, b in ((0.1, 0.5), (6, 7)))
    assert high / low == pytest.approx(1 / (1 + (2 * np.pi * 6.5 * 0.1) ** 4), rel=0.3)
    turning = np.stack([star_noise.spots(TIME, 3.0, 0.01, rng) for _ in range(60)])
    assert 0.01 < turning.std() < 0.015
    assert star_noise.flares(TIME, 1e-3, rng).min() >= 0
    assert np.isfinite(star_noise.pulsation(TIME, 0.3, 0.01, rng)).all()


def test_half_hour_cadence_is_smooth_on_the_grid():
    model = TransitModel(transit=0, binary=0, star=replace(QUIET, coarse=1.0))
    (one,) = simulate_transits(1, seed=1, model=model)
    seen = np.isfinite(one.flux)
    assert one.coarse and seen.mean() > 0.9
    both = seen[1:] & seen[:-1]
    assert np.diff(one.flux)[both].std() < 0.8 * one.noise and one.flux[seen].std() < 0.75 * one.noise


def test_files_are_light_curves_and_truth_counts_from_the_same_day(tmp_path):
    made = list(simulate_transits(4, seed=8, model=BOXES))
    paths = write_transits(made, tmp_path, name="sky", start=2000.0)
    opened = open_spectra(paths["light_curves"])
    assert not opened.errors and [one.name for one in opened.spectra] == [f"star {n}" for n in (1, 2, 3, 4)]
    truth = Table.read(paths["truth"])
    for one, curve, row in zip(opened.spectra, made, truth, strict=True):
        assert one.is_series and one.axis[0] == 2000.0
        seen = np.isfinite(curve.flux)
        at = np.round((one.axis - 2000) / GRID.step).astype(int)
        np.testing.assert_allclose(one.flux[seen[at]], curve.flux[at][seen[at]], rtol=1e-6)
        inside = np.abs(time_from_middle(one.axis, row["period"], row["epoch"])) < 0.5 * row["duration"]
        assert 1 - np.nanmean(one.flux[inside]) == pytest.approx(row["depth"], rel=0.3)
        assert row["class"] == "transit" and row["snr"] == pytest.approx(curve.snr)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"snr": (9, 3)}, "snr: expected two positive"), ({"period": (1, 20)}, "two events in a window"),
        ({"bright": 2}, "bright: expected a share"), ({"transit": 0.9, "binary": 0.2}, "add to 1"),
        ({"shape": "round"}, "limb-darkened, came 'round'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(changes, said):
    with pytest.raises(OptionError, match=said):
        TransitModel(**changes)
