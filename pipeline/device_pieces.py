"""Pieces of an image found on a device: what is read here, and what goes there and comes back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from models.detections import Detections
from models.engines.chain import Way, free_memory
from models.engines.failures import is_device_failure, is_out_of_memory, reason
from pipeline import finders, merge
from survey_io.background import BackgroundMap
from survey_io.pixels import to_float32
from survey_io.tiles import Tile, round_up

if TYPE_CHECKING:
    from models.device.images import ImageFinder, Part, Storage
    from models.device.mesh import MeshOnDevice
    from models.engines.base import Engine

Result = TypeVar("Result")
# Parts of a buffer begin at multiples of this many bytes: any stored type may be looked at there.
ALIGN = 64
# Of a window that may be blank only each so many-th value is looked at first.
SPARSE = 16


def find_on_device(
    pixels: Any, background: BackgroundMap, spec: finders.FinderSpec, tiles: Sequence[Tile], negative: bool
) -> Detections | None:
    """As `DeviceImages.find`; None where a processor runs the network, from the beginning or since its GPU failed.

    Where memory runs out, fewer tiles are searched at once; where one alone does not fit, or the GPU fails, the next
    engine does the piece.
    """
    def work(engine: Engine, size: int) -> Detections:
        images = spec.on_device(engine)
        parts = [images.find(pixels, background, tiles[i : i + size], negative) for i in range(0, len(tiles), size)]
        return Detections.concatenate(parts)

    return on_device(spec, len(tiles), work)


def on_device(spec: Any, count: int, work: Callable[[Engine, int], Result]) -> Result | None:
    """Work on a finder's device, with less at once or the next engine where that fails; None for a processor.

    Parameters
    ----------
    spec : FinderSpec or CubeFinderSpec
    count : int
        Windows of the piece.
    work : callable
        ``work(engine, size)`` does the piece with so many windows at once.
    """
    while (chain := spec.chain()) is not None and runs_on_device(chain.way):
        way, engine = chain.current()
        if not runs_on_device(way):
            continue
        size = min(chain.largest or count, count)
        try:
            return work(engine, size)
        except Exception as error:
            memory = is_out_of_memory(error)
            if not (memory or is_device_failure(error)):
                raise
            if not (memory and size > 1):
                chain.give_up(way, error)
                continue
            cause = reason(error)
        # Outside of the handler, whose traceback holds what the failed call had made.
        free_memory()
        chain.halve(size, cause)
    return None


def runs_on_device(way: Way) -> bool:
    """Whether an engine takes tensors that are on its device, and the stages around it gain by being there."""
    return way.on_gpu


class DeviceImages:
    """The search of one image's tiles on one device.

    Parameters
    ----------
    spec : FinderSpec
    engine : Engine
        With ``run`` and ``device``.
    """

    def __init__(self, spec: finders.FinderSpec, engine: Engine):
        from models.beam import beam_vector
        from models.device.images import ImageFinder, Rules
        from models.outline import load_outline

        self._beam_px = math.sqrt(spec.beam[0] * spec.beam[1])
        rules = Rules(
            min_logit=math.log(finders.MIN_PROBABILITY / (1 - finders.MIN_PROBABILITY)),
            bright_snr=finders.BRIGHT_SNR,
            bright_share=finders.BRIGHT_SHARE,
            bright_reach=finders.BRIGHT_REACH,
            bright_logit=finders.BRIGHT_LOGIT,
            same_beams=merge.SAME_SOURCE_BEAMS,
            same_extent=merge.SAME_SOURCE_EXTENT,
        )
        self.finder: ImageFinder = ImageFinder(
            engine, load_outline(spec.model)[0].head, beam=beam_vector(spec.beam), beam_px=self._beam_px,
            passes=spec.passes, rules=rules,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._mesh: tuple[BackgroundMap, MeshOnDevice] | None = None

    def find(self, pixels: Any, background: BackgroundMap, tiles: Sequence[Tile], negative: bool) -> Detections:
        """Candidates whose anchors the tiles own, in image pixels; those that surely fall to a better one left out."""
        windows = [tile.full for tile in tiles]
        storage, size, read = stored_windows(pixels, windows)
        found = self.finder.find(
            read, size, storage, self._on_device(background), windows, [tile.core for tile in tiles], pixels.shape,
            negative=negative,
        )  # fmt: skip
        # Windows that are blank know no parameters.
        known = [finders.physical(part, self._beam_px) if part.params else part for part in found]
        return Detections.concatenate(known)

    def _on_device(self, background: BackgroundMap) -> MeshOnDevice:
        from models.device.mesh import MeshOnDevice

        with self._lock:
            if self._mesh is None or self._mesh[0] is not background:
                device = self.finder.engine.device
                mesh = MeshOnDevice(background.background, background.rms, background.mesh, device)
                self._mesh = background, mesh
            return self._mesh[1]

    def close(self) -> None:
        """Free what is held besides the engine."""
        self.finder.close()
        self._mesh = None


def stored_windows(
    pixels: Any, windows: Sequence[tuple[slice, ...]]
) -> tuple[Storage, int, Callable[[np.ndarray], list[Part | None]]]:
    """How some windows' values are stored, how many bytes they take, and what copies them into a buffer."""
    from models.device.images import Part, Storage

    raw = hasattr(pixels, "copy_stored")
    storage = Storage(pixels.dtype, pixels.scale, pixels.zero, pixels.blank) if raw else Storage("=f4")
    dtype = np.dtype(storage.dtype)
    # Without the borders outside of the image, which the exact size would need a look at the file for.
    size = sum(round_up(dtype.itemsize * math.prod(s.stop - s.start for s in window), ALIGN) for window in windows)

    def read(buffer: np.ndarray) -> list[Part | None]:
        parts: list[Part | None] = []
        first = 0
        for window in windows:
            place = pixels.copy_stored(window, buffer[first:]) if raw else _copy_read(pixels, window, buffer[first:])
            if place is None:
                parts.append(None)
                continue
            part = Part(first, place)
            target = buffer[first : first + math.prod(part.sides) * dtype.itemsize].view(dtype).reshape(part.sides)
            parts.append(None if _blank(target, storage) else part)
            first += round_up(target.nbytes, ALIGN)
        return parts

    return storage, size, read


def _copy_read(pixels: Any, window: tuple[slice, ...], out: np.ndarray) -> tuple[slice, ...]:
    """As ``copy_stored``, of pixels that are made as they are read (means of blocks)."""
    values = pixels.read(window)
    np.copyto(out[: values.nbytes].view(np.float32).reshape(values.shape), values)
    return tuple(slice(0, side) for side in values.shape)


def _blank(stored: np.ndarray, storage: Storage) -> bool:
    """Whether a window holds no values at all: mosaics have many such."""
    if stored.dtype.kind != "f" and storage.blank is None:
        return False
    sparse = stored[(slice(None, None, SPARSE),) * stored.ndim]
    return all(
        np.isnan(to_float32(part, scale=storage.scale, zero=storage.zero, blank=storage.blank)).all()
        for part in (sparse, stored)
    )
