"""Spectral axes: each convention against the world coordinate library, and the choices that headers leave."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import constants, wcs
from astropy import units as u
from astropy.io.fits import Header
from hypothesis import given
from hypothesis import strategies as st

from survey_io.errors import InputError
from survey_io.spectral import HI_REST_FREQUENCY, SpectralAxis, air_index, read_spectral_axis

SIZE = 90


def header(ctype: str, value: float, step: float, unit: str | None, rest: float | None = HI_REST_FREQUENCY, **more):
    cards = {"NAXIS": 1, "NAXIS1": SIZE, "CTYPE1": ctype, "CRVAL1": value, "CRPIX1": 31.5, "CDELT1": step}
    if unit is not None:
        cards["CUNIT1"] = unit
    if rest is not None:
        cards["RESTFRQ"] = rest
    return Header({**cards, **more})


@pytest.mark.parametrize(
    ("ctype", "value", "step", "unit", "standard"),
    [
        ("FREQ", 1.4e9, 2e4, "Hz", "Hz"), ("FREQ", 1403.88, -0.039, "MHZ", "MHz"), ("VRAD", 5e5, 4e3, "m/s", "m/s"),
        ("VRAD", 500.0, -4.0, "KM/S", "km/s"), ("VOPT", 8e6, -5e3, "M/S", "m/s"), ("VELO", 2e6, 6e3, "m s-1", "m/s"),
        ("WAVE", 0.2112, 1e-6, "m", "m"), ("WAVE", 656.0, 0.05, "nm", "nm"), ("ZOPT", 0.3, -1e-4, None, ""),
        ("AWAV", 6560.0, 0.6, "Angstrom", "Angstrom"),
    ],
)  # fmt: skip
def test_frequencies_agree_with_the_coordinate_library(ctype, value, step, unit, standard):
    given = header(ctype, value, step, unit)
    axis, _ = read_spectral_axis(given, 1)
    given["CUNIT1"] = standard
    z = np.array([0.0, 12.25, SIZE - 1])
    library = wcs.WCS(given)
    with np.errstate(all="ignore"):
        library.wcs.set()
        if ctype == "FREQ":
            expected = library.all_pix2world(z, 0)[0]
        else:
            # The library converts between types at the level of its spectral translation.
            library = library.copy()
            world = library.all_pix2world(z, 0)[0]
            c = constants.c.value
            expected = {
                "VRAD": lambda v: HI_REST_FREQUENCY * (1 - v / c),
                "VOPT": lambda v: HI_REST_FREQUENCY / (1 + v / c),
                "VELO": lambda v: HI_REST_FREQUENCY * np.sqrt((1 - v / c) / (1 + v / c)),
                "ZOPT": lambda v: HI_REST_FREQUENCY / (1 + v),
                "WAVE": lambda v: c / v,
                "AWAV": lambda v: c / (v * air_index(v)),
            }[ctype](world)
    assert axis.frequency(z) == pytest.approx(expected, rel=1e-12)
    assert axis.channel(axis.frequency(z)) == pytest.approx(z, abs=1e-6)
    assert axis.increasing == (expected[-1] > expected[0])
    assert (axis.width(z) > 0).all()


def test_wavelengths_of_air_are_those_of_line_lists():
    # NIST: Ca II K, Na I D2, H alpha, Ca II; in air and in vacuum, Angstrom.
    air = np.array([3933.663, 5889.950954, 6562.819, 8542.091])
    vacuum = np.array([3934.777, 5891.583264, 6564.632, 8544.438])
    assert air * air_index(air * 1e-10) == pytest.approx(vacuum, abs=2e-3)


@given(st.floats(0, SIZE - 1), st.sampled_from(["FREQ", "VRAD", "VOPT", "VELO"]), st.sampled_from([-1, 1]))
def test_velocities_agree_with_units_equivalencies(z, kind, sign):
    start, step = (1.3e9, 1e5 * sign) if kind == "FREQ" else (9e5, 8e3 * sign)
    axis = SpectralAxis(kind, start, step, SIZE, HI_REST_FREQUENCY)
    rest, nu = HI_REST_FREQUENCY * u.Hz, axis.frequency(z) * u.Hz
    assert axis.velocity_optical(z) == pytest.approx(nu.to_value("km/s", u.doppler_optical(rest)), abs=1e-6)
    assert axis.velocity_radio(z) == pytest.approx(nu.to_value("km/s", u.doppler_radio(rest)), abs=1e-6)
    assert axis.channel(axis.frequency(z)) == pytest.approx(z, abs=1e-6)
    # A width of one channel is what the optical velocity changes over it.
    change = abs(axis.velocity_optical(z + 0.5) - axis.velocity_optical(z - 0.5))
    assert axis.velocity_width(z, axis.width(z)) == pytest.approx(change, rel=1e-3)


def test_old_velocity_axes_say_which_convention_was_taken():
    radio, notes = read_spectral_axis(header("VELO-HEL", 5.74e5, 4.1e3, "m/s"), 1)
    assert radio.kind == "VRAD" and "radio" in notes[0]
    optical, notes = read_spectral_axis(header("VELO-LSR", 5.74e5, 4.1e3, "m/s", VELREF=1), 1)
    assert optical.kind == "VOPT" and "optical" in notes[0] and "VELREF" in notes[0]
    assert read_spectral_axis(header("VELO-LSR", 5.74e5, 4.1e3, "m/s", VELREF=257), 1)[0].kind == "VRAD"


def test_felo_is_regular_in_frequency():
    axis, notes = read_spectral_axis(header("FELO-HEL", 5e6, 2e4, "m/s"), 1)
    assert axis.kind == "FREQ" and "equal frequency" in notes[0]
    assert np.ptp(axis.width(np.arange(SIZE))) < 1e-6
    # The label holds at the reference channel, and so does its step.
    assert axis.velocity_optical(30.5) == pytest.approx(5e3, abs=1e-6)
    assert axis.velocity_optical(31.0) - axis.velocity_optical(30.0) == pytest.approx(20.0, rel=1e-3)


def test_rest_frequency_is_hi_only_for_frequencies_where_hi_is_meant():
    axis, notes = read_spectral_axis(header("FREQ", 1.4e9, 2e4, "Hz", rest=None), 1)
    assert axis.rest_frequency == HI_REST_FREQUENCY and "HI" in notes[0]
    other, _ = read_spectral_axis(header("FREQ", 1.1e11, 1e5, "Hz", rest=None), 1)
    assert other.rest_frequency is None
    with pytest.raises(InputError, match="--rest-frequency"):
        other.redshift(3)
    with pytest.raises(InputError, match="--rest-frequency"):
        read_spectral_axis(header("VOPT", 5e5, 4e3, "m/s", rest=None), 1)
    given, _ = read_spectral_axis(header("VOPT", 5e5, 4e3, "m/s", rest=None), 1, rest_frequency=1e9)
    assert given.rest_frequency == 1e9
    # As GIPSY writes it: 574 km/s, heliocentric and optical, at 1417.7755 MHz is HI, and is not at 1300 MHz.
    gipsy = {"FREQR": 1417775546.339, "VELR": 574000.0}
    axis, notes = read_spectral_axis(header("VOPT", 5e5, 4e3, "m/s", rest=None, **gipsy), 1)
    assert axis.rest_frequency == HI_REST_FREQUENCY and "FREQR" in notes[0]
    with pytest.raises(InputError, match="--rest-frequency"):
        read_spectral_axis(header("VOPT", 5e5, 4e3, "m/s", rest=None, **{**gipsy, "FREQR": 1.3e9}), 1)


@pytest.mark.parametrize(
    ("cards", "word"),
    [
        (header("FREQ-LOG", 1e9, 1e5, "Hz"), "linear"), (header("FREQ", 1e9, 0.0, "Hz"), "CDELT1"),
        (header("FREQ", 1e9, 1e5, "km/s"), "km/s"), (header("FREQ", 1e5, -1e5, "Hz"), "positive"),
    ],
)  # fmt: skip
def test_axes_that_cannot_be_used(cards, word):
    with pytest.raises(InputError, match=word):
        read_spectral_axis(cards, 1, name="c.fits")
