"""Pixel and sky: positions, angles and ellipses on skies turned, mirrored, far away and in other frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from survey_io import Beam, Observation, PixelSource, open_image
from survey_io.geometry import ellipse_axes, shape_matrix
from tests.conftest import BEAM, PIXEL, SHAPE, WCS_VARIANTS, image_header, make_wcs

NY, NX = SHAPE
X, Y = (values.ravel() for values in np.meshgrid(np.linspace(-2, NX + 1, 5), np.linspace(-2, NY + 1, 4)))


def observe(wcs, beam: Beam | None = None) -> Observation:
    return Observation(
        pixels=PixelSource(Path("none.fits"), 0, SHAPE, ">f4", 2880),
        wcs=wcs,
        unit=None,
        beam=beam,
        frequency=None,
        header=fits.Header(),
        pixel_scale=PIXEL,
        path=Path("none.fits"),
    )


def on_sky(wcs, x, y) -> SkyCoord:
    """What astropy's own, slower transformation says."""
    if wcs.wcs.ctype[0].startswith("ELON"):
        lon, lat = wcs.all_pix2world(x, y, 0)
        return SkyCoord(lon * u.deg, lat * u.deg, frame="barycentricmeanecliptic").icrs
    return wcs.pixel_to_world(x, y).icrs


def circular(difference, period):
    return (np.asarray(difference) + period / 2) % period - period / 2


def test_positions_are_those_of_astropy(any_wcs):
    expected = on_sky(any_wcs, X, Y)
    ra, dec = observe(any_wcs).pixel_to_sky(X, Y)
    got = SkyCoord(ra * u.deg, dec * u.deg)
    assert got.separation(expected).max() < 1e-6 * u.arcsec
    assert ((ra >= 0) & (ra < 360)).all()


def test_positions_come_back(any_wcs):
    sky = observe(any_wcs)
    x, y = sky.sky_to_pixel(*sky.pixel_to_sky(X, Y))
    np.testing.assert_allclose(x, X, atol=1e-6)
    np.testing.assert_allclose(y, Y, atol=1e-6)


def test_angles_are_those_of_astropy(any_wcs):
    sky = observe(any_wcs)
    for theta in (0.0, 0.4, 1.5, 2.9):
        here = on_sky(any_wcs, X, Y)
        there = on_sky(any_wcs, X + 0.01 * np.cos(theta), Y + 0.01 * np.sin(theta))
        expected = here.position_angle(there).deg
        got = sky.theta_to_pa(X, Y, theta)
        assert ((got >= 0) & (got < 180)).all()
        np.testing.assert_allclose(circular(got - expected, 180), 0, atol=0.01)


def test_north_up_east_left_is_the_textbook_case():
    sky = observe(make_wcs())
    pa = np.array([0.0, 30.0, 90.0, 150.0])
    theta = np.degrees(sky.pa_to_theta(131.0, 55.5, pa))
    np.testing.assert_allclose(circular(theta - [90, 120, 0, 60], 180), 0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(WCS_VARIANTS)),
    st.floats(-5, NX + 5),
    st.floats(-5, NY + 5),
    st.floats(0, 180, exclude_max=True),
)
def test_angles_come_back(name, x, y, pa):
    sky = observe(WCS_VARIANTS[name]())
    theta = sky.pa_to_theta(x, y, pa)
    assert 0 <= theta < np.pi
    assert abs(circular(sky.theta_to_pa(x, y, theta) - pa, 180)) < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(WCS_VARIANTS)),
    st.floats(1, 50),
    st.floats(0.1, 1),
    st.floats(0, 180),
    st.floats(0, NX),
)
def test_ellipses_come_back(name, major, ratio, pa, x):
    sky = observe(WCS_VARIANTS[name]())
    back = sky.ellipse_to_sky(x, 20.0, *sky.ellipse_to_pixel(x, 20.0, major, major * ratio, pa))
    assert back[0] == pytest.approx(major, rel=1e-6) and back[1] == pytest.approx(major * ratio, rel=1e-6)
    if ratio < 0.99:
        assert abs(circular(back[2] - pa, 180)) < 1e-4


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 100), st.floats(0.01, 1), st.floats(-10, 10))
def test_shape_matrices_come_back(major, ratio, angle):
    big, small, turn = ellipse_axes(shape_matrix(major, major * ratio, angle))
    assert big == pytest.approx(major) and small == pytest.approx(major * ratio, rel=1e-5)
    if ratio < 0.99:
        assert abs(circular(turn - angle, np.pi)) < 1e-5


