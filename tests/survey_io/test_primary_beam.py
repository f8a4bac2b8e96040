"""The response of a primary beam at sources."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from survey_io import InputError, open_image
from survey_io.primary_beam import line_beam_gain, primary_beam_gain
from survey_io.simulate.continuum import simulate_continuum

SHAPE = (80, 100)


def response(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((y - 35.0) ** 2 + (x - 60.0) ** 2) / (2 * 30.0**2)).astype(np.float32)


def positions(path, x, y):
    return open_image(path).pixel_to_sky(np.array(x, float), np.array(y, float))


def test_response_at_positions_between_pixels(write_image) -> None:
    path = write_image(response(), BUNIT=None)
    x, y = np.random.default_rng(0).uniform(1, [[98], [78]], (2, 40))
    got = primary_beam_gain(path, *positions(path, x, y))
    np.testing.assert_allclose(got, np.exp(-((y - 35) ** 2 + (x - 60) ** 2) / 1800), rtol=2e-3)


def test_no_sources_have_no_gain(write_image) -> None:
    assert len(primary_beam_gain(write_image(response()), np.empty(0), np.empty(0))) == 0


def test_a_response_that_misses_sources_is_refused(write_image) -> None:
    path = write_image(response())
    ra, dec = positions(path, [50, 150, 20], [40, 40, -30])
    with pytest.raises(InputError, match="misses 2 of 3 sources") as caught:
        primary_beam_gain(path, ra, dec)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    # Half the last pixel still belongs to the image.
    x, y = [-0.4, 99.4], [79.4, -0.4]
    assert (primary_beam_gain(path, *positions(path, x, y)) > 0).all()


@pytest.mark.parametrize("value", [0.0, -0.3, np.nan])
def test_a_response_that_is_not_positive_at_a_source_is_refused(write_image, value: float) -> None:
    image = response()
    image[30:50, 40:60] = value
    path = write_image(image)
    for x, y in (([50, 10], [40, 10]), ([50], [40])):
        with pytest.raises(InputError, match=f"above 0 at every source.*blank at 1 of {len(x)} sources"):
            primary_beam_gain(path, *positions(path, x, y))


def test_blanks_do_not_ring_into_their_surroundings(write_image) -> None:
    # Imagers blank a response below some share of its maximum.
    image = response()
    image[image < 0.3] = np.nan
    path = write_image(image)
    y, x = np.nonzero(np.isfinite(image))
    got = primary_beam_gain(path, *positions(path, x, y))
    np.testing.assert_allclose(got, image[y, x], rtol=0.01)
    # Between the last two good pixels, too.
    row = 35
    edge = np.flatnonzero(np.isfinite(image[row]))[0] + 0.5
    got = primary_beam_gain(path, *positions(path, [edge], [row]))[0]
    assert got == pytest.approx(np.exp(-((edge - 60) ** 2) / 1800), rel=0.02)


def test_an_image_of_sources_is_no_primary_beam(tmp_path):
    sim = simulate_continuum((64, 64), seed=1)
    path = tmp_path / "sky.fits"
    fits.writeto(path, np.abs(sim.image), sim.header)
    with pytest.raises(InputError, match="about 1 at its centre"):
        primary_beam_gain(path, np.array([0.0]), np.array([-30.0]))


def test_a_cube_of_the_response_gives_each_line_that_of_its_channel(write_image, tmp_path) -> None:
    path = write_image(response())
    ra, dec = positions(path, [50, 20, 70], [40, 30, 55])
    flat = primary_beam_gain(path, ra, dec)
    assert line_beam_gain(path, ra, dec, np.array([1.3e9, 1.31e9, 1.5e9])) == pytest.approx(flat)
    header = fits.getheader(path)
    header["WCSAXES"] = 3
    header.update({"CTYPE3": "FREQ", "CRVAL3": 1.30e9, "CRPIX3": 1.0, "CDELT3": 1e7, "CUNIT3": "Hz"})
    shares = np.array([1.0, 0.9, 0.8], np.float32)
    fits.PrimaryHDU(response()[None] * shares[:, None, None], header).writeto(tmp_path / "cube.fits")
    got = line_beam_gain(tmp_path / "cube.fits", ra, dec, np.array([1.319e9, 1.301e9, 1.311e9]))
    assert got == pytest.approx(flat * shares[[2, 0, 1]], rel=1e-5)
    with pytest.raises(InputError, match="miss 1 of 3 sources"):
        line_beam_gain(tmp_path / "cube.fits", ra, dec, np.array([1.30e9, 1.31e9, 1.36e9]))
