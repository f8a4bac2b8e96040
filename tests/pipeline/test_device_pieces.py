"""The pipeline of a device finds what the processor's finds: run here on the processor, on a GPU where there is one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from astropy.io import fits

from models.boxes import nms as nms_of_processor
from models.detections import Detections
from models.device.mesh import MeshOnDevice
from models.device.stored import physical
from models.device.suppress import nms
from models.device.timeline import Timeline
from models.engines.base import EngineSpec
from pipeline import merge
from pipeline.device_pieces import DeviceImages
from pipeline.finders import make_finder
from pipeline.infer import find_piece, group_tiles
from pipeline.merge import suppress
from survey_io import open_image
from survey_io.background import BackgroundMap, choose_mesh, estimate_background
from survey_io.binned import BinnedPixels
from survey_io.pixels import to_float32
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.tiles import plan_tiles

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")
DEVICES = ["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, needs_gpu])]
BEAM = (3.4, 2.6, 0.6)


@pytest.fixture(scope="module")
def sky():
    """Crowded, with a blank border and hole, an infinite pixel and a very bright source; image and header."""
    sim = simulate_continuum((310, 262), beam_pixels=BEAM, seed=5, model=SkyModel(density=0.02))
    image = sim.image.copy()
    image[:21], image[140:170, 100:130] = np.nan, np.nan
    image[60, 60] = np.inf
    y, x = np.mgrid[:310, :262]
    image += (3e-4 * np.exp(-0.5 * ((y - 200) ** 2 + (x - 60) ** 2) / 25)).astype(np.float32)
    return image, sim.header


def write(folder, sky, kind):
    """The sky as floats, or as integers with a scale, an offset and blanks; opened."""
    image, header = sky
    if kind == "floats":
        hdu = fits.PrimaryHDU(image, header)
    elif kind == "doubles":
        hdu = fits.PrimaryHDU(image.astype(np.float64), header)
    else:
        scale = np.nanmax(np.abs(image[np.isfinite(image)])) / (30_000 if kind == "i2" else 2_000_000_000)
        low = int(np.iinfo(kind).min)
        numbers = np.where(np.isfinite(image), np.rint((image - 1e-6) / scale), low).astype(kind)
        hdu = fits.PrimaryHDU(numbers, header)
        hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = scale, 1e-6, low
    hdu.writeto(folder / f"{kind}.fits", overwrite=True)
    return open_image(folder / f"{kind}.fits")


def search(pixels, device, *, negative=False, tile=96, batch=3, passes=1, binned=1, threads=3, timeline=False):
    """Detections of both ways, each suppressed over the whole image; and the device's, before that."""
    if binned > 1:
        pixels = BinnedPixels(pixels, binned)
    beam = (BEAM[0] / binned, BEAM[1] / binned, BEAM[2])
    background = estimate_background(pixels, mesh=choose_mesh(pixels.shape, 3.0))
    spec, _ = make_finder("light", engine="torch", precision="f32", threads=1, beam=beam, passes=passes)
    tiles = plan_tiles(pixels.shape, tile=tile, halo=spec.halo, stride=spec.stride, even=True)
    groups = group_tiles(tiles, batch)
    of_device = DeviceImages(spec, EngineSpec("light", "torch", device=device).load_alone())
    if timeline:
        of_device.finder.lanes.timeline = Timeline(torch.device(device))
    expected = [Detections.from_arrays(find_piece(pixels, background, spec, group, negative)) for group in groups]
    with ThreadPoolExecutor(threads) as pool:
        came = list(pool.map(lambda group: of_device.find(pixels, background, group, negative), groups))
    beam_px = float(np.sqrt(beam[0] * beam[1]))
    parts = [Detections.concatenate(found) for found in (expected, came)]
    return [suppress(found, beam_px) for found in parts], parts, of_device


def assert_same(came: Detections, expected: Detections) -> None:
    assert len(came) == len(expected) > 0
    assert np.array_equal(came.anchor, expected.anchor)
    assert np.abs(came.centre - expected.centre).max() < 1e-4 * BEAM[1]
    assert np.abs(came.logit - expected.logit).max() < 1e-4 * max(1, np.abs(expected.logit).max())
    np.testing.assert_allclose(came.size, expected.size, rtol=1e-4)
    assert came.params.keys() == expected.params.keys()
    for name, value in expected.params.items():
        if name != "theta":
            np.testing.assert_allclose(came.params[name], value, rtol=2e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["floats", "doubles", "i2", "i4"])
