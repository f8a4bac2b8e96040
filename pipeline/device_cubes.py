"""Pieces of a cube found on a device: what is read here, and what goes there and comes back."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from models.detections import Detections
from pipeline import cube_bright, cube_finders
from pipeline.device_pieces import on_device, stored_windows
from pipeline.merge import owned
from survey_io.tiles import Tile

if TYPE_CHECKING:
    from models.device.cubes import FoundInCube, NoiseOnDevice
    from models.engines.base import Engine

Arrays = dict[str, np.ndarray]


class DeviceCubes:
    """The search of one cube's tiles on one device.

    Parameters
    ----------
    spec : CubeFinderSpec
    engine : Engine
        With ``run`` and ``device``.
    """

    def __init__(self, spec: cube_finders.CubeFinderSpec, engine: Engine):
        from models.beam import beam_vector
        from models.device.cubes import Bright, CubeFinder
        from models.outline import load_outline

        self.spec = spec
        bright = None
        if spec.scale_rms[0] > 0 and spec.scale_rms[1] > 0:
            bright = Bright(
                cube_bright.BLOCK, cube_bright.BOXCAR, cube_bright.filter_sigmas(spec.beam_px, spec.halo[1]),
                cube_bright.TRUNCATE, cube_bright.BRIGHT * spec.scale_rms[1],
            )  # fmt: skip
        self.finder = CubeFinder(
            engine, load_outline(spec.model)[0].head, beam=beam_vector(spec.beam), beam_px=spec.beam_px,
            passes=spec.passes, bright=bright,
            min_logit=math.log(cube_finders.MIN_PROBABILITY / (1 - cube_finders.MIN_PROBABILITY)),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._noise: tuple[Any, NoiseOnDevice] | None = None

    def find(self, pixels: Any, noise: Any, tile: Tile, negative: bool) -> Arrays:
        """As `pipeline.cube_infer.find_cube_piece`."""
        # Of a cube with many flagged channels this saves most of the time.
        found = self._find(pixels, noise, tile, negative) if noise.good(tile.full).any() else None
        if found is None:
            sides = [span.stop - span.start for span in tile.core]
            return {
                **Detections.empty(3).to_arrays(),
                "sky": np.full(sides[1:], -np.inf, np.float16),
                "position_velocity": np.full((sides[0], sides[2]), -np.inf, np.float16),
                "blank": np.array(math.prod(sides)),
            }
        rows = cube_finders.physical(found.found, self.finder.head, self.spec.beam_px)
        rows.logit = cube_bright.raise_bright(rows.logit, found.highest.tolist())
        if found.filtered is not None:
            bright = cube_bright.bright_of(*found.filtered, self.spec.beam_px, self.spec.scale_rms, rows)
            rows = Detections.concatenate([rows, bright])
        return {
            **owned(rows.shifted(tile.origin), tile.core).to_arrays(),
            "sky": found.sky,
            "position_velocity": found.position_velocity,
            "blank": np.array(found.blank),
        }

    def _find(self, pixels: Any, noise: Any, tile: Tile, negative: bool) -> FoundInCube | None:
        storage, size, read = stored_windows(pixels, [tile.full])
        return self.finder.find(
            read, size, storage, self._on_device(noise), tile.full, tile.core,
            lambda found: cube_bright.bright_boxes(found, self.spec.halo), negative=negative,
        )  # fmt: skip

    def _on_device(self, noise: Any) -> NoiseOnDevice:
        from models.device.cubes import NoiseOnDevice

        with self._lock:
            if self._noise is None or self._noise[0] is not noise:
                device = self.finder.engine.device
                self._noise = noise, NoiseOnDevice(noise.channel_rms, noise.relative, noise.continuum, device)
            return self._noise[1]

    def close(self) -> None:
        """Free what is held besides the engine."""
        self.finder.close()
        self._noise = None


def find_cube_on_device(
    pixels: Any, noise: Any, spec: cube_finders.CubeFinderSpec, tile: Tile, negative: bool
) -> Arrays | None:
    """As `DeviceCubes.find`; None where a processor runs the network, as `pipeline.device_pieces.on_device` says."""
    return on_device(spec, 1, lambda engine, _: spec.on_device(engine).find(pixels, noise, tile, negative))
