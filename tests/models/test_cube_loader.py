"""Training fields of cubes: targets lie on their galaxies, and angles follow every flip, that of the channels too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import cube_loader
from models.cube_loader import DEMANDED, CubeFields, HiCube, crop_cube, draw_cube, draw_model, encode_lines
from models.registry import get_model
from models.yolo.assign import BACKGROUND, IGNORED
from survey_io.simulate import hi
from survey_io.spectral import HI_REST_FREQUENCY, LIGHT

SIZE = (96, 40, 40)
MODEL = hi.HiModel(shape=(128, 60, 60), noise_fall=0.0, lopsided=0.0, warp=0.0, hole=0.0, variety=0.0)


@pytest.fixture(scope="module")
def head():
    return get_model("light3d").build(stem=4, width=8, wide=8, dilations=(1,)).head


@pytest.fixture(scope="module")
def planted() -> HiCube:
    """A bright, large, inclined galaxy off all axes of symmetry, hardly any noise."""
    galaxy = hi.Galaxies(
        x=np.array([25.3]), y=np.array([33.1]), z=np.array([70.2]), flux=np.array([2000.0]), size=np.array([26.0]),
        w20=np.array([260.0]), pa=np.array([25.0]), inclination=np.array([65.0]), snr=np.zeros(1),
    )  # fmt: skip
    sky = hi.paint_galaxies(MODEL, galaxy) / MODEL.rms
    per_channel = LIGHT * MODEL.channel_width * HI_REST_FREQUENCY / MODEL.frequency(galaxy.z) ** 2
    fields = {
        "x": galaxy.x, "y": galaxy.y, "z": galaxy.z, "snr": galaxy.snr, "flux": galaxy.flux / 30e3 / MODEL.rms,
        "size": galaxy.size / 2.8, "w20": galaxy.w20 / per_channel, "inclination": np.radians(galaxy.inclination),
        "low": np.radians(galaxy.pa) + np.pi / 2,
    }  # fmt: skip
    noise = np.random.default_rng(0).normal(0, 1e-3, sky.shape).astype(np.float32)
    return HiCube(sky, noise, fields, MODEL.beam_px)


def test_what_is_told_is_what_is_painted(planted, monkeypatch):
    """Centre, flux and the side of the low channels of whole galaxies, in fields turned in every way."""
    monkeypatch.setattr(cube_loader, "BASELINE_SHARE", 0.0)
    rng = np.random.default_rng(3)
    turns = set()
    for _ in range(80):
        snr, g, beam = crop_cube(planted, SIZE, rng)
        if len(g["x"]) != 1 or (snr == 0).all(axis=(1, 2)).any() or (snr == 0).all(axis=(0, 2)).any():
            continue
        z, y, x = np.ogrid[tuple(slice(0, n) for n in SIZE)]
        weight = np.where(snr > 0.02, snr, 0)
        total = weight.sum()
        flux = total / (np.pi / (4 * np.log(2)) * beam[0] ** 2)
        if flux < 0.97 * g["flux"][0]:
            continue
        centre = [float((weight * axis).sum() / total) for axis in (z, y, x)]
        assert centre == pytest.approx([g["z"][0], g["y"][0], g["x"][0]], abs=0.5)
        assert flux == pytest.approx(g["flux"][0], rel=0.12)
        low = weight * (z < g["z"][0])
        dx, dy = ((low * axis).sum() / low.sum() - c for axis, c in ((x, centre[2]), (y, centre[1])))
        turn = (np.arctan2(dy, dx) - g["low"][0] + np.pi) % (2 * np.pi) - np.pi
        assert abs(turn) < np.radians(6)
        turns.add(round(float(np.degrees(g["low"][0]) % 360)))
    # Four quadrants, each with and without the exchange of x and y.
    assert len(turns) == 8


def test_extent_is_that_of_the_light(planted, head):
    target = encode_lines({k: v for k, v in planted.galaxies.items()}, planted.beam_px, head)
    light = planted.sky.sum(axis=0)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    spread = [
        2.355 * np.sqrt((light * (axis - (light * axis).sum() / light.sum()) ** 2).sum() / light.sum())
        for axis in (y, x)
    ]
    assert target["size"][0, 1:] == pytest.approx(spread, rel=0.3)
    assert target["size"][0, 0] == pytest.approx(planted.galaxies["w20"][0])
    assert target["params"][0, 2] == pytest.approx(np.log(planted.galaxies["w20"][0] / 16))


def test_batches_are_whole_and_repeat(head):
    def first(seed):
        fields = CubeFields(head, batch=3, size=(64, 24, 24), seed=seed, pool=4, cube_shape=(80, 48, 48))
        source = iter(fields)
        return [next(source) for _ in range(2)]

    one, same, other = first(3), first(3), first(2)
    snr, beam, assigned, targets = one[1]
    assert snr.shape == (3, 1, 64, 24, 24) and beam.shape == (3, 4) and torch.isfinite(snr).all()
    assert assigned.shape == (3, head.boxes, 8, 6, 6)
    rows = assigned[assigned >= 0].unique()
    assert len(rows) <= len(targets["centre"]) and assigned.min() >= IGNORED
    assert (assigned == BACKGROUND).float().mean() > 0.8
    anchors = head.anchor_positions((8, 6, 6))
    for image, box, *cell in torch.nonzero(assigned >= 0).tolist():
        apart = anchors[(box, *cell)] - targets["centre"][assigned[(image, box, *cell)]].numpy()
        assert (abs(apart) <= np.array([8, 2, 2]) * 0.9).all()
    assert torch.equal(one[1][0], same[1][0]) and not torch.equal(one[1][0], other[1][0])
    assert (targets["params"][:, 4:].norm(dim=1) - 1).abs().max() < 1e-5


def test_baselines_are_slow_along_the_channels_and_smooth_on_the_sky():
    rng = np.random.default_rng(5)
    for _ in range(20):
        wave = cube_loader._baseline((64, 32, 32), 3.0, rng)
        assert 0.02 < abs(wave).max() < 2 and np.isfinite(wave).all()
        assert abs(np.diff(wave, axis=0)).max() < 0.2 * abs(wave).max()
        assert abs(np.diff(wave, axis=2)).max() < 0.8 * abs(wave).max()


def test_cubes_cover_the_training_range():
    rng = np.random.default_rng(0)
    models = [draw_model((64, 48, 48), rng) for _ in range(200)]
    beams = np.array([m.beam_px for m in models])
    assert 0.3 < np.isclose(beams, 2.5).mean() < 0.7 and beams.min() < 2.2 and beams.max() > 5.5
    assert {m.templates for m in models} == {None}
    cube = draw_cube((64, 48, 48), rng)
    assert cube.noise.std() == pytest.approx(1, abs=0.03) and np.isfinite(cube.sky).all()
    assert (cube.galaxies["flux"] > 0).all() and (cube.galaxies["snr"] > 0).all()
    assert DEMANDED > 3


def test_real_galaxies_are_the_ones_not_held_out(shared_data):
    rng = np.random.default_rng(1)
    folder = shared_data / "sdc2_templates"
    models = [draw_model((64, 48, 48), rng, templates=folder) for _ in range(40)]
    real = [m for m in models if m.templates is not None]
    assert 8 < len(real) < 32 and all(m.held_out is False for m in real)
