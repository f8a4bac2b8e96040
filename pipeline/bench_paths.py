"""The ways from data to detections or answers that `pipeline.bench` times, without measurement and catalogue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from models.detections import Detections
from models.engines.base import EngineSpec
from models.engines.chain import Way
from pipeline.device_pieces import DeviceImages
from pipeline.finders import FinderSpec, make_finder
from pipeline.infer import find_piece, group_tiles
from pipeline.merge import suppress
from pipeline.options import DetectOptions
from survey_io import open_image
from survey_io.background import choose_mesh, estimate_background
from survey_io.tiles import plan_tiles

if TYPE_CHECKING:
    from models.device.timeline import Timeline

# Sides of simulated data, in windows of the network, and of the piece of an image that is repeated to fill it.
WINDOWS, PIECE = 2, 512
BEAM = 4.0
SPECTRA = 64


class WholePath(Protocol):
    """Data, and what is done with it.

    Attributes
    ----------
    amount : float
        Million pixels, voxels or channels, or items.
    """

    amount: float

    def run(self, way: Way) -> int:
        """Once through; number of detections or answers."""
        ...


def make_path(weights: str, entry: Any, folder: Path, *, side: int, threads: int) -> WholePath | None:
    """The whole way of a model with simulated data; None for those that read photographs."""
    if entry.reads == "photograph":
        return None
    if entry.kind == "detector":
        return {1: SpectrumPath, 2: ImagePath, 3: CubePath}[entry.ndim](weights, folder, side=side, threads=threads)
    return ClassifierPath(weights, threads=threads) if entry.reads == "spectrum" else None


class ImagePath:
    """A simulated image in a file: read, background, S/N, network, candidates, suppression."""

    def __init__(self, weights: str, folder: Path, *, side: int, threads: int):
        self.path, self.weights, self.threads = write_image(folder, WINDOWS * side), weights, threads
        self.tile = side
        self.amount = (WINDOWS * side) ** 2 / 1e6

    def run(self, way: Way) -> int:
        """See `WholePath`."""
        observation = open_image(self.path)
        beam = observation.beam_pixels()
        pixels = observation.pixels
        background = estimate_background(pixels, mesh=choose_mesh(pixels.shape, BEAM))
        finder = self.finder(way, beam)
        groups = group_tiles(
            plan_tiles(pixels.shape, tile=self.tile, halo=finder.halo, stride=finder.stride, even=True),
            DetectOptions.model_fields["batch"].default,
        )
        with ThreadPoolExecutor(self.threads) as pool:
            parts = list(pool.map(lambda group: find_piece(pixels, background, finder, group), groups))
        return len(suppress(Detections.concatenate([Detections.from_arrays(part) for part in parts]), BEAM))

    def finder(self, way: Way, beam: tuple[float, float, float]) -> FinderSpec:
        """The finder of an engine, which stays loaded."""
        spec, _ = make_finder(
            self.weights, engine=way.engine, precision=way.precision, threads=self.threads, beam=beam, passes=1,
            device=way.device,
        )  # fmt: skip
        return spec


class CubePath:
    """A simulated cube in a file: read, noise, S/N, network, candidates, suppression."""

    def __init__(self, weights: str, folder: Path, *, side: int, threads: int):
        from survey_io.simulate.hi import HiModel, simulate_hi, write_hi

        model = HiModel(shape=(2 * WINDOWS * side, WINDOWS * side, WINDOWS * side))
        self.path = write_hi(model, *simulate_hi(model, seed=1), folder)["cube"]
        self.weights, self.threads, self.side = weights, threads, side
        self.amount = float(np.prod(model.shape)) / 1e6

    def run(self, way: Way) -> int:
        """See `WholePath`."""
        from pipeline.cube_finders import make_cube_finder, suppress_lines
        from pipeline.cube_infer import find_cube_piece
        from survey_io.cube import open_cube
        from survey_io.cube_noise import estimate_cube_noise

        cube = open_cube(self.path)
        noise = estimate_cube_noise(cube.pixels)
        finder, _ = make_cube_finder(
            self.weights, cube.pixels, noise, engine=way.engine, precision=way.precision, threads=self.threads,
            beam=cube.plane.beam_pixels(), passes=1, device=way.device,
        )  # fmt: skip
        tiles = plan_tiles(cube.shape, tile=(512, 256, 256), halo=finder.halo, stride=finder.stride, clip=True)
        with ThreadPoolExecutor(self.threads) as pool:
            parts = list(pool.map(lambda tile: find_cube_piece(cube.pixels, noise, finder, tile), tiles))
        kept = [Detections.from_arrays({n: a for n, a in part.items() if _of_rows(n)}) for part in parts]
        return len(suppress_lines(Detections.concatenate(kept), finder.beam_px))


def _of_rows(name: str) -> bool:
    return name in ("centre", "size", "logit", "anchor") or name.startswith("param_")


class SpectrumPath:
    """Spectra of noise in memory: network and candidates."""

    def __init__(self, weights: str, folder: Path, *, side: int, threads: int):
        self.weights, self.threads = weights, threads
        self.snr = np.random.default_rng(1).normal(size=(SPECTRA, side)).astype(np.float32)
        self.amount = self.snr.size / 1e6

    def run(self, way: Way) -> int:
        """See `WholePath`."""
        from pipeline.spectrum_finders import make_spectrum_finder

        finder, _ = make_spectrum_finder(
            self.weights, engine=way.engine, precision=way.precision, threads=self.threads, passes=1, device=way.device
        )
        stride = finder.stride
        snr = self.snr[:, : self.snr.shape[1] // stride * stride]
        return sum(len(found) for found in finder.find(snr))


class ClassifierPath:
    """Spectra in memory: what prepares them, and the network."""

    def __init__(self, weights: str, *, threads: int):
        from models.weights import load_weights

        self.weights, self.threads = weights, threads
        self.module = load_weights(weights)[0].eval()
        self.flux = 1 + 0.1 * np.random.default_rng(1).standard_normal((SPECTRA, self.module.grid.count))
        self.amount = float(SPECTRA)

    def run(self, way: Way) -> int:
        """See `WholePath`."""
        engine = EngineSpec(self.weights, way.engine, way.precision, self.threads, way.device).load()
        return len(engine(self.module.prepare(self.flux, np.ones_like(self.flux))))


def write_image(folder: Path, side: int) -> Path:
    """A simulated sky of ``side`` px in a file; a larger one repeats a piece, as only the amount of work matters."""
    from survey_io.simulate.continuum import simulate_continuum
    from survey_io.simulate.tables import write_simulation

    piece = simulate_continuum((min(side, PIECE),) * 2, beam_pixels=BEAM, seed=1)
    repeats = -(-side // piece.image.shape[0])
    image = np.tile(piece.image, (repeats, repeats))[:side, :side]
    return write_simulation(replace(piece, image=image), folder, stem=f"sky{side}")["image"]


def trace_image(weights: str, way: Way, folder: Path, *, side: int, threads: int) -> Timeline:
    """The timeline of an image's stages on a device, after one pass that loads and warms everything up."""
    from models.device.timeline import Timeline

    whole = ImagePath(weights, folder, side=side, threads=threads)
    observation = open_image(whole.path)
    pixels = observation.pixels
    background = estimate_background(pixels, mesh=choose_mesh(pixels.shape, BEAM))
    finder = whole.finder(way, observation.beam_pixels())
    engine = EngineSpec(weights, way.engine, way.precision, threads, way.device).load().current()[1]
    images = DeviceImages(finder, engine)
    plan = plan_tiles(pixels.shape, tile=side // 2, halo=finder.halo, stride=finder.stride, even=True)
    # Two threads more than devices at work: one reads ahead while the others' windows are looked at.
    with ThreadPoolExecutor(3) as pool:
        for timed in (False, True):
            if timed:
                images.finder.lanes.timeline = Timeline(engine.device)
            list(pool.map(lambda tile: images.find(pixels, background, [tile], False), plan))
    return images.finder.lanes.timeline
