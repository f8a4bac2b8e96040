"""The pipeline of a device finds in cubes what the processor's finds: here on the processor, on a GPU where one is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy.io import fits

from models.detections import Detections
from models.engines.base import EngineSpec
from pipeline import device_pieces
from pipeline.cube_bright import BRIGHT_LOGIT
from pipeline.cube_finders import make_cube_finder, suppress_lines
from pipeline.cube_infer import find_cube_piece
from pipeline.detect_cube import analyse_cube
from pipeline.device_cubes import DeviceCubes
from pipeline.options import DetectOptions
from survey_io.cube import open_cube
from survey_io.cube_noise import estimate_cube_noise
from survey_io.simulate.hi import HiModel, simulate_hi, write_hi
from survey_io.tiles import plan_tiles

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")
DEVICES = ["cpu", pytest.param("cuda:0", marks=[pytest.mark.gpu, needs_gpu])]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Galaxies, blank and noisy channels, a blank corner, and one galaxy brighter and wider than any of training."""
    model = HiModel(shape=(100, 62, 54), density=200.0, least_flux=12.0)
    cube, galaxies = simulate_hi(model, seed=3)
    c, y, x = np.mgrid[:100, :62, :54]
    shape = ((c - 40) / 9) ** 2 + ((y - 30) / 7) ** 2 + ((x - 26) / 7) ** 2
    cube = cube + (12 * model.rms * np.exp(-0.5 * shape)).astype(np.float32)
    cube[7], cube[70:72, :9, :11] = np.nan, np.nan
    cube[85] *= 30
    return write_hi(model, cube, galaxies, tmp_path_factory.mktemp("cube"))["cube"]


def as_integers(path, folder):
    with fits.open(path) as hdus:
        values, header = hdus[0].data.astype(float), hdus[0].header
    scale = np.nanmax(np.abs(values)) / 30_000
    hdu = fits.PrimaryHDU(np.where(np.isfinite(values), np.rint(values / scale), -32768).astype(np.int16), header)
    hdu.header["BSCALE"], hdu.header["BLANK"] = scale, -32768
    hdu.writeto(folder / "integers.fits")
    return folder / "integers.fits"


def search(path, device, *, passes=1, negative=False, tile=(64, 32, 32)):
    """Pieces of the same tiles found both ways; and the finder."""
    cube = open_cube(path)
    noise = estimate_cube_noise(cube.pixels)
    spec, _ = make_cube_finder(
        "light3d", cube.pixels, noise, engine="torch", precision="f32", threads=1, beam=cube.plane.beam_pixels(),
        passes=passes,
    )  # fmt: skip
    of_device = DeviceCubes(spec, EngineSpec("light3d", "torch", device=device).load_alone())
    tiles = plan_tiles(cube.shape, tile=tile, halo=spec.halo, stride=spec.stride, clip=True)
    expected = [find_cube_piece(cube.pixels, noise, spec, one, negative) for one in tiles]
    came = [of_device.find(cube.pixels, noise, one, negative) for one in tiles]
    return expected, came, spec


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", [{}, {"negative": True}, {"passes": 2}, {"tile": (512, 256, 256)}, {"integers": True}])
def test_the_same_detections_and_maps(path, tmp_path, device, way):
    way = dict(way)
    given = as_integers(path, tmp_path) if way.pop("integers", False) else path
    expected, came, spec = search(given, device, **way)
    for one, other in zip(came, expected, strict=True):
        for name in ("sky", "position_velocity"):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-3, err_msg=name)
        assert one["blank"] == other["blank"]
        assert one["sky"].dtype == np.float16
    found, reference = (
        suppress_lines(Detections.concatenate([Detections.from_arrays(_rows(part)) for part in parts]), spec.beam_px)
        for parts in (came, expected)
    )
    assert len(found) == len(reference) and (len(found) > 5 or "negative" in way)
    assert np.array_equal(found.anchor, reference.anchor)
    np.testing.assert_allclose(found.centre, reference.centre, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.logit, reference.logit, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.size, reference.size, rtol=1e-3)
    if not len(found):
        return
    assert found.params.keys() == reference.params.keys()
    for name, value in reference.params.items():
        if "theta" not in name:
            np.testing.assert_allclose(found.params[name], value, rtol=2e-3, atol=1e-4, err_msg=name)
    if not way.get("negative"):
        # The bright wide galaxy is trusted in both.
        assert (reference.logit > BRIGHT_LOGIT - 0.1).any()


def _rows(part):
    return {n: a for n, a in part.items() if n in ("centre", "size", "logit", "anchor") or n.startswith("param_")}


@pytest.mark.parametrize("device", DEVICES)
def test_the_filters_for_bright_galaxies_are_those_of_the_processor(device):
    from models.device.cubes import Bright
    from pipeline import cube_bright

    cube = np.random.default_rng(0).normal(size=(43, 30, 37)).astype(np.float32)
    bright = Bright(
        cube_bright.BLOCK, cube_bright.BOXCAR, cube_bright.filter_sigmas(4.0, 40), cube_bright.TRUNCATE, 0.0
    )
    came = bright.apply(torch.from_numpy(cube).to(device))
    blocks = cube_bright._boxcar(cube_bright._block_means(cube))
    for one, sigma in zip(came, cube_bright.filter_sigmas(4.0, 40), strict=True):
        expected = cube_bright._smooth(blocks, sigma)
        np.testing.assert_allclose(one.cpu().numpy(), expected, rtol=0, atol=1e-6)


def test_the_whole_run_on_a_device_gives_the_same_catalogue(path, monkeypatch):
    options = DetectOptions(engine="torch", device="cpu", workers=2, cube_tile=(64, 32))
    cube = open_cube(path)
    expected = analyse_cube(cube, options)
    monkeypatch.setattr(device_pieces, "runs_on_device", lambda way: True)
    came = analyse_cube(cube, options)
    assert len(came.table) == len(expected.table) > 2
    for name in ("ra", "dec", "line_flux", "w20", "p_real"):
        np.testing.assert_allclose(came.table[name], expected.table[name], rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(came.sky, expected.sky, rtol=2e-3)
    assert came.manifest["noise"] == expected.manifest["noise"]
