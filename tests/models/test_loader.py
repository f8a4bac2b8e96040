"""Training fields: targets lie on their sources and keep their angles, however a field was turned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from models.beam import beam_vector
from models.detectors.light import LightDetector
from models.loader import (
    DEMANDED,
    Sky,
    SkyFields,
    crop_field,
    draw_sky,
    encode_targets,
    positive_radius,
)
from models.streams import make_loader
from models.yolo.assign import IGNORED
from survey_io.simulate import continuum as sim
from survey_io.simulate.render import FWHM_TO_SIGMA, covariance, ellipse

SIZE = 128
QUIET = sim.SkyModel(sidelobe_level=0.0)
HEAD = LightDetector(stem=4, width=8, wide=8).head


def planted_sky(beam=(4.0, 4.0, 0.0), *, flux=4e4, major=12.0, minor=4.0, theta=0.35) -> Sky:
    """A sky of 150 px with one source far from all its axes of symmetry."""
    values = {"x": 66.3, "y": 83.6, "flux": flux, "major": major, "minor": minor, "theta": theta}
    sources = sim.Sources(
        **{name: np.array([value]) for name, value in values.items()},
        kind=np.array([sim.GAUSSIAN]), core_fraction=np.zeros(1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    sky = sim.paint((150, 150), sources, QUIET, beam, rng)
    return Sky(sky, sim.noise_map((150, 150), QUIET, beam, rng), sources, beam, 1.0)


def moments(snr: np.ndarray, x: float, y: float, reach: int = 22) -> tuple[float, float, np.ndarray]:
    rows, columns = np.mgrid[: snr.shape[0], : snr.shape[1]]
    near = (abs(rows - y) <= reach) & (abs(columns - x) <= reach)
    weight = np.where(near & (snr > 5), snr, 0).astype(float)
    total = weight.sum()
    cx, cy = (weight * columns).sum() / total, (weight * rows).sum() / total
    dx, dy = columns - cx, rows - cy
    return cx, cy, np.array([(weight * a).sum() / total for a in (dx * dx, dx * dy, dy * dy)])


def turn(a: float, b: float) -> float:
    return abs((a - b + np.pi / 2) % np.pi - np.pi / 2)


def fields_of(sky: Sky, count: int):
    """Random fields that hold the planted source whole."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        snr, fields, beam = crop_field(sky, SIZE, rng)
        if len(fields["x"]) == 1 and snr[np.rint(fields["y"]).astype(int), np.rint(fields["x"]).astype(int)] > 20:
            blank = (snr == 0).sum()
            if blank < 10:
                yield snr, {name: float(value[0]) for name, value in fields.items()}, beam


def test_position_angle_and_size_survive_flips_and_turns() -> None:
    seen = set()
    for snr, fields, beam in fields_of(planted_sky(), 60):
        x, y, cov = moments(snr, fields["x"], fields["y"])
        assert abs(x - fields["x"]) < 0.3 and abs(y - fields["y"]) < 0.3
        assert turn(ellipse(cov)[2], fields["theta"]) < 0.05
        seen.add((round(fields["theta"] % np.pi, 3), fields["x"] > SIZE / 2, fields["y"] > SIZE / 2))
        target = encode_targets({name: np.array([value]) for name, value in fields.items()}, beam)
        params = target["params"][0]
        assert turn(0.5 * np.arctan2(params[4], params[3]), fields["theta"]) < 1e-6
        np.testing.assert_allclose(params[:3], np.log([fields["flux"], 12 / 4, 4 / 4]))
        np.testing.assert_allclose(target["centre"], [[fields["y"], fields["x"]]])
        # Moments above 5 sigma miss the faint wings only.
        np.testing.assert_allclose(target["size"][0], np.sqrt(cov[[2, 0]]) / FWHM_TO_SIGMA, rtol=0.05)
    # Four angles: as drawn, mirrored, and both turned by a right angle or transposed.
    assert len({angle for angle, _, _ in seen}) == 4 and len(seen) >= 7


