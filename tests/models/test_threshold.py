"""The detector without weights on planted skies: completeness, false rows, tiling, blanks, blends."""

import numpy as np
import pytest

from models.detectors import threshold
from models.detectors.threshold import KEYS, ThresholdDetector, score_from_snr
from models.registry import get_model

FWHM = 2 * np.sqrt(2 * np.log(2))
BEAM = (4.0, 3.2, 0.6)


def covariance(major, minor, theta):
    c, s = np.cos(theta), np.sin(theta)
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag([major**2, minor**2]) @ turn.T / FWHM**2


def add_source(image, x, y, peak, shape):
    inverse = np.linalg.inv(shape)
    dy, dx = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
    dx, dy = dx - x, dy - y
    image += peak * np.exp(
        -0.5 * (inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2)
    )


def noise(shape, seed):
    """Unit noise with the beam's autocorrelation: white noise under a kernel of beam / sqrt 2."""
    white = np.random.default_rng(seed).standard_normal(shape)
    kernel = covariance(*BEAM) / 2
    ky, kx = 2 * np.pi * np.fft.fftfreq(shape[0])[:, None], 2 * np.pi * np.fft.rfftfreq(shape[1])
    filtered = np.exp(-0.5 * (kernel[0, 0] * kx**2 + 2 * kernel[0, 1] * kx * ky + kernel[1, 1] * ky**2))
    out = np.fft.irfft2(np.fft.rfft2(white) * filtered, s=shape)
    return out / out.std()


@pytest.fixture(scope="module")
def planted():
    """Non-square noise with a grid of beams of S/N 4 to 40; (image float32, truth (N, 3): x, y, peak)."""
    rng = np.random.default_rng(3)
    image = noise((520, 440), 1)
    truth = []
    for y in range(20, 510, 26):
        for x in range(20, 430, 26):
            truth.append(
                (x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5), 4 * 10 ** rng.uniform(0, 1))
            )
    for x, y, peak in truth:
        lo_x, lo_y = int(x) - 12, int(y) - 12
        part = np.zeros((25, 25))
        add_source(part, x - lo_x, y - lo_y, peak, covariance(*BEAM))
        rows, columns = slice(max(lo_y, 0), lo_y + 25), slice(max(lo_x, 0), lo_x + 25)
        image[rows, columns] += part[: image[rows, columns].shape[0], : image[rows, columns].shape[1]]
    return image.astype(np.float32), np.array(truth)


def matched(found, truth, radius=2.0):
    """For each truth row the index of the nearest detection, -1 where none is within `radius` px."""
    if found["x"].size == 0:
        return np.full(len(truth), -1)
    distance = np.hypot(truth[:, :1] - found["x"], truth[:, 1:2] - found["y"])
    return np.where(distance.min(1) < radius, distance.argmin(1), -1)


def test_completeness_and_false_rows(planted):
    image, truth = planted
    found = ThresholdDetector(4.0).find(image, BEAM)
    index = matched(found, truth)
    bright = truth[:, 2] > 6
    assert (index[bright] >= 0).mean() > 0.97
    assert (index[(truth[:, 2] > 5) & ~bright] >= 0).mean() > 0.75
    assert found["x"].size - np.unique(index[index >= 0]).size <= 0.06 * found["x"].size


def test_measured_values(planted):
    image, truth = planted
    found = ThresholdDetector(4.0).find(image, BEAM)
    index = matched(found, truth)
    good = (index >= 0) & (truth[:, 2] > 15)
    row = index[good]
    assert np.median(np.hypot(found["x"][row] - truth[good, 0], found["y"][row] - truth[good, 1])) < 0.15
    assert abs(np.median(found["peak_snr"][row] / truth[good, 2]) - 1) < 0.04
    assert abs(np.median(found["flux_snr"][row] / truth[good, 2]) - 1) < 0.05
    assert abs(np.median(found["major"][row]) / BEAM[0] - 1) < 0.1
    assert abs(np.median(found["minor"][row]) / BEAM[1] - 1) < 0.1


