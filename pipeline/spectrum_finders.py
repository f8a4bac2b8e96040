"""One face for every finder of lines in spectra: a network behind an engine, or the filter bank without weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from models.detections import Detections
from pipeline.engine_choice import PROCESSOR, load_chain, own_device, pick_engine, told

# Candidates less likely than this are not carried further: they could not end in a catalogue.
MIN_PROBABILITY = 0.03


@dataclass(frozen=True)
class SpectrumFinderSpec:
    """What is needed to find lines in windows of a spectrum: small, hashable and picklable.

    Attributes
    ----------
    model : str
        Registered name, or path of a weights file.
    engine, precision : str
        As `models.engines.base.EngineSpec`.
    threads : int
        Processor cores of one call.
    stride, halo : int
        Channels.
    passes : int
        2: a network also looks at the reflected spectrum (`models.yolo.reflect`).
    others : tuple of (engine, precision, device)
        What goes on when the engine fails.
    devices : tuple of str
        Each thread takes one of them.
    why : str
        One line on why this engine.
    """

    model: str
    engine: str
    precision: str
    threads: int
    stride: int = field(default=1, compare=False)
    halo: int = field(default=0, compare=False)
    passes: int = 1
    others: tuple[tuple[str, str, str], ...] = ()
    devices: tuple[str, ...] = PROCESSOR
    why: str = field(default="", compare=False)

    def told(self) -> dict[str, np.ndarray]:
        """For a piece's arrays: what computed it, and what happened."""
        return told(getattr(_load(self, own_device(self.devices)), "engine", None))

    def warm_up(self) -> None:
        """Load the network into this process, once for all pieces that it will work on."""
        _load(self, own_device(self.devices))

    def find(self, snr: np.ndarray, noise: np.ndarray | None = None) -> list[Detections]:
        """Detections of each window of a batch, in window channels.

        Parameters
        ----------
        snr : ndarray of float32, shape (B, C)
            S/N with NaN where blank.
        noise : ndarray, shape (B, filters), optional
            `noise` of the spectrum that each window is of.

        Returns
        -------
        list of Detections
            ``params``: ``flux_snr`` (signed sum of S/N over channels), ``flux_error``, ``sign``, ``width_error`` and
            ``position_error`` (channels).
        """
        return _load(self, own_device(self.devices)).find(snr, noise)

    def presence(self, snr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a network says of every place of some windows, where no candidates are asked for.

        Parameters
        ----------
        snr : ndarray of float32, shape (B, C)
            S/N with NaN where blank.

        Returns
        -------
        at : ndarray, shape (n,)
            Channels of the places, ascending.
        logit, emission : ndarray, shape (B, n)
            Log odds of a line, and the probability that it is one in emission.
        """
        return _load(self, own_device(self.devices)).presence(snr)

    def noise(self, snr: np.ndarray) -> np.ndarray:
        """What a finder has to know of a whole spectrum, shape (C,), before it looks at windows of it."""
        return _load(self, own_device(self.devices)).noise(snr)


class FilterSpectrumFinder:
    """The weightless detector."""

    def __init__(self, spec: SpectrumFinderSpec):
        from models.registry import get_model

        self.detector = get_model(spec.model).build()

    def noise(self, snr: np.ndarray) -> np.ndarray:
        return self.detector.noise(snr)

    def find(self, snr: np.ndarray, noise: np.ndarray) -> list[Detections]:
        return [self._find(window, rms) for window, rms in zip(snr, noise, strict=True)]

    def _find(self, window: np.ndarray, rms: np.ndarray) -> Detections:
        d = self.detector.find(window, rms)
        score = np.clip(d["score"], 1e-9, 1 - 1e-9)
        strength = np.maximum(np.abs(d["peak_snr"]), 1.0)
        params = {
            "flux_snr": d["flux"], "flux_error": np.abs(d["flux"]) / strength, "sign": np.sign(d["flux"]),
            "width_error": d["width"] / strength, "position_error": 0.6 * d["width"] / strength,
        }  # fmt: skip
        return Detections(
            np.asarray(d["z"], float)[:, None],
            np.asarray(d["width"], np.float32)[:, None],
            np.log(score / (1 - score)).astype(np.float32),
            np.rint(d["z"]).astype(np.int64)[:, None],
            {name: np.asarray(value, np.float32) for name, value in params.items()},
        )


class NetworkSpectrumFinder:
    """A network detector behind an engine."""

    def __init__(self, spec: SpectrumFinderSpec, device: str):
        from models.outline import load_outline

        self.head = load_outline(spec.model)[0].head
        self.engine = load_chain(spec, device)
        self.passes = spec.passes

    def noise(self, snr: np.ndarray) -> np.ndarray:
        return np.empty(0)

    def find(self, snr: np.ndarray, noise: np.ndarray | None = None) -> list[Detections]:
        from models.yolo.candidates import find_candidates
        from models.yolo.reflect import look_twice

        image = np.nan_to_num(snr, nan=0.0, posinf=0.0, neginf=0.0)[:, None]
        raw = look_twice(self.engine, image, spec=self.head) if self.passes == 2 else self.engine(image)
        low = math.log(MIN_PROBABILITY / (1 - MIN_PROBABILITY))
        found = []
        for maps, window in zip(raw, snr, strict=True):
            part = find_candidates(maps, self.head, beam_px=1.0, min_logit=low)
            # A centre within a gap is no line, whatever the network says of the edges around it.
            seen = np.convolve(np.isfinite(window), np.ones(3), mode="same") > 0
            at = np.clip(np.rint(part.centre[:, 0]).astype(int), 0, len(window) - 1)
            found.append(self.physical(part[seen[at]]))
        return found

    def presence(self, snr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raw = self.engine(np.nan_to_num(snr, nan=0.0, posinf=0.0, neginf=0.0)[:, None])
        values = raw.reshape(len(raw), self.head.boxes, self.head.box_channels, -1)
        place = self.head.anchor_positions(raw.shape[2:])[..., 0]
        order = np.argsort(place, axis=None, kind="stable")
        classes = values[:, :, self.head.slot("classes")]
        emission = 1 / (1 + np.exp(np.clip(-classes[:, :, self.head.classes.index("emission")], -60, 60)))
        logit = values[:, :, self.head.slot("presence").start]
        return place.ravel()[order], *(a.reshape(len(raw), -1)[:, order] for a in (logit, emission))

    def physical(self, part: Detections) -> Detections:
        """Parameters of the head in S/N units and channels, with errors."""
        p = part.params
        sign = np.where(p["is_emission"] >= p["is_absorption"], 1.0, -1.0)
        flux = np.exp(np.clip(p["log_flux"], -3, 16))
        width = np.exp(np.clip(p["log_width"], -3, 5)) * self.head.line_channels
        part.size = width.astype(np.float32)[:, None]
        part.params = {
            "flux_snr": sign * flux, "flux_error": flux * p["log_flux_scale"], "sign": sign,
            "width_error": width * p["log_width_scale"],
            "position_error": p["position_scale"] * self.head.line_channels,
        }  # fmt: skip
        part.params = {name: np.asarray(value, np.float32) for name, value in part.params.items()}
        return part


@lru_cache(maxsize=16)
def _load(spec: SpectrumFinderSpec, device: str) -> Any:
    from models.weights import needs_weights

    return NetworkSpectrumFinder(spec, device) if needs_weights(spec.model) else FilterSpectrumFinder(spec)


def make_spectrum_finder(
    model: str, *, engine: str = "auto", precision: str = "f32", threads: int = 1, passes: int | None = None,
    device: str = "auto", client: Any = None,
) -> tuple[SpectrumFinderSpec, dict[str, Any]]:
    """Resolve a model's name or file into a finder and its card (empty without weights)."""
    from models.weights import needs_weights

    if not needs_weights(model):
        from models.registry import get_model

        return SpectrumFinderSpec(model, "none", "f32", threads, 1, get_model(model).build().halo), {}
    from models.outline import load_outline

    outline, card = load_outline(model)
    stride = int(np.ravel(outline.stride)[0])
    # Half the receptive field, and two cells more for the neighbours of a candidate.
    halo = -(-(int(np.ravel(outline.receptive_field)[0]) // 2) // stride) * stride + 2 * stride
    choice = pick_engine(model, engine=engine, precision=precision, device=device, client=client)
    passes = passes or int(card.calibration.get("passes", 1))
    (name, precision, _), *others = choice.ways
    return SpectrumFinderSpec(
        model, name, precision, threads, stride, halo, passes, tuple(others), choice.devices, choice.line
    ), asdict(card)