def test_the_beam_turns_with_the_field() -> None:
    angles = set()
    for snr, fields, beam in fields_of(planted_sky((8.0, 4.0, 0.5), major=0.1, minor=0.1), 40):
        _, _, cov = moments(snr, fields["x"], fields["y"])
        assert turn(ellipse(cov)[2], beam[2]) < 0.05 and beam[:2] == (8.0, 4.0)
        assert 0 <= beam[2] < np.pi
        vector = beam_vector(beam)
        np.testing.assert_allclose(vector[:2], np.log([8, 4]), rtol=1e-6)
        assert np.hypot(*vector[2:]) == pytest.approx(0.5)
        assert turn(0.5 * np.arctan2(vector[3], vector[2]), beam[2]) < 1e-5
        angles.add(round(beam[2], 3))
    assert len(angles) == 4


def test_flux_and_signal_to_noise_follow_the_depth() -> None:
    expected = covariance(*(np.array(v) for v in (12.0, 4.0, 0.35)))
    expected = expected + covariance(*(np.array(v) for v in (4.0, 4.0, 0.0)))
    beam_area = (4 * FWHM_TO_SIGMA) ** 2 * 2 * np.pi
    fluxes = []
    for snr, fields, _ in fields_of(planted_sky(), 40):
        rows, columns = (slice(max(round(fields[a]) - 25, 0), round(fields[a]) + 26) for a in ("y", "x"))
        assert snr[rows, columns].sum() / beam_area == pytest.approx(fields["flux"], rel=0.05)
        peak = fields["flux"] * (4 * FWHM_TO_SIGMA) ** 2 / np.sqrt(expected[0] * expected[2] - expected[1] ** 2)
        assert fields["snr"] == pytest.approx(peak, rel=0.01)
        fluxes.append(fields["flux"])
    assert max(fluxes) > 2.5 * min(fluxes)


def test_blank_areas_are_zero_and_demand_nothing() -> None:
    rng, blanks = np.random.default_rng(3), 0
    skies = [draw_sky(220, rng) for _ in range(3)]
    for i in range(60):
        snr, fields, _ = crop_field(skies[i % 3], SIZE, rng)
        assert np.isfinite(snr).all() and snr.shape == (SIZE, SIZE) and snr.dtype == np.float32
        blank = snr == 0
        if blank.sum() < 4 * SIZE:
            continue
        blanks += 1
        inside = (abs(fields["x"] - 63.5) < 63) & (abs(fields["y"] - 63.5) < 63)
        y, x = (np.rint(fields[a][inside]).astype(int) for a in ("y", "x"))
        assert not blank[y, x].any()
    assert blanks > 0


def test_targets_lie_on_peaks_of_their_fields() -> None:
    rng, at, mirrored, stated = np.random.default_rng(5), [], [], []
    skies = [draw_sky(300, rng) for _ in range(6)]
    for i in range(48):
        snr, fields, _ = crop_field(skies[i % 6], SIZE, rng)
        y, x = fields["y"], fields["x"]
        good = (fields["snr"] > 8) & (abs(x - 63.5) < 60) & (abs(y - 63.5) < 60)
        at.append(map_coordinates(snr, [y[good], x[good]], order=1))
        mirrored.append(map_coordinates(snr, [y[good], 127 - x[good]], order=1))
        stated.append((fields["snr"] / skies[i % 6].gain)[good])
    at, mirrored, stated = (np.concatenate(v) for v in (at, mirrored, stated))
    assert len(at) > 100
    # The brightest pixel of a double is not its centroid, and neighbours overlap: hence shares, not all.
    assert np.mean(at > 0.7 * stated) > 0.85
    assert np.median(at / stated) == pytest.approx(1.0, abs=0.12)
    assert np.mean(mirrored > 0.7 * stated) < 0.3


@pytest.fixture(scope="module")
def batch():
    fields = SkyFields(HEAD, batch=6, size=SIZE, seed=2, sky_size=220)
    return next(iter(fields))


