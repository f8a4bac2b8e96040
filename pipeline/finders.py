"""One face for every detector: a network behind an engine, or a method without weights."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from models.detections import Detections
from pipeline.engine_choice import PROCESSOR, load_chain, own_device, pick_engine, told

if TYPE_CHECKING:
    from models.engines.base import Engine
    from models.engines.chain import ChainEngine
    from pipeline.device_pieces import DeviceImages

# Candidates less likely than this are not carried further: they could not end in a catalogue.
MIN_PROBABILITY = 0.03
# A detection of this S/N that has at least this share of the highest S/N within so many px gets at least these odds.
BRIGHT_SNR, BRIGHT_SHARE, BRIGHT_REACH, BRIGHT_LOGIT = 20.0, 0.9, 32, 4.0


@dataclass(frozen=True)
class FinderSpec:
    """What a worker needs to find sources in a window: small, hashable and picklable.

    Attributes
    ----------
    model : str
        Registered name, or path of a weights file.
    engine, precision : str
        As `models.engines.base.EngineSpec`.
    threads : int
        Processor cores of one call.
    beam : (major, minor, theta)
        FWHM in px of the pixels that the finder gets, rad.
    passes : int
        2: a network also looks at the reflected data (`models.yolo.reflect`).
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
    beam: tuple[float, float, float]
    stride: int = field(default=1, compare=False)
    halo: int = field(default=0, compare=False)
    passes: int = 1
    others: tuple[tuple[str, str, str], ...] = ()
    devices: tuple[str, ...] = PROCESSOR
    why: str = field(default="", compare=False)

    def chain(self) -> ChainEngine | None:
        """This thread's engine; None without a network."""
        return getattr(_load(self, own_device(self.devices)), "engine", None)

    def on_device(self, engine: Engine) -> DeviceImages:
        """The stages around an engine on its device, the same for all threads."""
        return _load(self, own_device(self.devices)).on_device(engine)

    def told(self) -> dict[str, np.ndarray]:
        """For a piece's arrays: what computed it, and what happened."""
        return told(self.chain())

    def warm_up(self) -> None:
        """Load the network into this process, once for all pieces that it will work on."""
        _load(self, own_device(self.devices))

    def find(self, snr: np.ndarray, *, negative: bool = False) -> list[Detections]:
        """Detections of each window of a batch, in window pixels.

        Parameters
        ----------
        snr : ndarray of float32, shape (B, H, W)
            S/N with NaN where blank.
        negative : bool
            Look at the negated image instead.
        """
        return _load(self, own_device(self.devices)).find(-snr if negative else snr)


class NetworkFinder:
    """A network detector behind an engine."""

    def __init__(self, spec: FinderSpec, device: str):
        from models.beam import beam_vector
        from models.outline import load_outline

        self.head = load_outline(spec.model)[0].head
        self.engine = load_chain(spec, device)
        self.spec = spec
        self.beam_px = math.sqrt(spec.beam[0] * spec.beam[1])
        self.vector, self.passes = beam_vector(spec.beam), spec.passes
        self._device_lock = threading.Lock()
        self._on_device: tuple[Engine, DeviceImages] | None = None

    def on_device(self, engine: Engine) -> DeviceImages:
        from pipeline.device_pieces import DeviceImages

        with self._device_lock:
            if self._on_device is None or self._on_device[0] is not engine:
                self._on_device = engine, DeviceImages(self.spec, engine)
            return self._on_device[1]

    def find(self, snr: np.ndarray) -> list[Detections]:
        from models.yolo.candidates import find_candidates
        from models.yolo.maps import look

        # One sum tells whether anything is blank: most tiles need no copy.
        blank = not np.isfinite(snr.sum())
        image = (np.nan_to_num(snr, nan=0.0, posinf=0.0, neginf=0.0) if blank else snr)[:, None]
        beams = np.repeat(self.vector[None], len(snr), axis=0)
        looks = look(self.engine, image, beams, spec=self.head, passes=self.passes)
        low = math.log(MIN_PROBABILITY / (1 - MIN_PROBABILITY))
        found = []
        for maps, window in zip(looks, snr, strict=True):
            part = find_candidates(maps, self.head, beam_px=self.beam_px, min_logit=low)
            # A centre on blank pixels is no source, whatever the network says of the edge around it.
            y, x = (
                np.clip(np.rint(c).astype(int), 0, n - 1)
                for c, n in zip(part.centre.T, window.shape, strict=True)
            )
            part.logit = trust_bright(part, window)
            found.append(physical(part[np.isfinite(window[y, x])], self.beam_px))
        return found