def test_the_same_detections_however_pixels_are_stored(tmp_path, sky, device, kind):
    (expected, came), _, _ = search(write(tmp_path, sky, kind).pixels, device)
    assert len(expected) > 60
    assert_same(came, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "way", [{"negative": True}, {"passes": 2}, {"tile": 1000, "batch": 1}, {"tile": 64, "batch": 8}, {"binned": 2}]
)
def test_the_same_detections_in_every_way(tmp_path, sky, device, way):
    (expected, came), _, _ = search(write(tmp_path, sky, "floats").pixels, device, **way)
    assert_same(came, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tile", [1000, 120])
def test_what_surely_falls_does_not_come_back_and_lanes_are_timed(tmp_path, sky, device, tile, monkeypatch):
    # The network's own maxima hardly ever need it: sources of three beams do.
    monkeypatch.setattr(merge, "SAME_SOURCE_BEAMS", 3.0)
    (expected, came), (before, of_device), finder = search(
        write(tmp_path, sky, "floats").pixels, device, tile=tile, batch=1, timeline=True
    )
    assert_same(came, expected)
    assert len(came) < len(before) and len(of_device) <= len(before)
    if tile == 1000:
        # Nothing outside of the image can suppress anything: all is decided.
        assert len(of_device) == len(came)
    timeline = finder.finder.lanes.timeline
    busy = timeline.busy()
    assert set(busy) == {"read", "copy", "network", "decode"}
    assert all(0 <= share <= 1 for share in busy.values()) and busy["network"] > 0
    timeline.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "X"} == set(busy)


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_found_and_nothing_there_are_results(tmp_path, sky, device):
    _, header = sky
    noise = np.random.default_rng(1).normal(0, 1e-6, (200, 180)).astype(np.float32)
    noise[:, 60:] = np.nan
    fits.writeto(tmp_path / "noise.fits", noise, header)
    pixels = open_image(tmp_path / "noise.fits").pixels
    background = estimate_background(pixels, mesh=64)
    spec, _ = make_finder("light", engine="torch", precision="f32", threads=1, beam=BEAM)
    of_device = DeviceImages(spec, EngineSpec("light", "torch", device=device).load_alone())
    tiles = plan_tiles(pixels.shape, tile=64, halo=spec.halo, stride=spec.stride, even=True)
    blank = [tile for tile in tiles if tile.full[1].start >= 60]
    assert len(blank) and len(of_device.find(pixels, background, blank, False)) == 0
    found = [of_device.find(pixels, background, [tile], False) for tile in tiles]
    expected = [Detections.from_arrays(find_piece(pixels, background, spec, [tile])) for tile in tiles]
    assert [len(one) for one in found] == [len(one) for one in expected] and 0 in map(len, found)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">i4", ">i8", "|u1", "=f4"])
def test_stored_values_are_those_of_the_processor(device, dtype):
    rng = np.random.default_rng(3)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        stored = (rng.normal(size=(13, 7)) * 10.0 ** rng.integers(-30, 30, (13, 7))).astype(kind)
        stored[0, :3] = np.nan, np.inf, -np.inf
    else:
        limits = np.iinfo(kind)
        stored = rng.integers(limits.min, limits.max, (13, 7), dtype=kind.newbyteorder("=")).astype(kind)
        stored[0, :2] = limits.min, limits.max
    raw = torch.from_numpy(np.ascontiguousarray(stored).view(np.uint8).reshape(13, 7, kind.itemsize).copy())
    blank = int(stored[5, 5]) if kind.kind != "f" else None
    for scaling in ({}, {"scale": 1.7e-5, "zero": 32768.0}):
        expected = to_float32(stored, **scaling, blank=blank)
        came = physical(raw.to(device), dtype, **scaling, blank=blank).cpu().numpy()
        np.testing.assert_array_equal(came, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_background_is_that_of_the_processor(device):
    rng = np.random.default_rng(4)
    for shape in ((1, 1), (1, 5), (4, 3)):
        background = BackgroundMap(
            rng.normal(size=shape).astype(np.float32), rng.uniform(1, 2, shape).astype(np.float32), 32
        )
        on_device = MeshOnDevice(background.background, background.rms, 32, torch.device(device))
        for window in ((slice(-40, 60), slice(10, 90)), (slice(0, 32 * shape[0]), slice(31, 33))):
            for came, expected in zip(on_device.sample(window), background.sample(window), strict=True):
                np.testing.assert_allclose(came.cpu().numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_suppression_keeps_the_same_set(device, ndim):
    rng = np.random.default_rng(ndim)
    for count, extent in ((0, 10), (1, 10), (2, 1), (4000, 160 if ndim == 2 else 40 if ndim == 3 else 4000)):
        centre = rng.uniform(-5, extent, (count, ndim))
        radius = rng.choice([1.0, 2.0, 6.0], count, p=[0.8, 0.15, 0.05])
        # Many ties: position decides.
        score = rng.integers(0, 50, count).astype(float)
        expected = nms_of_processor(centre, radius, score)
        given = [torch.from_numpy(array).to(device) for array in (centre, radius, score)]
        assert np.array_equal(nms(*given).cpu().numpy(), expected)
        # Two halves, each without the other: what surely falls is left out, and what is kept at last is the same.
        left = centre[:, 0] < extent / 2 if count else np.zeros(0, bool)
        kept = np.zeros(count, bool)
        for half in (left, ~left):
            near = torch.from_numpy(np.abs(centre[half, 0] - extent / 2) < 6.0).to(device)
            kept[half] = nms(*(array[torch.from_numpy(half).to(device)] for array in given), near).cpu().numpy()
        rows = np.flatnonzero(kept)
        again = rows[nms_of_processor(centre[rows], radius[rows], score[rows])]
        assert np.array_equal(again, np.flatnonzero(expected))
        if count > 2:
            assert expected.sum() <= kept.sum() < count