@pytest.mark.parametrize("name", [name for name in WCS_VARIANTS if name != "pixels not square"])
def test_square_pixels_keep_the_axes_and_turn_the_angle(name):
    sky = observe(WCS_VARIANTS[name]())
    major, minor, pa = sky.ellipse_to_sky(X, Y, 6.0, 4.0, 0.3)
    np.testing.assert_allclose(major, 6 * PIXEL, rtol=1e-3)
    np.testing.assert_allclose(minor, 4 * PIXEL, rtol=1e-3)
    np.testing.assert_allclose(circular(pa - sky.theta_to_pa(X, Y, 0.3), 180), 0, atol=0.2)


def test_pixels_not_square_change_the_axes():
    sky = observe(make_wcs(scale=(-2 * PIXEL, PIXEL)), Beam(6.0, 6.0))
    assert sky.beam_pixels() == pytest.approx((4.0, 2.0, np.pi / 2), rel=1e-4)
    upright = observe(make_wcs(scale=(-2 * PIXEL, PIXEL)), Beam(12.0, 6.0, 90.0))
    assert upright.beam_pixels()[:2] == pytest.approx((4.0, 4.0), rel=1e-3)


def test_the_beam_in_pixels(any_wcs):
    sky = observe(any_wcs, Beam(*BEAM))
    major, minor, theta = sky.beam_pixels()
    x, y = (NX - 1) / 2, (NY - 1) / 2
    area = abs(np.linalg.det(sky.jacobian(x, y)))
    assert major * minor * area == pytest.approx(BEAM[0] * BEAM[1], rel=1e-6)
    assert np.allclose(sky.ellipse_to_sky(x, y, major, minor, theta), BEAM)


def test_a_header_angle_counts_from_the_north_of_its_own_frame(tmp_path):
    wcs = WCS_VARIANTS["galactic"]()
    fits.PrimaryHDU(np.zeros(SHAPE, dtype=np.float32), image_header(wcs)).writeto(tmp_path / "a.fits")
    sky = open_image(tmp_path / "a.fits")
    # Galactic north is up in this image, so its angle is that of the textbook, whatever ICRS north does.
    assert np.degrees(sky.beam_pixels()[2]) == pytest.approx(90 + BEAM[2], abs=1e-3)
    centre = SkyCoord(18.0 * u.deg, 0.2 * u.deg, frame="galactic")
    north = centre.icrs.position_angle(SkyCoord(18.0 * u.deg, 0.3 * u.deg, frame="galactic").icrs).deg
    assert sky.beam.pa == pytest.approx((BEAM[2] + north) % 180, abs=0.05)


def test_positions_off_the_sky_are_nan(tmp_path):
    wcs = make_wcs(
        scale=(-3600.0 * 2, 3600.0 * 2),
        axes=("RA---AIT", "DEC--AIT"),
        centre=(0.0, 0.0),
        reference=(104.5, 74.5),
    )
    sky = observe(wcs)
    ra, dec = sky.pixel_to_sky([104.5, 0.0], [74.5, 0.0])
    assert np.isfinite([ra[0], dec[0]]).all() and np.isnan([ra[1], dec[1]]).all()
    assert np.isnan(sky.theta_to_pa(0.0, 0.0, 1.0)) and np.isnan(sky.pa_to_theta(0.0, 0.0, 1.0))
    sin = observe(make_wcs())
    assert np.isnan(sin.sky_to_pixel([53.1 + 180], [27.8])).all()


def test_a_corner_off_the_sky_opens_all_the_same(tmp_path):
    wcs = make_wcs(
        scale=(-3600.0 * 2, 3600.0 * 2),
        axes=("RA---AIT", "DEC--AIT"),
        centre=(0.0, 0.0),
        reference=(5.0, 5.0),
    )
    header = image_header(wcs, beam=(3e4, 2e4, 0.0))
    fits.PrimaryHDU(np.zeros(SHAPE, dtype=np.float32), header).writeto(tmp_path / "a.fits")
    sky = open_image(tmp_path / "a.fits")
    assert np.isnan(sky.pixel_to_sky(NX / 2, NY - 1)).all()
    assert np.isfinite(sky.beam_pixels()).all() and np.isfinite(sky.pixel_scale)


def test_shapes_of_arrays_are_kept():
    sky = observe(make_wcs(), Beam(*BEAM))
    grid = np.ones((3, 4))
    assert sky.pixel_to_sky(grid, 2.0)[0].shape == (3, 4)
    assert sky.sky_to_pixel(grid + 53, grid - 28)[1].shape == (3, 4)
    assert sky.theta_to_pa(grid, grid, 0.5).shape == (3, 4)
    assert sky.theta_to_pa(1.0, 2.0, grid).shape == (3, 4)
    assert [part.shape for part in sky.ellipse_to_sky(grid, grid, 3.0, 2.0, grid)] == [(3, 4)] * 3
    assert sky.pixel_to_sky([], [])[0].shape == (0,)
    assert sky.sky_to_pixel([], [])[0].shape == (0,)
    assert sky.theta_to_pa([], [], []).shape == (0,)
    assert np.ndim(sky.pixel_to_sky(1, 2)[0]) == 0
