"""Whatever the axes: resampling keeps the integral, a constant, what is missing, and the direction does not matter."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_io.errors import InputError
from survey_io.spectral_grid import MIN_SEEN, SpectralGrid, bin_edges, resample
from survey_io.spectrum import Spectrum

HI = 1420405751.768


def spectrum_of(axis: np.ndarray, flux: np.ndarray, unit: str = "Angstrom", **fields: Any) -> Spectrum:
    return Spectrum("one", "one.fits", axis, u.Unit(unit), flux, **fields)


@st.composite
def axes(draw: st.DrawFn) -> np.ndarray:
    """Ascending centres: linear, logarithmic, irregular, or with gaps."""
    count = draw(st.integers(2, 60))
    start, step = draw(st.floats(500, 5000)), draw(st.floats(0.05, 20))
    kind = draw(st.sampled_from(["linear", "log", "irregular", "gaps"]))
    if kind == "log":
        return start * np.exp(step / start * np.arange(count))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = np.full(count, step)
    if kind == "irregular":
        steps *= rng.uniform(0.5, 1.8, count)
    if kind == "gaps":
        steps[rng.random(count) < 0.2] *= 30
    return start + np.cumsum(steps)


@st.composite
def grids(draw: st.DrawFn, axis: np.ndarray) -> SpectralGrid:
    """Grids that cover an axis wholly, linear or logarithmic, finer or coarser."""
    low, high = (side for side in bin_edges(axis))
    first, last = low[0], high[-1]
    width = min((last - first) / draw(st.floats(0.6, 150)), first)
    spacing = draw(st.sampled_from(["linear", "log"]))
    start = first - width * draw(st.floats(0, 0.4))
    if spacing == "log":
        count = int(np.ceil(np.log((last + width) / start) / (width / start))) + 1
        return SpectralGrid(start, width / start, count, "Angstrom", "log")
    count = int(np.ceil((last - start) / width)) + 1
    return SpectralGrid(start, width, count, "Angstrom")


def integral(spectrum: Spectrum) -> float:
    low, high = bin_edges(spectrum.axis)
    return float(np.nansum(spectrum.flux * (high - low)))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_the_integral_is_kept(data: st.DataObject) -> None:
    axis = data.draw(axes())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    spectrum = spectrum_of(axis, rng.normal(1, 1, len(axis)))
    grid = data.draw(grids(axis))
    flux, seen = resample(spectrum, grid)
    assert flux.shape == seen.shape == (grid.count,)
    assert seen.min() >= 0 and seen.max() <= 1
    np.testing.assert_array_equal(np.isnan(flux), seen < MIN_SEEN)
    low, high = bin_edges(axis)
    np.testing.assert_allclose((seen * np.diff(grid.edges())).sum(), (high - low).sum(), rtol=1e-6)
    # NaN hides the flux of bins of which little was seen.
    if not ((seen > 0) & (seen < MIN_SEEN)).any():
        got = np.nansum(flux * seen * np.diff(grid.edges()))
        np.testing.assert_allclose(got, integral(spectrum), rtol=1e-6, atol=1e-6 * np.ptp(axis))


@given(st.data(), st.floats(-1e6, 1e6, allow_subnormal=False))
@settings(deadline=None, max_examples=80)
def test_a_constant_stays(data: st.DataObject, value: float) -> None:
    axis = data.draw(axes())
    flux = np.full(len(axis), value)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    flux[rng.random(len(axis)) < 0.2] = np.nan
    got, _ = resample(spectrum_of(axis, flux), data.draw(grids(axis)))
    np.testing.assert_allclose(got[np.isfinite(got)], value, rtol=1e-9)


@given(st.data())
@settings(deadline=None, max_examples=80)
def test_what_is_missing_stays_missing(data: st.DataObject) -> None:
    axis = data.draw(axes())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    missing = rng.random(len(axis)) < 0.4
    flux = np.where(missing, np.nan, 1.0)
    low, high = bin_edges(axis)
    grid = data.draw(grids(axis))
    edges = grid.edges()
    observed = sum(
        np.clip(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a), 0, None)
        for a, b in zip(low[~missing], high[~missing], strict=True)
    )
    got, seen = resample(spectrum_of(axis, flux), grid)
    np.testing.assert_allclose(seen, observed / np.diff(edges), atol=1e-6)
    assert np.isnan(got[seen < MIN_SEEN]).all() and np.isfinite(got[seen > MIN_SEEN]).all()


@given(st.data())
@settings(deadline=None, max_examples=80)
def test_finer_bins_are_averaged_by_their_overlap(data: st.DataObject) -> None:
    axis = data.draw(axes())
    low, high = bin_edges(axis)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    flux = rng.normal(size=len(axis))
    step = (high - low).max() * data.draw(st.floats(1.01, 5))
    grid = SpectralGrid(axis[0] - 0.3 * step, step, int(np.ptp(axis) / step) + 2, "Angstrom")
    got, seen = resample(spectrum_of(axis, flux), grid)
    edges = grid.edges()
    share = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    share = np.clip(share, 0, None)
    with np.errstate(invalid="ignore"):
        expected = (share @ flux) / share.sum(axis=1)
    good = seen >= MIN_SEEN
    np.testing.assert_allclose(got[good], expected[good], atol=1e-6)


@given(st.data(), st.sampled_from(["linear", "log"]))
@settings(deadline=None, max_examples=60)
def test_a_grid_onto_itself(data: st.DataObject, spacing: str) -> None:
    start, step = data.draw(st.floats(100, 1e6)), data.draw(st.floats(1e-5, 1e-2))
    step = step if spacing == "log" else step * start
    grid = SpectralGrid(start, step, data.draw(st.integers(3, 300)), "GHz", spacing)
    flux = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).normal(size=grid.count)
    flux[::7] = np.nan
    got, seen = resample(spectrum_of(grid.centres(), flux, "GHz"), grid)
    np.testing.assert_allclose(got, flux, atol=1e-6)
    np.testing.assert_allclose(seen, np.isfinite(flux), atol=1e-6)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_ascending_frequencies_or_wavelengths_are_the_same(data: st.DataObject) -> None:
    # Even in logs: only then do the bins around the same centres have the same edges in both.
    axis = data.draw(st.floats(500, 5000)) * np.exp(data.draw(st.floats(1e-5, 1e-2)) * np.arange(50))
    flux = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).normal(size=len(axis))
    grid = data.draw(grids(axis))
    light = constants.c.to_value(u.AA * u.GHz)
    there = resample(spectrum_of(axis, flux, flux_unit=u.Jy), grid)
    back = resample(spectrum_of(light / axis[::-1], flux[::-1], "GHz", flux_unit=u.Jy), grid)
    for one, other in zip(there, back, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_coarse_spectra_become_smooth() -> None:
    axis = np.arange(100.0, 200.0, 5.0)

    def line(centre: np.ndarray, width: float) -> np.ndarray:
        inside = (np.arange(100) + 0.5) / 100 - 0.5
        return np.exp(-0.5 * ((centre[:, None] + width * inside - 151) / 8) ** 2).mean(axis=1)

    coarse = line(axis, 5)
    grid = SpectralGrid(97.75, 0.5, 200, "Angstrom")
    got, seen = resample(spectrum_of(axis, coarse), grid)
    assert seen.min() == 1
    # Steps would be off by 0.18.
    assert np.abs(got - line(grid.centres(), 0.5)).max() < 0.05
    # Each bin of the spectrum keeps its integral: ten bins of the grid lie within one of it.
    np.testing.assert_allclose(got.reshape(-1, 10).mean(axis=1), coarse, atol=1e-9)


def test_one_outlier_stays_where_it_is() -> None:
    axis = np.arange(4000.0, 4100.0)
    flux = np.ones(100)
    flux[50] = 1e30
    got, _ = resample(spectrum_of(axis, flux), SpectralGrid(4001, 2, 49, "Angstrom"))
    assert (got > 2).sum() <= 2
    np.testing.assert_allclose(got[got < 2], 1, rtol=1e-12)


def test_dropped_rows_leave_a_gap() -> None:
    axis = np.arange(4000.0, 4100.0)
    kept = (axis < 4040) | (axis > 4060)
    _, seen = resample(spectrum_of(axis[kept], np.ones(kept.sum())), SpectralGrid(4000, 1, 100, "Angstrom"))
    np.testing.assert_allclose(seen, kept, atol=1e-6)
    # One row is bridged.
    kept = axis != 4050
    _, seen = resample(spectrum_of(axis[kept], np.ones(kept.sum())), SpectralGrid(4000, 1, 100, "Angstrom"))
    np.testing.assert_allclose(seen, 1, atol=1e-6)


def test_a_flux_density_is_averaged_over_what_it_is_per() -> None:
    # One bin of the grid over two of the spectrum, 1 to 2 and 2 to 3 GHz, in wavelengths: 2/3 and 1/3 of the sum.
    axis = np.array([1.5, 2.5])
    light = constants.c.to_value(u.m * u.GHz)
    middle, width = light * (1 + 1 / 3) / 2, light * (1 - 1 / 3)
    grid = SpectralGrid(middle, width, 1, "m")
    for unit, expected in ((u.Jy, 1.5), (u.K, 1.5), (u.W / u.m**3, (1 / 2 + 2 / 6) / (2 / 3))):
        got, seen = resample(spectrum_of(axis, np.array([1.0, 2.0]), "GHz", flux_unit=unit), grid)
        np.testing.assert_allclose(got, expected, err_msg=str(unit))
        np.testing.assert_allclose(seen, 1)


@pytest.mark.parametrize("convention", ["radio", "optical", "relativistic"])
def test_velocities_and_frequencies(convention: str) -> None:
    velocity = np.linspace(1000, 1400, 81)
    flux = np.exp(-0.5 * ((velocity - 1210) / 20) ** 2)
    spectrum = spectrum_of(velocity, flux, "km/s", rest_frequency=HI, convention=convention)
    beta = 1210 / constants.c.to_value(u.km / u.s)
    factor = {"radio": 1 - beta, "optical": 1 / (1 + beta), "relativistic": np.sqrt((1 - beta) / (1 + beta))}
    grid = SpectralGrid(1414.0, 0.03, 40, "MHz")
    got, _ = resample(spectrum, grid)
    centre = np.nansum(got * grid.centres()) / np.nansum(got)
    assert centre == pytest.approx(HI / 1e6 * factor[convention], abs=2e-3)


def test_other_units_of_the_same_kind() -> None:
    axis = np.arange(100.0)
    got, _ = resample(spectrum_of(axis, axis, "d"), SpectralGrid(24.0, 24.0, 98, "h"))
    np.testing.assert_allclose(got, np.arange(1, 99), atol=1e-6)


def test_nothing_in_common_is_no_error() -> None:
    for start in (1.0, 9000.0):
        grid = SpectralGrid(start, 1, 50, "Angstrom")
        got, seen = resample(spectrum_of(np.arange(4000.0, 4100.0), np.ones(100)), grid)
        assert np.isnan(got).all() and (seen == 0).all()


def test_refusals() -> None:
    axis = np.arange(1.0, 50.0)
    with pytest.raises(InputError, match=r"one.fits: expected a rest frequency .* into GHz, one has none"):
        resample(spectrum_of(axis, axis, "km/s"), SpectralGrid(1, 1, 10, "GHz"))
    with pytest.raises(InputError, match=r"expected a rest frequency"):
        resample(spectrum_of(axis, axis, "GHz"), SpectralGrid(1, 1, 10, "km/s"))
    with pytest.raises(InputError, match=r"expected an axis of the kind of Angstrom, one has one in d; choose a model"):
        resample(spectrum_of(axis, axis, "d"), SpectralGrid(1, 1, 10, "Angstrom"))


def test_35000_bins_take_milliseconds() -> None:
    axis = np.arange(79.9, 115.1, 0.000488)
    spectrum = spectrum_of(axis, np.random.default_rng(1).normal(size=len(axis)), "GHz")
    grid = SpectralGrid(80.0005, 0.001, 35_000, "GHz")
    times = []
    for _ in range(5):
        begin = time.thread_time()
        resample(spectrum, grid)
        times.append(time.thread_time() - begin)
    # 5 ms on an idle core; the bound lets a busy machine pass.
    assert min(times) < 0.05