@pytest.mark.parametrize(("major", "minor", "theta"), [(6.0, 4.5, 0.3), (8.0, 4.0, 1.9), (10.0, 7.0, 3.0)])
def test_noise_free_gaussian_is_measured_exactly(major, minor, theta):
    image = np.zeros((80, 90))
    add_source(image, 41.3, 37.8, 50.0, covariance(major, minor, theta))
    found = ThresholdDetector(4.0).find(image.astype(np.float32), BEAM)
    assert found["x"] == pytest.approx([41.3], abs=0.02) and found["y"] == pytest.approx([37.8], abs=0.02)
    assert found["peak_snr"] == pytest.approx([50], rel=0.01)
    assert found["major"] == pytest.approx([major], rel=0.02) and found["minor"] == pytest.approx(
        [minor], rel=0.02
    )
    assert np.sin(found["theta"] - theta) == pytest.approx([0], abs=0.03)
    assert found["flux_snr"] == pytest.approx([50 * major * minor / (BEAM[0] * BEAM[1])], rel=0.03)


@pytest.mark.parametrize(("height", "width"), [(97, 113), (64, 440), (520, 71)])
def test_any_tiling_gives_the_same_rows(planted, height, width):
    image, _ = planted
    image = image.copy()
    image[:, :30] = np.nan
    image[200:215, 300:330] = np.nan
    rng = np.random.default_rng(4)
    image[rng.integers(0, 520, 60), rng.integers(0, 440, 60)] -= rng.uniform(5, 20, 60).astype(np.float32)
    detector = ThresholdDetector(3.5, beam_range=BEAM[0])
    whole = detector.find(image, BEAM)
    halo = detector.receptive_field // 2
    padded = np.pad(image, halo, constant_values=np.nan)
    parts = []
    for y0 in range(0, image.shape[0], height):
        for x0 in range(0, image.shape[1], width):
            part = detector.find(padded[y0 : y0 + height + 2 * halo, x0 : x0 + width + 2 * halo], BEAM)
            own_y, own_x = np.rint(part["y"]) - halo, np.rint(part["x"]) - halo
            # The owner is the core that holds the peak's pixel; no peak lies at exactly .5 here.
            own = (own_y >= 0) & (own_x >= 0) & (own_y < height) & (own_x < width)
            own &= (own_y + y0 < image.shape[0]) & (own_x + x0 < image.shape[1])
            part["x"], part["y"] = part["x"] + x0 - halo, part["y"] + y0 - halo
            parts.append({key: value[own] for key, value in part.items()})
    tiled = {key: np.concatenate([part[key] for part in parts]) for key in KEYS}
    order, reference = np.lexsort((tiled["x"], tiled["y"])), np.lexsort((whole["x"], whole["y"]))
    assert whole["x"].size > 200
    for key in KEYS:
        np.testing.assert_allclose(
            tiled[key][order], whole[key][reference], rtol=1e-9, atol=1e-9, err_msg=key
        )


def test_pure_noise_and_its_negative_give_few_rows_alike():
    detector = ThresholdDetector(3.5)
    counts = np.array(
        [
            [
                detector.find((sign * noise((700, 900), seed)).astype(np.float32), BEAM)["x"].size
                for sign in (1, -1)
            ]
            for seed in range(4)
        ]
    )
    positive, negative = counts.sum(0)
    beams = 4 * 700 * 900 / (1.1331 * BEAM[0] * BEAM[1])
    # Maxima above u = 3.5 per beam area: u exp(-u^2 / 2) / sqrt(2 pi); filter and deblending thin them.
    expected = beams * 3.5 * np.exp(-0.5 * 3.5**2) / np.sqrt(2 * np.pi)
    assert 0.3 * expected < positive < 1.1 * expected
    assert abs(positive - negative) < 4 * np.sqrt(positive + negative)


def test_noise_rarely_scores_high():
    scores = np.concatenate(
        [
            ThresholdDetector(3.5).find(noise((700, 900), seed).astype(np.float32), BEAM)["score"]
            for seed in range(4)
        ]
    )
    assert (scores > 0.9).sum() <= 3
    assert (scores < 0.5).mean() > 0.8


