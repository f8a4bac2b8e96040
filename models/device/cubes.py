"""Windows of cubes from stored bytes to detections, on one device; detections and maps of the highest S/N come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.detections import Detections
from models.device.candidates import find_candidates, look_twice
from models.device.images import Part, Storage, Window, nearest_pixel, unpack
from models.device.lanes import Lanes
from models.yolo.head import HeadSpec


class NoiseOnDevice:
    """Noise of a cube on the device: what `survey_io.cube_noise.CubeNoise` gives of windows.

    Parameters
    ----------
    channel_rms : ndarray, shape (nchan,)
    relative, continuum : ndarray, shape (ny, nx)
    """

    def __init__(
        self, channel_rms: np.ndarray, relative: np.ndarray, continuum: np.ndarray, device: torch.device
    ) -> None:
        arrays = (channel_rms, relative, continuum)
        self._rms, self._relative, self._continuum = (
            torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device) for array in arrays
        )

    def over(self, voxels: Tensor, window: Window) -> Tensor:
        """Voxels of a window, (C, H, W), over their noise, in their place; NaN where there is none or no value."""
        c, y, x = (
            torch.arange(span.start, span.stop, device=voxels.device).clamp(0, side - 1)
            for span, side in zip(window, (len(self._rms), *self._relative.shape), strict=True)
        )
        relative = self._relative[y[:, None], x[None]]
        # Where one of them is NaN, so is the quotient.
        voxels.sub_(self._continuum[y[:, None], x[None]]).div_(self._rms[c][:, None, None] * relative)
        return voxels.masked_fill_(~voxels.isfinite(), torch.nan)


@dataclass(frozen=True)
class Bright:
    """Filters for galaxies wider than those that a network knows; `pipeline.cube_bright` gives the reasons.

    Attributes
    ----------
    block : tuple of int
        Voxels of a mean along each axis.
    boxcar : int
        Blocks of a mean along the channels.
    sigmas : (narrow, wide)
        Of Gaussians on the sky, in blocks.
    truncate : float
        Sigmas after which they end.
    least : float
        Highest value of the wide one below which there is nothing.
    """

    block: tuple[int, int, int]
    boxcar: int
    sigmas: tuple[float, float]
    truncate: float
    least: float

    def apply(self, cube: Tensor) -> tuple[Tensor, Tensor]:
        """Both filtered cubes of blocks of S/N, (C, H, W), zeros outside."""
        sides = [n // b for n, b in zip(cube.shape, self.block, strict=True)]
        part = cube[tuple(slice(0, n * b) for n, b in zip(sides, self.block, strict=True))]
        shape = [number for pair in zip(sides, self.block, strict=True) for number in pair]
        blocks = part.reshape(shape).mean((1, 3, 5))
        blocks = _along(blocks, torch.full((self.boxcar,), 1 / self.boxcar, device=cube.device), 0)
        return tuple(self._smooth(blocks, sigma) for sigma in self.sigmas)

    def _smooth(self, blocks: Tensor, sigma: float) -> Tensor:
        reach = int(self.truncate * sigma + 0.5)
        place = torch.arange(-reach, reach + 1, dtype=torch.float64, device=blocks.device)
        kernel = torch.exp(-0.5 * (place / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(torch.float32)
        return _along(_along(blocks, kernel, 1), kernel, 2)


def _along(values: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Symmetric kernel over one axis, zeros outside."""
    moved = values.movedim(axis, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    smooth = functional.conv1d(flat, kernel[None, None], padding=len(kernel) // 2)
    return smooth.reshape(moved.shape).movedim(-1, axis)


@dataclass(frozen=True)
class FoundInCube:
    """What a window holds.

    Attributes
    ----------
    found : Detections
        In window voxels, with the head's parameters.
    highest : ndarray of float32
        S/N in the boxes that were asked for.
    filtered : tuple of ndarray or None
        Both filtered cubes, where the wide one says that there may be something.
    sky, position_velocity : ndarray of float16
        Highest S/N of the core over channels and over rows; -inf where there is none.
    blank : int
        Voxels of the core without a value.
    """

    found: Detections
    highest: np.ndarray
    filtered: tuple[np.ndarray, np.ndarray] | None
    sky: np.ndarray
    position_velocity: np.ndarray
    blank: int


class CubeFinder:
    """A network for cubes and all that stands before and behind it, on one device; see `ImageFinder`.

    Parameters
    ----------
    engine : Engine
        With ``run`` and ``device``.
    head : HeadSpec
    beam : ndarray of float32, shape (4,)
    beam_px : float
    passes : int
    min_logit : float
        Candidates below are not carried further.
    bright : Bright or None
        None where their noise could not be measured.
    """

    def __init__(
        self, engine: Any, head: HeadSpec, *, beam: np.ndarray, beam_px: float, passes: int, min_logit: float,
        bright: Bright | None,
    ) -> None:  # fmt: skip
        self.engine, self.head, self.beam_px, self.passes = engine, head, beam_px, passes
        self.min_logit, self.bright = min_logit, bright
        self.lanes = Lanes(engine.device)
        self._beam = torch.from_numpy(np.asarray(beam, np.float32)[None]).to(engine.device)
        self._turn = threading.Lock()

    def find(
        self,
        read: Callable[[np.ndarray], Sequence[Part | None]],
        size: int,
        storage: Storage,
        noise: NoiseOnDevice,
        window: Window,
        core: Window,
        boxes: Callable[[Detections], list[Window]],
        *,
        negative: bool = False,
    ) -> FoundInCube | None:
        """What a window holds; None where it holds no values.

        Parameters
        ----------
        read, size, storage
            As `ImageFinder.find`, of one window.
        noise : NoiseOnDevice
        window, core : tuple of slice
            In cube voxels.
        boxes : callable
            Gives, of detections, the voxels whose highest S/N is asked for.
        negative : bool
            Look at the negated cube instead.
        """
        lanes, sides = self.lanes, tuple(span.stop - span.start for span in window)
        with lanes.buffer(size) as buffer:
            with lanes.lane("read"):
                parts = read(buffer.numpy())
            if parts[0] is None:
                return None
            with torch.inference_mode():
                with self._turn:
                    with lanes.lane("copy") as copied:
                        held = buffer.to(self.engine.device, non_blocking=True)
                    with lanes.lane("network", after=copied["event"]) as computed:
                        lanes.hand_over(held, "network")
                        snr = noise.over(unpack(held, parts, storage, sides)[0], window)
                        snr = snr.neg_() if negative else snr
                        image = self._padded(snr)
                        raw = self._network(image)
                with lanes.lane("decode", after=computed["event"]):
                    for tensor in (snr, image, raw):
                        lanes.hand_over(tensor, "decode")
                    return self._decode(raw, image[0, 0], snr, window, core, boxes)

    def _padded(self, snr: Tensor) -> Tensor:
        """Blanks 0, sides multiples of the stride; (1, 1, C, H, W)."""
        short = [-n % s for n, s in zip(snr.shape, self.head.stride, strict=True)]
        pad = [number for one in reversed(short) for number in (0, one)]
        return functional.pad(torch.where(snr.isfinite(), snr, 0.0), pad)[None, None]

    def _network(self, image: Tensor) -> Tensor:
        if self.passes == 2:
            return look_twice(self.engine.run, image, self._beam, spec=self.head)
        return self.engine.run(image, self._beam)

    def _decode(
        self, raw: Tensor, cube: Tensor, snr: Tensor, window: Window, core: Window,
        boxes: Callable[[Detections], list[Window]],
    ) -> FoundInCube:  # fmt: skip
        rows = find_candidates(raw, self.head, beam_px=self.beam_px, min_logit=self.min_logit)
        at, _ = nearest_pixel(rows.centre, snr.shape)
        # A centre on blank voxels is no source, whatever the network says of the edge around it.
        rows = rows[snr[tuple(at.T)].isfinite()]
        inner = snr[tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True))]
        seen = inner.nan_to_num(nan=-torch.inf)
        maps = [seen.amax(axis).to(torch.float16).cpu().numpy() for axis in (0, 1)]
        _, found = rows.fetch(self.head)
        places = [cube[box] for box in boxes(found)]
        highest = [place.amax().clamp(min=0) if place.numel() else cube.new_zeros(()) for place in places]
        return FoundInCube(
            found,
            torch.stack(highest).cpu().numpy() if highest else np.empty(0, np.float32),
            self._filtered(cube),
            *maps,
            int(inner.isnan().sum()),
        )

    def _filtered(self, cube: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
        if self.bright is None or any(n < b for n, b in zip(cube.shape, self.bright.block, strict=True)):
            return None
        narrow, wide = self.bright.apply(cube)
        return (narrow.cpu().numpy(), wide.cpu().numpy()) if float(wide.amax()) >= self.bright.least else None

    def close(self) -> None:
        """Free what is held besides the engine."""
        self.lanes.close()
