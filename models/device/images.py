"""Windows of images from stored bytes to detections, on one device; only detections come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.detections import Detections
from models.device.candidates import Candidates, find_candidates, look_twice
from models.device.lanes import Lanes
from models.device.mesh import MeshOnDevice
from models.device.stored import physical
from models.device.suppress import nms
from models.yolo.candidates import AGREE_BEAMS
from models.yolo.head import LOG_SIZE_LIMIT, HeadSpec

Window = tuple[slice, ...]


@dataclass(frozen=True)
class Storage:
    """How values lie on disk, as `survey_io.pixels.PixelSource` says it."""

    dtype: str
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None


@dataclass(frozen=True)
class Part:
    """The stored values of one window.

    Attributes
    ----------
    first : int
        Byte of the buffer at which they begin: a multiple of 64.
    place : tuple of slice
        Where they lie in the window; the rest is outside of the data.
    """

    first: int
    place: Window

    @property
    def sides(self) -> tuple[int, ...]:
        """Numbers of values along the axes."""
        return tuple(span.stop - span.start for span in self.place)


@dataclass(frozen=True)
class Rules:
    """What counts as a detection; `pipeline.finders` and `pipeline.merge` give the reasons.

    Attributes
    ----------
    min_logit : float
        Candidates below are not carried further.
    bright_snr, bright_share, bright_reach, bright_logit : float
        A detection of this S/N with at least this share of the highest within so many px gets at least these log odds.
    same_beams, same_extent : float
        One source: nearer than so many beams, or within this part of the better one's half extent.
    """

    min_logit: float
    bright_snr: float
    bright_share: float
    bright_reach: int
    bright_logit: float
    same_beams: float
    same_extent: float


def unpack(held: Tensor, parts: Sequence[Part | None], storage: Storage, sides: tuple[int, ...]) -> Tensor:
    """Physical values of a batch of windows from one buffer, NaN where there are none; float32 (B, *sides)."""
    size = np.dtype(storage.dtype).itemsize
    values = torch.full((len(parts), *sides), torch.nan, dtype=torch.float32, device=held.device)
    for window, part in zip(values, parts, strict=True):
        if part is not None:
            stored = held[part.first : part.first + size * int(np.prod(part.sides))].view(*part.sides, size)
            window[part.place] = physical(
                stored, storage.dtype, scale=storage.scale, zero=storage.zero, blank=storage.blank
            )
    return values


class ImageFinder:
    """A network and all that stands before and behind it, on one device.

    Threads that call it overlap: one reads or waits for its detections while the network works on another's windows.

    Parameters
    ----------
    engine : Engine
        With ``run`` and ``device``.
    head : HeadSpec
    beam : ndarray of float32, shape (4,)
        What the network is told of the beam.
    beam_px : float
        FWHM in px (geometric mean).
    passes : int
        2: a second look at the reflected data.
    rules : Rules
    """

    def __init__(
        self, engine: Any, head: HeadSpec, *, beam: np.ndarray, beam_px: float, passes: int, rules: Rules
    ) -> None:
        self.engine, self.head, self.beam_px, self.passes, self.rules = engine, head, beam_px, passes, rules
        self.lanes = Lanes(engine.device)
        self._beam = torch.from_numpy(np.asarray(beam, np.float32)[None]).to(engine.device)
        self._turn = threading.Lock()

    def find(
        self,
        read: Callable[[np.ndarray], Sequence[Part | None]],
        size: int,
        storage: Storage,
        mesh: MeshOnDevice,
        windows: Sequence[Window],
        cores: Sequence[Window],
        shape: tuple[int, ...],
        *,
        negative: bool = False,
    ) -> list[Detections]:
        """Detections that the windows' cores own and that no better one next to them surely suppresses.

        Parameters
        ----------
        read : callable
            Fills a buffer of bytes with stored values and tells where they lie.
        size : int
            Bytes that it needs.
        storage : Storage
        mesh : MeshOnDevice
        windows, cores : sequence of tuple of slice
            In image px; windows have equal sides.
        shape : tuple of int
            Of the image.
        negative : bool
            Look at the negated image instead.

        Returns
        -------
        list of Detections
            One per window, in image px, with the head's parameters.
        """
        sides = tuple(span.stop - span.start for span in windows[0])
        lanes = self.lanes
        with lanes.buffer(size) as buffer:
            with lanes.lane("read"):
                parts = read(buffer.numpy())
            if all(part is None for part in parts):
                return [Detections.empty(len(sides)) for _ in windows]
            with torch.inference_mode():
                # Enqueued in one go, so that no other thread's network comes between a copy and its own.
                with self._turn:
                    with lanes.lane("copy") as copied:
                        held = buffer.to(self.engine.device, non_blocking=True)
                    with lanes.lane("network", after=copied["event"]) as computed:
                        lanes.hand_over(held, "network")
                        snr = self._snr(unpack(held, parts, storage, sides), mesh, windows, negative)
                        raw = self._network(snr)
                with lanes.lane("decode", after=computed["event"]):
                    for tensor in (snr, raw):
                        lanes.hand_over(tensor, "decode")
                    found = self._decode(raw, snr, windows, cores, shape)
                    # Waits for the device: the buffer is free after it.
                    item, rows = found.fetch(self.head)
        return [rows[item == number] for number in range(len(windows))]

    def _snr(self, values: Tensor, mesh: MeshOnDevice, windows: Sequence[Window], negative: bool) -> Tensor:
        for image, window in zip(values, windows, strict=True):
            level, rms = mesh.sample(window)
            image.sub_(level).div_(rms)
        return values.neg_() if negative else values

    def _network(self, snr: Tensor) -> Tensor:
        image = torch.where(snr.isfinite(), snr, 0.0)[:, None]
        beams = self._beam.expand(len(snr), -1).contiguous()
        if self.passes == 2:
            return look_twice(self.engine.run, image, beams, spec=self.head)
        return self.engine.run(image, beams)

    def _decode(
        self, raw: Tensor, snr: Tensor, windows: Sequence[Window], cores: Sequence[Window], shape: tuple[int, ...]
    ) -> Candidates:
        found = find_candidates(raw, self.head, beam_px=self.beam_px, min_logit=self.rules.min_logit)
        at, inside = nearest_pixel(found.centre, snr.shape[1:])
        value = snr[(found.item, *at.T)]
        # A centre on blank pixels is no source, whatever the network says of the edge around it.
        seen = value.isfinite()
        origin = _corners(windows, "start", raw.device)[found.item]
        low, high = (_corners(cores, end, raw.device)[found.item] for end in ("start", "stop"))
        found.anchor += origin
        seen &= ((found.anchor >= low) & (found.anchor < high)).all(1)
        found.logit = self._trust_bright(found, snr, at, value.where(inside, torch.nan))
        found.centre = found.centre + origin
        found, low, high = found[seen], low[seen], high[seen]
        radius = (self.rules.same_extent * 0.5 * found.size.amax(1) if len(found) else found.logit).to(torch.float64)
        radius = radius.clamp(min=self.rules.same_beams * self.beam_px)
        # What a neighbouring window may find nearer to a row than this could suppress it.
        limits = torch.tensor(shape, device=raw.device)
        below = torch.where(low > 0, found.centre - low, torch.inf)
        above = torch.where(high < limits, high - found.centre, torch.inf)
        uncertain = (torch.minimum(below, above) < self._influence() + 1).any(1)
        return found[nms(found.centre, radius, _rounded(found.logit), uncertain)]

    def _influence(self) -> float:
        """Largest distance from its own core's edge at which a detection can suppress another, px."""
        head, beam = self.head, self.beam_px
        widest = float(np.max(np.array(head.priors) * head.units(beam))) * float(np.exp(LOG_SIZE_LIMIT))
        radius = max(self.rules.same_beams * beam, self.rules.same_extent * 0.5 * widest)
        # Its centre may lie outside of the core that owns its anchor.
        return radius + (head.reach + 1) * max(head.stride) + 1.5 * AGREE_BEAMS * beam

    def _trust_bright(self, found: Candidates, snr: Tensor, at: Tensor, value: Tensor) -> Tensor:
        """As `pipeline.finders.trust_bright`."""
        rules, logit = self.rules, found.logit.clone()
        rows = ((logit < rules.bright_logit) & (value > rules.bright_snr)).nonzero()[:, 0]
        if len(rows) == 0:
            return logit
        steps = torch.arange(-rules.bright_reach, rules.bright_reach + 1, device=snr.device)
        # Of repeated border pixels the highest is the same.
        y, x = (
            (at[rows, axis, None] + steps).clamp(0, snr.shape[1 + axis] - 1) for axis in range(2)
        )
        highest = torch.cat(
            [
                snr[item[:, None, None], down[:, :, None], across[:, None, :]].nan_to_num(nan=-torch.inf).amax((1, 2))
                for item, down, across in zip(found.item[rows].split(64), y.split(64), x.split(64), strict=True)
            ]
        )
        trusted = rows[value[rows] > rules.bright_share * highest]
        logit[trusted] = rules.bright_logit
        return logit

    def close(self) -> None:
        """Free what is held besides the engine."""
        self.lanes.close()


def nearest_pixel(centre: Tensor, sides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The pixel that each place lies in, moved into the window, and whether it lay there."""
    nearest = centre.round().to(torch.int64)
    last = torch.tensor(sides, device=centre.device) - 1
    moved = nearest.clamp(min=0).minimum(last)
    return moved, (nearest == moved).all(1)


def _corners(windows: Sequence[Window], end: str, device: torch.device) -> Tensor:
    return torch.tensor([[getattr(span, end) for span in window] for window in windows], device=device)


def _rounded(logit: Tensor) -> Tensor:
    """Engines differ by rounding: position breaks the ties of the rest, as in `pipeline.merge.suppress`."""
    return (logit.to(torch.float64) * 1e4).round() / 1e4
