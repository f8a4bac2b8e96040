"""Fields cut out of real images: targets lie on their sources and keep their angles, and parts stay apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detectors.light import LightDetector
from models.survey_fields import Band, RealSky, SurveyFields, turn
from models.visibility import USUAL
from models.yolo.assign import IGNORED
from survey_io.datasets.survey import PixelSources
from survey_io.simulate.render import add_gaussians, covariance, ellipse

HEAD = LightDetector(stem=4, width=8, wide=8).head
SIZE = 64
BEAM = (4.0, 3.0, 0.5)
# x, y, peak S/N, major, minor, theta: the first is out of the part that is trained on, the last can hardly be seen.
PLANTED = np.array(
    [
        [20.3, 30.8, 60, 6.0, 2.0, 0.4],
        [55.6, 150.2, 80, 7.0, 1.5, 1.1],
        [84.1, 190.7, 50, 5.0, 2.5, 2.6],
        [40.2, 178.0, 2.3, 0.5, 0.5, 0.0],
        [70.0, 130.0, 0.5, 0.5, 0.5, 0.0],
    ]
).T


def planted(noise: float = 0.0) -> RealSky:
    """An image of 230 x 110 px of which rows from 100 on may be learned from."""
    x, y, snr, major, minor, theta = PLANTED
    cov = covariance(major, minor, theta) + covariance(*(np.array([v]) for v in BEAM))
    beam = covariance(*(np.array([v]) for v in BEAM))
    area = np.sqrt((cov[0] * cov[2] - cov[1] ** 2) / (beam[0] * beam[2] - beam[1] ** 2))
    image = np.random.default_rng(2).normal(0, noise, (230, 110)).astype(np.float32)
    add_gaussians(image, x, y, snr, cov)
    image[200:206, 3:9] = np.nan
    usable = np.zeros(image.shape, bool)
    usable[100:] = True
    usable &= np.isfinite(image)
    sources = PixelSources(x, y, snr * area, major, minor, theta, snr, np.arange(len(x)))
    return RealSky(image, sources, BEAM, usable, [(slice(100, 230), slice(0, 110))])


def make(sky: RealSky | None = None, **changes) -> SurveyFields:
    values = {"share": 1.0, "batch": 3, "size": SIZE, "seed": 5, "band": Band(0.25, 0.05), "visibility": USUAL}
    return SurveyFields(HEAD, [sky or planted()], **{**values, **changes})


def apart(a, b) -> np.ndarray:
    return np.abs((np.asarray(a) - np.asarray(b) + np.pi / 2) % np.pi - np.pi / 2)


@settings(max_examples=60, deadline=None)
@given(
    code=st.integers(0, 7), x=st.floats(22, 41), y=st.floats(22, 41), theta=st.floats(0, np.pi),
    major=st.floats(6, 9), ratio=st.floats(0.3, 0.7),
)  # fmt: skip
def test_a_turned_source_keeps_its_place_and_angle(code, x, y, theta, major, ratio) -> None:
    image = np.zeros((SIZE, SIZE), np.float32)
    cov = covariance(*(np.array([v]) for v in (major, major * ratio, theta)))
    add_gaussians(image, np.array([x]), np.array([y]), np.array([100.0]), cov)
    turned, tx, ty, (angle,) = turn(image, np.array([x]), np.array([y]), (np.array([theta]),), code)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    total = turned.sum()
    cx, cy = (turned * columns).sum() / total, (turned * rows).sum() / total
    assert (cx, cy) == pytest.approx((tx[0], ty[0]), abs=0.02)
    dx, dy = columns - cx, rows - cy
    measured = ellipse(np.array([(turned * a).sum() / total for a in (dx * dx, dx * dy, dy * dy)]))
    assert apart(measured[2], angle[0]) < 0.02
    # An angle a rounding below 0 is pi modulo pi.
    assert 0 <= angle[0] <= np.pi


def test_all_eight_symmetries_differ_and_four_are_rotations() -> None:
    image = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    turned = [turn(image, np.zeros(1), np.zeros(1), (), code)[0] for code in range(8)]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(turned, 2))
    rotations = [np.rot90(image, k) for k in range(4)]
    assert sum(any(np.array_equal(one, other) for other in rotations) for one in turned) == 4


def test_targets_of_an_unturned_field() -> None:
    """A field at a corner that is neither square to the image nor at its origin, reaching over its border."""
    fields = make()
    field = fields.cut_real(0, (130, 30), None)
    demanded = np.flatnonzero(~field.ignore)
    centre = field.target["centre"][demanded]
    wanted = PLANTED[:2, [1, 2]].T[:, ::-1] - (130, 30)
    np.testing.assert_allclose(centre[np.argsort(centre[:, 0])], wanted[np.argsort(wanted[:, 0])])
    first = demanded[np.argmin(centre[:, 0])]
    params = field.target["params"][first]
    assert np.exp(params[0]) == pytest.approx(fields.skies[0].sources.flux[1])
    assert np.exp(params[1:3]) * np.sqrt(12) == pytest.approx([7.0, 1.5])
    assert apart(0.5 * np.arctan2(params[4], params[3]), 1.1) < 1e-6
    # The faint source is ignored, the invisible one is background.
    anchors = fields.anchors
    near = [np.hypot(*(anchors - (y - 130, x - 30)).T) < 1.4 for x, y in PLANTED[:2, 3:].T]
    assert (field.found[near[0]] == IGNORED).all() and near[0].any()
    peak = field.snr[tuple(np.rint(centre[0]).astype(int))]
    assert peak > 40
    # Outside of the image and on blanks there is nothing.
    over = fields.cut_real(0, (190, -10), None)
    assert (over.snr[:, :10] == 0).all() and (over.snr[40:] == 0).all() and (over.snr[10:16, 13:19] == 0).all()


def test_what_lies_outside_the_part_is_never_learned() -> None:
    """Anchors outside of it have no say, neither for a source nor against one."""
    fields = make(band=Band(0.25, 0.0))
    field = fields.cut_real(0, (60, 20), None)
    y = field.found.reshape(HEAD.boxes, -1)
    rows = fields.anchors[:, 0].reshape(HEAD.boxes, -1) + 60
    assert (y[rows < 99.4] == IGNORED).all() and (y[rows > 100.6] != IGNORED).any()
    assert field.ignore[np.flatnonzero(field.target["centre"][:, 0] + 60 < 90)].all()
    rng = np.random.default_rng(0)
    for _ in range(30):
        y0, x0 = fields.place(fields.skies[0], rng)
        window = fields.skies[0].usable[max(y0, 0) : y0 + SIZE, max(x0, 0) : x0 + SIZE]
        assert window.mean() > 0.2


def test_augmented_fields_hold_their_sources() -> None:
    """After turns and noise the pixels of a demanded source still hold its peak, and the beam turns with the field."""
    fields = make()
    rng = np.random.default_rng(4)
    seen = 0
    for _ in range(40):
        field = fields.cut_real(0, (125, 25), rng)
        for row in np.flatnonzero(~field.ignore):
            centre = field.target["centre"][row]
            if ((centre > 6) & (centre < SIZE - 7)).all():
                y, x = np.rint(centre).astype(int)
                flux = np.exp(field.target["params"][row, 0])
                assert 0.5 * flux / 6 < field.snr[y - 1 : y + 2, x - 1 : x + 2].max() < flux
                seen += 1
        # The larger axis stays the larger; its angle is one of the beam's eight images.
        options = [(s * BEAM[2] + k * np.pi / 2) % np.pi for s in (1, -1) for k in (0, 1)]
        assert min(apart(field.beam[2], option) for option in options) < 1e-9
    assert seen > 30


def test_added_noise_lowers_what_is_demanded() -> None:
    quiet = planted()
    fields = make(quiet, band=Band(0.9, 0.05))
    noise = fields.noise_of(0, np.random.default_rng(0))
    assert noise.shape == (SIZE, SIZE) and noise.std() == pytest.approx(1.0, abs=0.15)
    # Neighbouring pixels go together as the beam makes them: exp(-4 ln 2 / (2 * 3.5^2)) of a Gaussian kernel.
    assert 0.7 < np.mean(noise[:, 1:] * noise[:, :-1]) / noise.var() < 0.97
    fluxes = {
        round(float(np.exp(field.target["params"][row, 0])), 3)
        for _ in range(12)
        for field in [fields.cut_real(0, (125, 25), np.random.default_rng(_))]
        for row in np.flatnonzero(~field.ignore)
    }
    assert len(fluxes) > 6 and max(fluxes) <= quiet.sources.flux.max() * 1.15


def test_batches_depend_on_their_number_only() -> None:
    def take(fields: SurveyFields, count: int) -> list:
        return list(itertools.islice(iter(fields), count))

    whole = take(make(share=0.5), 4)
    later = take(make(share=0.5, first=1, every=2), 2)
    for one, other in zip(whole[1::2], later, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[2], other[2])
        assert all(torch.equal(one[3][name], other[3][name]) for name in one[3])
    assert not torch.equal(whole[0][0], whole[2][0])
    snr, beam, assigned, targets = whole[0]
    assert snr.shape == (3, 1, SIZE, SIZE) and beam.shape == (3, 4) and assigned.shape == (3, 4, 16, 16)
    assert assigned.max() < len(targets["centre"])
