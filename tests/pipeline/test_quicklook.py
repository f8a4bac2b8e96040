"""The pictures: written for any image, without warnings, with the sources where they are."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from matplotlib.image import imread

from pipeline.binning import bin_image, estimate_noise, stretch
from pipeline.quicklook import write_prediction_picture, write_quicklook
from survey_io.background import ArrayPixels
from survey_io.errors import OutputError
from survey_io.image import open_image


def write_image(path, image, *, ctype=("RA---SIN", "DEC--SIN"), beam=True, turn=0.0, centre=(187.3, -33.0)):
    header = fits.Header()
    for axis in (0, 1):
        header[f"CTYPE{axis + 1}"], header[f"CUNIT{axis + 1}"] = ctype[axis], "deg"
        header[f"CRVAL{axis + 1}"] = centre[axis]
        header[f"CRPIX{axis + 1}"] = image.shape[1 - axis] / 2
    c, s = np.cos(turn) / 3600, np.sin(turn) / 3600
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -c, s, s, c
    header["BUNIT"] = "Jy/beam"
    if beam:
        header["BMAJ"], header["BMIN"], header["BPA"] = 4 / 3600, 3 / 3600, 30.0
    fits.writeto(path, image.astype(np.float32), header)
    return open_image(path)


def catalogue(x, y, **extra):
    count = len(x)
    shape = {"maj": np.full(count, 5.0), "min": np.full(count, 4.0), "pa": np.full(count, 20.0)}
    worth = {"p_real": np.linspace(0, 1, count), "snr": np.linspace(50, 5, count)}
    return Table({"x": x, "y": y} | shape | worth | extra)


@pytest.fixture
def noise():
    return np.random.default_rng(1).normal(0, 1e-4, (300, 420))


def colourful(picture):
    """True for pixels that are neither grey nor blue-grey: rings and the colour bar."""
    return np.ptp(picture[..., :3], axis=-1) > 0.25


def test_crowded_image_gets_zooms_and_rings(tmp_path, noise):
    observation = write_image(tmp_path / "sky.fits", np.tile(noise, (2, 2)))
    rng = np.random.default_rng(2)
    table = catalogue(rng.uniform(0, 839, 300), rng.uniform(0, 599, 300))
    path = write_quicklook(observation, table, tmp_path / "look.png", max_size=1000)
    picture = imread(path)
    assert path == tmp_path / "look.png"
    assert 950 <= max(picture.shape[:2]) <= 1000
    body = picture[:, : int(0.9 * picture.shape[1])]
    empty = imread(write_quicklook(observation, table[:0], tmp_path / "none.png", max_size=1000))
    assert colourful(body).sum() > 2000
    assert colourful(empty).sum() == 0


def test_ring_is_drawn_where_the_source_is(tmp_path, noise):
    observation = write_image(tmp_path / "sky.fits", noise[:200, :200])
    place = {"maj": [30.0], "min": [30.0]}
    for x, y in ((30.0, 150.0), (150.0, 30.0)):
        picture = imread(write_quicklook(observation, catalogue([x], [y], **place), tmp_path / "look.png"))
        found_y, found_x = np.nonzero(colourful(picture[:, : int(0.88 * picture.shape[1])]))
        # The overview fills most of the picture, so halves of the image are halves of the picture.
        assert (found_x.mean() < picture.shape[1] / 2) == (x < 100)
        assert (found_y.mean() > picture.shape[0] / 2) == (y < 100)


@pytest.mark.parametrize(
    ("ctype", "turn", "centre"),
    [
        (("RA---SIN", "DEC--SIN"), 0.8, (0.0, 89.9)),
        (("GLON-CAR", "GLAT-CAR"), 0.0, (18.0, 0.0)),
        (("RA---AIT", "DEC--AIT"), 0.3, (10.0, 40.0)),
        (("DEC--TAN", "RA---TAN"), 0.0, (-20.0, 50.0)),
    ],
)
def test_any_projection(tmp_path, noise, ctype, turn, centre):
    observation = write_image(tmp_path / "sky.fits", noise, ctype=ctype, turn=turn, centre=centre)
    picture = imread(
        write_quicklook(observation, catalogue([40.0], [50.0]), tmp_path / "look.png", max_size=600)
    )
    assert max(picture.shape[:2]) <= 600


def test_blank_borders_no_beam_and_hostile_rows(tmp_path, noise):
    noise[:60] = np.nan
    noise[:, 350:] = np.nan
    observation = write_image(tmp_path / "s_$x_1$.fits", noise, beam=False)
    table = catalogue([100.0, np.nan, -40.0, 200.0], [100.0, 30.0, 5.0, 150.0])
    table["maj"], table["p_real"], table["snr"] = [np.nan, 5, 5, 0], [0.4, np.nan, np.nan, 7.0], np.nan
    assert write_quicklook(observation, table, tmp_path / "look.png").stat().st_size > 5000
    bare = Table({"x": np.ma.masked_array([10.0, 20.0], [True, False]), "y": [10.0, 20.0]})
    assert write_quicklook(observation, bare, tmp_path / "bare.png").stat().st_size > 5000


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_image(tmp_path, value):
    observation = write_image(tmp_path / "flat.fits", np.full((50, 40), value))
    assert write_quicklook(observation, catalogue([], []), tmp_path / "look.png", max_size=400).exists()


def test_errors_are_named(tmp_path, noise):
    observation = write_image(tmp_path / "sky.fits", noise)
    with pytest.raises(OutputError, match="writable"):
        write_quicklook(observation, catalogue([], []), tmp_path / "absent" / "look.png")
    with pytest.raises(ValueError, match="max_size"):
        write_quicklook(observation, catalogue([], []), tmp_path / "look.png", max_size=10)
    with pytest.raises(ValueError, match="columns x and y"):
        write_quicklook(observation, Table({"ra": [1.0]}), tmp_path / "look.png")


def test_prediction_picture(tmp_path, noise):
    truth = {"x": [50.0, 300.0], "y": [50.0, 200.0]}
    found = {"x": [51.0], "y": [50.5], "score": [0.8]}
    one = imread(write_prediction_picture(tmp_path / "one.png", noise, truth, found, title="step 10"))
    both = imread(
        write_prediction_picture(tmp_path / "two.png", noise, truth, found, probability=noise[::4, ::4] > 0)
    )
    assert both.shape[1] > 1.8 * one.shape[1]
    none = {key: [] for key in found}
    assert write_prediction_picture(tmp_path / "none.png", noise, {"x": [], "y": []}, none).exists()


def test_binning_averages_whatever_the_strips(monkeypatch):
    image = np.random.default_rng(0).normal(size=(103, 77)).astype(np.float32)
    image[:9, 10:20] = np.nan
    image[60:66, :] = np.nan
    whole, factor = bin_image(ArrayPixels(image), 4, 0.0)
    monkeypatch.setattr("pipeline.binning.STRIP_PIXELS", 700)
    strips, _ = bin_image(ArrayPixels(image), 4, 0.0)
    assert factor == 4 and whole.shape == (26, 20)
    np.testing.assert_allclose(whole, strips, rtol=1e-5, atol=1e-6)
    assert np.isnan(whole[15]).all() and np.isnan(whole[0, 3]) and np.isfinite(whole).sum() > 450
    mean = np.array(
        [[np.nanmean(image[4 * j : 4 * j + 4, 4 * i : 4 * i + 4]) for i in range(5)] for j in range(3, 9)]
    )
    np.testing.assert_allclose(whole[3:9, :5], stretch_like(image, mean), atol=1e-5)


def stretch_like(image, mean):
    """Stretch of `mean` with the level of the whole binned image."""
    rows, columns = 26, 20
    padded = np.full((4 * rows, 4 * columns), np.nan, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    blocks = padded.reshape(rows, 4, columns, 4).swapaxes(1, 2).reshape(rows, columns, 16)
    count = np.isfinite(blocks).sum(-1)
    binned = np.where(count > 0, np.nansum(blocks, -1) / np.maximum(count, 1), np.nan).astype(np.float32)
    return stretch(binned, floor=0.0)[3:9, :5]


def test_a_point_source_survives_binning():
    image = np.random.default_rng(0).normal(size=(640, 640)).astype(np.float32)
    image[333, 207] += 40
    noise = estimate_noise(ArrayPixels(image))
    shown, _ = bin_image(ArrayPixels(image), 16, noise)
    assert noise == pytest.approx(1, rel=0.05)
    assert shown[20, 12] == shown.max() and shown[20, 12] > 1.5 * np.delete(shown.ravel(), 20 * 40 + 12).max()


def test_noise_of_a_blank_image_is_zero():
    assert estimate_noise(ArrayPixels(np.full((300, 300), np.nan, np.float32))) == 0.0
