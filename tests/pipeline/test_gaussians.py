"""Elliptical Gaussians: forms, convolution and its inverse, areas, and the theory of fit errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gaussians import (
    FWHM_PER_SIGMA,
    BeamFrame,
    beam_area,
    convolve,
    covariance,
    deconvolve,
    ellipse,
    ellipse_of_quadratic_form,
    fit_theory,
    quadratic_form,
    shape_matrix,
    wrap_angle,
)

sizes = st.floats(0.5, 50)
ratios = st.floats(0.05, 1)
angles = st.floats(0, np.pi, exclude_max=True)


def angle_between(one: float, two: float) -> float:
    return abs((one - two + np.pi / 2) % np.pi - np.pi / 2)


def same_ellipse(one: tuple, two: tuple, tolerance: float) -> bool:
    """Ellipses whose shape matrices agree: angles of round ones do not matter."""
    p, q = np.array(shape_matrix(*one)), np.array(shape_matrix(*two))
    return bool(np.abs(p - q).max() <= tolerance * np.abs(q).max())


@given(sizes, ratios, angles)
def test_forms_round_trip(major: float, ratio: float, theta: float) -> None:
    given_ellipse = (major, major * ratio, theta)
    assert same_ellipse(ellipse(*shape_matrix(*given_ellipse)), given_ellipse, 1e-9)
    back = ellipse_of_quadratic_form(*quadratic_form(*given_ellipse))
    assert same_ellipse(back, given_ellipse, 1e-9)
    assert back[1] == pytest.approx(major * ratio, rel=1e-6)


@given(sizes, ratios, angles, sizes, ratios, angles)
def test_deconvolve_undoes_convolve(
    size: float, ratio: float, theta: float, beam: float, beam_ratio: float, beam_theta: float
) -> None:
    source, blur = (size, size * ratio, theta), (beam, beam * beam_ratio, beam_theta)
    apparent = convolve(source, blur)
    assert apparent[0] >= max(size * (1 - 1e-9), beam * (1 - 1e-9))
    found = deconvolve(apparent, blur)
    scale = float(apparent[0]) ** 2
    assert (
        np.abs(
            np.subtract(shape_matrix(found[0], found[1], np.nan_to_num(found[2])), shape_matrix(*source))
        ).max()
        <= 1e-7 * scale
    )
    if ratio < 0.8 and size > 0.3 * beam:
        assert angle_between(float(found[2]), theta) < 1e-4


def test_convolution_is_that_of_pixels() -> None:
    y, x = np.mgrid[-60:61, -60:61]

    def picture(major: float, minor: float, theta: float) -> np.ndarray:
        a, b, c = quadratic_form(major, minor, theta)
        return np.exp(-(a * x * x + 2 * b * x * y + c * y * y))

    one, two = (9.0, 5.0, 0.4), (7.0, 4.0, 2.1)
    blurred = np.fft.ifft2(np.fft.fft2(picture(*one)) * np.fft.fft2(np.fft.ifftshift(picture(*two)))).real
    expected = picture(*convolve(one, two))
    assert np.abs(blurred / blurred.max() - expected).max() < 1e-6


def test_angle_turns_from_x_to_y() -> None:
    a, b, c = quadratic_form(8.0, 4.0, np.deg2rad(30))
    along = np.exp(-(a * 3**2 + 2 * b * 3 * np.sqrt(3) + c * 3))
    mirrored = np.exp(-(a * 3**2 - 2 * b * 3 * np.sqrt(3) + c * 3))
    assert along > mirrored
    assert along == pytest.approx(2.0 ** (-4 * 12 / 64))


def test_deconvolved_point_source_and_line() -> None:
    beam = (4.0, 3.0, 0.3)
    assert deconvolve(beam, beam)[:2] == (0, 0)
    assert np.isnan(deconvolve(beam, beam)[2])
    smaller = deconvolve((3.5, 2.5, 0.3), beam)
    assert smaller[:2] == (0, 0)
    major, minor, theta = deconvolve((5.0, 2.9, 0.3), beam)
    assert (major, minor) == (pytest.approx(3.0), 0)
    assert theta == pytest.approx(0.3)


def test_area_is_the_integral() -> None:
    y, x = np.mgrid[-40:41, -40:41]
    a, b, c = quadratic_form(7.0, 4.0, 1.0)
    assert np.exp(-(a * x * x + 2 * b * x * y + c * y * y)).sum() == pytest.approx(float(beam_area(7.0, 4.0)))


@given(sizes, ratios, angles, ratios, angles)
def test_beam_frame_round_trip(
    major: float, ratio: float, theta: float, beam_ratio: float, beam_theta: float
) -> None:
    frame = BeamFrame((4.0, 4.0 * beam_ratio, beam_theta))
    shape = frame.shape(major, major * ratio, theta)
    assert same_ellipse(frame.ellipse(*shape), (major, major * ratio, theta), 1e-6)


def test_beam_is_the_unit_of_its_frame() -> None:
    frame = BeamFrame((5.0, 3.0, 0.7))
    assert np.allclose(frame.shape(5.0, 3.0, 0.7), 0, atol=1e-9)
    assert np.allclose(covariance(*(np.zeros(1),) * 3), [[1], [0], [1]])
    assert frame.pixels_per_area == pytest.approx(15 / FWHM_PER_SIGMA**2)


@pytest.mark.parametrize("beam", [(0.0, 0.0, 0.0), (3.0, 4.0, 0.0), (np.nan, 1.0, 0.0), (3.0, -1.0, 0.0)])
def test_impossible_beam(beam: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="expected a beam"):
        BeamFrame(beam)


def test_wrap_angle() -> None:
    assert wrap_angle(np.array([-1e-20, np.pi, -0.1, 7.0])) == pytest.approx(
        [0, 0, np.pi - 0.1, 7 - 2 * np.pi]
    )


def test_errors_approach_the_best_possible() -> None:
    """Known limits for a point source of S/N 1 in noise like its beam: any estimator, and uniform weights."""

    def errors(kappa: float) -> tuple[float, float]:
        theory = fit_theory(np.ones(1), np.ones(1), kappa, 10.0)
        position = np.sqrt(theory.position_noise[0, 0]) / theory.position_normal[0, 0]
        flux = np.sqrt(theory.even_noise[0, 0, 0]) / theory.even_normal[0, 0, 0]
        return float(position), float(flux)

    assert errors(0.0) == pytest.approx((4 / 3, np.sqrt(4 / 3)))
    assert errors(0.7) == pytest.approx((1, 1), rel=0.06)
    assert errors(0.9) == pytest.approx((1, 1), rel=0.01)


def test_theory_is_that_of_pixels() -> None:
    """The closed forms against sums over pixels, for an elongated source."""
    c1, c2, kappa, step = 3.0, 1.6, 0.5, 0.25
    axis = np.arange(-9, 9.01, step)
    u, v = (grid.ravel() for grid in np.meshgrid(axis, axis))
    model = np.exp(-(u * u / c1 + v * v / c2) / 2)
    weight = np.exp(-(u * u * kappa / (c1 * (c1 - kappa)) + v * v * kappa / (c2 * (c2 - kappa))) / 2)
    first, second = u * u / (2 * c1), v * v / (2 * c2)
    slopes = model * np.stack([np.ones_like(u), 2 * (first + second), first - second])
    normal = (slopes * weight) @ slopes.T
    kernel = np.exp(-(axis[:, None] ** 2) / 2 - axis[None] ** 2 / 2)
    shape = (axis.size, axis.size)
    large = (2 * axis.size, 2 * axis.size)
    weighted = (slopes * weight).reshape(3, *shape)
    moved = np.fft.irfft2(np.fft.rfft2(weighted, large) * np.fft.rfft2(kernel, large), large)
    half = axis.size // 2
    smooth = moved[:, half : half + axis.size, half : half + axis.size].reshape(3, -1)
    theory = fit_theory(np.array([c1]), np.array([c2]), kappa, 1 / step**2)
    assert theory.even_normal[0] == pytest.approx(normal, rel=1e-3)
    assert theory.even_noise[0] == pytest.approx(weighted.reshape(3, -1) @ smooth.T, rel=1e-3)
    assert theory.even_mixed[0] == pytest.approx(smooth @ slopes.T, rel=1e-3)
