"""Lines of gas in equilibrium against closed forms: thin, thick, diluted, Boltzmann, channels, blends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from survey_io.line_lists import LIGHT_KMS, PER_GHZ, molecular_lines
from survey_io.simulate.radiation import (
    BACKGROUND,
    Component,
    column_for_depth,
    integrated_depth,
    paint,
    peak_depth,
    radiation_temperature,
)
from survey_io.spectral_grid import SpectralGrid

GRID = SpectralGrid(80.0005, 0.001, 35_000, "GHz")


def component(lines, column=1e12, temperature=20.0, width=8.0, velocity=0.0, **more):
    full = [np.full(len(lines.species), float(value)) for value in (column, temperature, velocity, width)]
    return Component(*full, **more)


def area(painted, frequency, half=60):
    """Integrated brightness around a frequency, K km/s."""
    channel = (frequency - GRID.start) / GRID.step
    near = abs(painted.channel - channel) < half
    return painted.total[near].sum() * GRID.step / frequency * LIGHT_KMS


def test_a_thin_line_has_the_textbook_area():
    """N = 8 pi k nu^2 / (h c^3 A g) Q exp(E/kT) W, with (1 - J(bg)/J(Tex)) for the background."""
    lines = molecular_lines().of(["HNC"])
    gas = component(lines, column=1e9, temperature=30.0)
    found = area(paint(lines, gas, GRID), lines.frequency[0])
    planck, boltzmann, light = 6.62607015e-27, 1.380649e-16, 2.99792458e10
    hertz = lines.frequency[0] * 1e9
    level = 1e9 / lines.partition(30.0)[0] * lines.upper_weight[0] * np.exp(-lines.upper_energy[0] / 30.0)
    expected = planck * light**3 * lines.einstein_a[0] * level / (8 * np.pi * boltzmann * hertz**2) * 1e-5
    warm, cold = (radiation_temperature(lines.frequency[0], t) for t in (30.0, BACKGROUND))
    assert found == pytest.approx(expected * (1 - cold / warm), rel=2e-3)


def test_thin_lines_of_a_species_stand_in_the_boltzmann_ratio():
    lines = molecular_lines().of(["HC3N"])
    for temperature in (12.0, 60.0):
        painted = paint(lines, component(lines, column=1e10, temperature=temperature), GRID)
        # ln(W / (nu^2 .. A g / J)) falls by E / T: the rotation diagram.
        own = [area(painted, frequency) for frequency in lines.frequency]
        contrast = 1 - radiation_temperature(lines.frequency, BACKGROUND) / radiation_temperature(
            lines.frequency, temperature
        )
        level = np.log(own * lines.frequency**2 / (lines.einstein_a * lines.upper_weight * contrast))
        slope = np.polyfit(lines.upper_energy, level, 1)[0]
        assert -1 / slope == pytest.approx(temperature, rel=5e-3)


def test_a_thick_line_shows_the_excitation_temperature():
    lines = molecular_lines().of(["13CO"])
    gas = component(lines, column=1e20, temperature=25.0, width=20.0)
    assert peak_depth(lines, gas)[0] > 100
    painted = paint(lines, gas, GRID)
    frequency = lines.frequency[0]
    expected = radiation_temperature(frequency, 25.0) - radiation_temperature(frequency, BACKGROUND)
    assert painted.total.max() == pytest.approx(expected, rel=1e-4)
    # And is wider than its profile: to where the depth is ln 2.
    half = painted.channel[painted.total > expected / 2]
    depth = peak_depth(lines, gas)[0]
    fwhm = 20.0 * np.sqrt(np.log2(depth / np.log(2))) * frequency / LIGHT_KMS / GRID.step
    assert len(half) == pytest.approx(fwhm, abs=1.5)


def test_gas_as_cold_as_the_background_does_not_show():
    lines = molecular_lines()
    assert abs(paint(lines, component(lines, column=1e14, temperature=BACKGROUND), GRID).total).max() < 1e-9
    absorbed = paint(lines, component(lines, column=1e15, temperature=2.0), GRID)
    assert absorbed.total.min() < -0.1 and absorbed.total.max() <= 0


def test_a_small_source_is_diluted_and_less_so_at_high_frequencies():
    lines = molecular_lines().of(["SO"])
    gas = component(lines, column=1e13, size=10.0, beam=25.0)
    filled = paint(lines, replace(gas, beam=0.0), GRID)
    small = paint(lines, gas, GRID)
    frequency = GRID.start + GRID.step * small.channel
    assert small.total / filled.total == pytest.approx(100 / (100 + (25.0 * 100 / frequency) ** 2), rel=1e-9)
    assert gas.dilution(100.0) == pytest.approx(100 / 725)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0, 12.0, 30.0])
def test_channels_conserve_flux_wherever_a_line_lies(width):
    lines = molecular_lines().of(["HNC"])
    areas = []
    for velocity in np.linspace(0, 3.5, 7):
        gas = component(lines, column=1e9, width=width, velocity=velocity)
        areas.append(area(paint(lines, gas, GRID), lines.frequency[0], half=100))
    # The last parts in a thousand are the wings that are too faint to be painted.
    assert areas == pytest.approx([areas[0]] * 7, rel=3e-3)


@pytest.mark.parametrize("width", [0.4, 2.0, 9.0])
def test_a_thick_narrow_line_is_averaged_over_the_channel(width):
    lines = molecular_lines().of(["HNC"])
    gas = component(lines, column=1.0, width=width, velocity=1.3)
    gas = replace(gas, column=column_for_depth(lines, np.array([8.0]), gas.temperature, gas.width))
    painted = paint(lines, gas, GRID)
    centre = lines.frequency[0] * (1 - 1.3 / LIGHT_KMS)
    fwhm = lines.frequency[0] * width / LIGHT_KMS
    contrast = radiation_temperature(centre, 20.0) - radiation_temperature(centre, BACKGROUND)

    def brightness(frequency):
        return contrast * -np.expm1(-8.0 * np.exp(-4 * np.log(2) * ((frequency - centre) / fwhm) ** 2))

    best = int(np.argmax(painted.total))
    for channel, value in zip(painted.channel[best - 1 : best + 2], painted.total[best - 1 : best + 2], strict=True):
        low = GRID.start + GRID.step * (channel - 0.5)
        points = sorted({float(np.clip(centre + offset, low, low + GRID.step)) for offset in (-fwhm, 0.0, fwhm)})
        expected = quad(brightness, low, low + GRID.step, points=points)[0] / GRID.step
        assert value == pytest.approx(expected, rel=0.015, abs=1e-3 * contrast)


def test_a_velocity_moves_lines_down_in_frequency():
    lines = molecular_lines().of(["CS"])
    painted = paint(lines, component(lines, velocity=30.0), GRID)
    centre = np.average(GRID.start + GRID.step * painted.channel, weights=painted.total)
    assert centre == pytest.approx(lines.frequency[0] * (1 - 30.0 / LIGHT_KMS), abs=2e-5)


def test_blended_species_add_in_depth_and_share_the_radiation():
    both = molecular_lines().of(["CS", "HNC"])
    # A copy of HNC's line on CS's: the same place, other depths and temperatures.
    lines = replace(both, frequency=np.full(2, 97.9805))
    temperature, width = np.array([40.0, 15.0]), np.full(2, 40.0)
    column = column_for_depth(lines, np.array([1.5, 0.6]), temperature, width)
    painted = paint(lines, Component(column, temperature, np.zeros(2), width), GRID)
    warm = radiation_temperature(97.98, temperature)
    source = (1.5 * warm[0] + 0.6 * warm[1]) / 2.1
    expected = (source - radiation_temperature(97.98, BACKGROUND)) * (1 - np.exp(-2.1))
    assert painted.total.max() == pytest.approx(expected, rel=5e-3)
    assert painted.total.max() < painted.alone.max(1).sum(), "what is thick hides what lies within it"
    thin = paint(lines, Component(column * 1e-4, temperature, np.zeros(2), width), GRID)
    assert thin.total == pytest.approx(thin.alone.sum(0), rel=1e-3)


def test_a_column_is_found_from_a_depth():
    lines = molecular_lines()
    count = len(lines.species)
    depth = np.linspace(0.01, 5, count)
    column = column_for_depth(lines, depth, np.full(count, 33.0), np.full(count, 4.0))
    peak = peak_depth(lines, component(lines, column=1.0, temperature=33.0, width=4.0))
    peak = peak * column[lines.line_species]
    assert [peak[lines.line_species == row].max() for row in range(count)] == pytest.approx(depth)
    # In the middle of a Gaussian line: area over width times sqrt(4 ln 2 / pi).
    one = component(lines, column=1e12)
    spread = lines.frequency * 8.0 / LIGHT_KMS * np.sqrt(np.pi / (4 * np.log(2)))
    assert peak_depth(lines, one) == pytest.approx(integrated_depth(lines, one.column, one.temperature) / spread)


def test_lines_beyond_the_grid_and_empty_gas():
    lines = molecular_lines()
    narrow = SpectralGrid(97.9, 0.001, 80, "GHz")
    painted = paint(lines, component(lines, column=1e15, width=30.0), narrow)
    assert painted.channel.min() >= 0 and painted.channel.max() < 80
    assert [lines.species[row] for row in painted.species] == ["CS"]
    nothing = paint(lines, component(lines, column=0.0), GRID)
    assert len(nothing.channel) == len(nothing.total) == 0


def test_the_rayleigh_jeans_temperature_of_warm_gas_is_its_own():
    assert radiation_temperature(100.0, 1000.0) == pytest.approx(1000.0 - PER_GHZ * 100 / 2, rel=1e-5)
    assert radiation_temperature(100.0, BACKGROUND) == pytest.approx(0.99, abs=0.01)