def physical(part: Detections, beam_px: float) -> Detections:
    """Parameters of a head as flux over noise, intrinsic FWHM (px) and angle, with errors."""
    p = part.params
    major, minor = (np.exp(np.clip(p[n], -4, 5)) * beam_px for n in ("log_major", "log_minor"))
    swap = minor > major
    major, minor = np.where(swap, minor, major), np.where(swap, major, minor)
    flux = np.exp(np.clip(p["log_flux"], -3, 16))
    part.params = {
        "flux_snr": flux,
        "flux_error": flux * p["log_flux_scale"],
        "major": major,
        "minor": minor,
        "major_scale": p["log_major_scale"],
        "theta": np.mod(0.5 * np.arctan2(p["sin_2theta"], p["cos_2theta"]), np.pi),
        "position_error": p["position_scale"] * beam_px,
    }
    part.params = {name: np.asarray(value, np.float32) for name, value in part.params.items()}
    return part


def trust_bright(part: Detections, window: np.ndarray) -> np.ndarray:
    """Log odds of detections, raised for those that are far too bright to be noise or a sidelobe.

    Bright extended sources are rare in training, and the network doubts them; but noise never reaches 20 sigma, and
    the brightest object of its surroundings is neither a sidelobe nor a piece of another. (Trusting all that had 0.3
    of the highest S/N added 50 pieces of bright sources on a sky of 1600.) The surroundings are less than the halo.

    Parameters
    ----------
    part : Detections
        In window pixels.
    window : ndarray of float32, shape (H, W)
        S/N with NaN where blank.
    """
    logit = part.logit.copy()
    y, x = np.rint(part.centre).astype(int).T
    inside = (y >= 0) & (x >= 0) & (y < window.shape[0]) & (x < window.shape[1])
    for row in np.flatnonzero(inside & (logit < BRIGHT_LOGIT)):
        value = window[y[row], x[row]]
        if value > BRIGHT_SNR:
            rows, columns = (slice(max(c[row] - BRIGHT_REACH, 0), c[row] + BRIGHT_REACH + 1) for c in (y, x))
            if value > BRIGHT_SHARE * np.nanmax(window[rows, columns]):
                logit[row] = BRIGHT_LOGIT
    return logit


class ThresholdFinder:
    """The weightless detector; its sizes are apparent, so the beam is taken out for the common columns."""

    def __init__(self, spec: FinderSpec):
        from models.registry import get_model

        self.detector = get_model(spec.model).build()
        self.beam = spec.beam

    def find(self, snr: np.ndarray) -> list[Detections]:
        from pipeline.gaussians import deconvolve

        found = []
        for window in snr:
            d = self.detector.find(window, self.beam)
            centre = np.stack([d["y"], d["x"]], -1)
            major, minor, theta = deconvolve((d["major"], d["minor"], d["theta"]), self.beam)
            score = np.clip(d["score"], 1e-6, 1 - 1e-6)
            params = {
                "flux_snr": d["flux_snr"], "flux_error": d["flux_snr"] / np.maximum(d["peak_snr"], 1),
                "major": major, "minor": minor, "major_scale": np.ones_like(score), "theta": theta,
                "position_error": 0.5 * d["major"] / np.maximum(d["peak_snr"], 1),
            }  # fmt: skip
            found.append(
                Detections(
                    centre,
                    np.stack([d["major"], d["major"]], -1).astype(np.float32),
                    np.log(score / (1 - score)).astype(np.float32),
                    np.rint(centre).astype(np.int64),
                    {name: np.nan_to_num(np.asarray(v, np.float32)) for name, v in params.items()},
                )
            )
        return found


@lru_cache(maxsize=16)
def _load(spec: FinderSpec, device: str) -> Any:
    from models.weights import needs_weights

    return NetworkFinder(spec, device) if needs_weights(spec.model) else ThresholdFinder(spec)


def make_finder(
    model: str, *, engine: str, precision: str, threads: int, beam: tuple[float, float, float],
    passes: int | None = None, device: str = "auto", client: Any = None,
) -> tuple[FinderSpec, dict[str, Any]]:
    """Resolve a model's name or file into a finder and its card.

    Returns
    -------
    finder : FinderSpec
        With the model's stride and the halo that its receptive field needs.
    card : dict
        ``threshold``, ``calibration``, ``sha256`` and the rest of the weights' card; empty where there are none.

    Raises
    ------
    OptionError
        For a model that does not exist, with the known ones.
    """
    from dataclasses import asdict

    from models.outline import load_outline
    from models.registry import get_model
    from models.weights import needs_weights

    if not needs_weights(model):
        detector = get_model(model).build()
        halo = detector.field_for(beam[0]) // 2 + 1
        return FinderSpec(model, "none", "f32", threads, beam, 1, halo), {}
    outline, card = load_outline(model)
    stride = int(outline.stride)
    halo = -(-(outline.receptive_field // 2) // stride) * stride + 2 * stride
    choice = pick_engine(model, engine=engine, precision=precision, device=device, client=client)
    passes = passes or int(card.calibration.get("passes", 1))
    (name, precision, _), *others = choice.ways
    return FinderSpec(
        model, name, precision, threads, beam, stride, halo, passes, tuple(others), choice.devices, choice.line
    ), asdict(card)