def test_a_batch_has_the_promised_shapes(batch) -> None:
    snr, beam, assigned, targets = batch
    assert snr.shape == (6, 1, SIZE, SIZE) and snr.dtype == torch.float32
    assert beam.shape == (6, 4) and assigned.shape == (6, 4, 32, 32) and assigned.dtype == torch.int64
    rows = {name: len(value) for name, value in targets.items()}
    assert len(set(rows.values())) == 1 and set(rows) == {"centre", "size", "beam", "params", "param_weight"}
    assert all(torch.isfinite(value).all() for value in targets.values())
    assert assigned.max() < rows["centre"] and assigned.min() >= IGNORED


def test_anchors_answer_for_the_target_beside_them(batch) -> None:
    snr, beam, assigned, targets = batch
    anchors = torch.from_numpy(HEAD.anchor_positions((32, 32)))
    image, *where = torch.nonzero(assigned >= 0, as_tuple=True)
    row = assigned[(image, *where)]
    fwhm = torch.exp(beam[:, :2].mean(dim=1))[image]
    torch.testing.assert_close(targets["beam"][row], fwhm, rtol=1e-4, atol=1e-4)
    distance = (anchors[tuple(where)] - targets["centre"][row]).norm(dim=1)
    limit = torch.tensor([max(positive_radius(float(f)), 0.51 * np.sqrt(2) * 2) for f in fwhm])
    assert (distance <= limit + 1e-4).all()
    # Nearly all targets inside of a field have an anchor, each row belongs to one field, and there is signal.
    inside = ((targets["centre"] > 0) & (targets["centre"] < SIZE - 1)).all(dim=1)
    assert inside[row].float().mean() > 0.95
    assert len(row[inside[row]].unique()) > 0.9 * inside.sum()
    assert all(len(image[row == r].unique()) == 1 for r in row.unique())
    y, x = (anchors[tuple(where)][:, i].round().long().clamp(0, SIZE - 1) for i in (0, 1))
    values = snr[image, 0, y, x]
    assert values.mean() > 5 and values.median() > 2


def test_sources_in_the_ignore_band_are_neither_targets_nor_background() -> None:
    fields = SkyFields(HEAD, batch=8, size=SIZE, seed=2)
    # Between a depth of 0.4 and 2 this source passes from below the band to above it.
    sky = planted_sky(flux=2.0, major=0.1, minor=0.1)
    _, _, assigned, targets = fields.make_batch([sky], np.random.default_rng(4))
    demanded = {int(i) for i in torch.nonzero(assigned >= 0)[:, 0]}
    ignored = {int(i) for i in torch.nonzero(assigned == IGNORED)[:, 0]}
    assert demanded and ignored and not demanded & ignored
    assert len(targets["centre"]) >= len(demanded)
    assert (targets["params"][:, 0].exp() > 0.9 * DEMANDED).all()


def test_the_seed_decides_the_batches() -> None:
    def first(seed: int):
        return next(iter(SkyFields(HEAD, batch=2, size=64, seed=seed, sky_size=128)))

    one, again, other = first(1), first(1), first(2)
    torch.testing.assert_close(one[0], again[0], rtol=0, atol=0)
    assert torch.equal(one[2], again[2]) and not torch.equal(one[0], other[0])


def test_the_pool_fills_and_is_renewed() -> None:
    source = iter(SkyFields(HEAD, batch=2, size=64, seed=1, sky_size=128, pool=9, renew=2))
    beams = np.concatenate([next(source)[1].numpy() for _ in range(40)])
    # Mirrored beams are alike in size; more sizes than the pool holds means that it was renewed.
    assert len(np.unique(np.round(beams[:, :2], 4), axis=0)) > 12


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_again_from_any_number_on(workers: int) -> None:
    def batches(count: int, first: int) -> list:
        # The pool fills, and is renewed before the fifth batch.
        fields = SkyFields(HEAD, batch=2, size=64, seed=1, sky_size=128, pool=10, renew=2, first=first)
        loader = make_loader(fields, workers)
        return list(itertools.islice(loader, count))

    whole = batches(8, 0)
    assert len({float(batch[0].sum()) for batch in whole}) == 8
    for number in (5, 6):
        for before, again in zip(whole[number:], batches(8 - number, number), strict=True):
            assert all(torch.equal(one, other) for one, other in zip(before[:3], again[:3], strict=True))
            assert all(torch.equal(before[3][name], again[3][name]) for name in before[3])