@pytest.mark.parametrize(("separation", "count"), [(0.3, 1), (1.8, 2), (2.5, 2)])
def test_two_sources_are_split_when_apart(separation, count):
    image = np.zeros((60, 60))
    add_source(image, 26.0, 30.0, 40.0, covariance(*BEAM))
    add_source(image, 26.0 + separation * BEAM[0], 30.0, 25.0, covariance(*BEAM))
    assert ThresholdDetector(4.0).find(image.astype(np.float32), BEAM)["x"].size == count


def test_a_bright_extended_source_is_not_shredded():
    image = noise((400, 400), 5)
    for y in range(40, 400, 80):
        for x in range(40, 400, 80):
            add_source(image, x, y, 30.0, covariance(12.0, 9.0, 0.4))
    found = ThresholdDetector(4.5).find(image.astype(np.float32), BEAM)
    assert 25 <= found["x"].size <= 30
    shredded = ThresholdDetector(4.5, saddle_sigma=0, saddle_fraction=0, min_separation=0)
    assert shredded.find(image.astype(np.float32), BEAM)["x"].size > found["x"].size


def test_sidelobes_of_a_bright_source_score_low(monkeypatch):
    image = noise((300, 300), 2)
    y, x = np.mgrid[:300, :300]
    radius = np.hypot(x - 150, y - 150)
    image += np.where(radius > 6, 8 * np.cos(2 * np.pi * radius / 12) * np.exp(-radius / 40), 0)
    add_source(image, 150, 150, 1000.0, covariance(*BEAM))
    found = ThresholdDetector(4.0).find(image.astype(np.float32), BEAM)
    sure = found["score"] > 0.5
    assert np.hypot(found["x"][sure] - 150, found["y"][sure] - 150).min() < 0.5
    monkeypatch.setattr(threshold, "ARTEFACT_SLOPE", 0.0)
    trusting = ThresholdDetector(4.0).find(image.astype(np.float32), BEAM)["score"] > 0.5
    assert trusting.sum() > 40 and sure.sum() < 0.2 * trusting.sum()


def test_blank_pixels_and_empty_windows():
    detector = ThresholdDetector()
    image = np.full((50, 40), np.nan, dtype=np.float32)
    assert detector.find(image, BEAM)["x"].size == 0
    image[10:30, 10:30] = 0
    image[10, 29] = 50  # the corner of the valid part
    found = detector.find(image, BEAM)
    assert (found["x"][0], found["y"][0]) == (29, 10)
    assert all(np.isfinite(values).all() for values in found.values())
    assert detector.find(np.empty((0, 7), np.float32), BEAM)["x"].size == 0


def test_equal_pixels_count_once():
    image = np.zeros((40, 40), dtype=np.float32)
    image[20, 20:22] = 30
    assert ThresholdDetector(4.0, filter_beam=0).find(image, BEAM)["x"].size == 1


def test_score_rises_and_stays_a_probability():
    u = np.concatenate([np.linspace(2.2, 8, 400), np.geomspace(8.1, 1e5, 400)])
    score = score_from_snr(u)
    assert (np.diff(score) > 0).all() and (score > 0).all() and (score < 1).all()
    assert score_from_snr(np.array([4.0]))[0] < 0.5 < score_from_snr(np.array([5.0]))[0]


@pytest.mark.parametrize(
    ("options", "word"), [({"threshold": 1.0}, "threshold"), ({"saddle_sigma": -1}, "saddle")]
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        ThresholdDetector(**options)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="shape"):
        ThresholdDetector().find(np.zeros(5, np.float32), BEAM)
    with pytest.raises(ValueError, match="beam_range"):
        ThresholdDetector(beam_range=3).find(np.zeros((9, 9), np.float32), BEAM)


def test_is_registered():
    entry = get_model("threshold")
    assert not entry.has_weights and isinstance(entry(threshold=5.0), ThresholdDetector)
