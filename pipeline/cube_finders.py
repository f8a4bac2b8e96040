"""One face for every finder of lines in cubes: a network behind an engine, or the filter bank without weights."""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from models.detections import Detections
from models.engines.choose import Choice
from pipeline.engine_choice import PROCESSOR, load_chain, own_device, pick_engine, told

if TYPE_CHECKING:
    from models.engines.base import Engine
    from models.engines.chain import ChainEngine
    from models.yolo.head import HeadSpec
    from pipeline.device_cubes import DeviceCubes

# Candidates less likely than this are not carried further: they could not end in a catalogue.
MIN_PROBABILITY = 0.03
# Two detections nearer than this part of the larger one's extent, axis by axis, are one galaxy.
SAME_SOURCE = 0.6
# Extents below these do not tell two sources apart: channels, and beams.
LEAST_CHANNELS, LEAST_BEAMS = 4.0, 1.0


@dataclass(frozen=True)
class CubeFinderSpec:
    """What a worker needs to find lines in a window: small, hashable and picklable.

    Attributes
    ----------
    model : str
        Registered name, or path of a weights file.
    engine, precision : str
        As `models.engines.base.EngineSpec`.
    threads : int
        Processor cores of one call.
    beam : (major, minor, theta)
        FWHM in px, rad.
    scale_rms : tuple of float
        Noise of each filter of the filter bank, or of the two filters that help a network, measured once for the whole
        cube.
    stride, halo : tuple of int
        Per axis (channel, y, x).
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
    scale_rms: tuple[float, ...] = ()
    stride: tuple[int, int, int] = field(default=(1, 1, 1), compare=False)
    halo: tuple[int, int, int] = field(default=(0, 0, 0), compare=False)
    passes: int = 1
    others: tuple[tuple[str, str, str], ...] = ()
    devices: tuple[str, ...] = PROCESSOR
    why: str = field(default="", compare=False)

    @property
    def beam_px(self) -> float:
        """Geometric mean of the beam's axes, px."""
        return math.sqrt(self.beam[0] * self.beam[1])

    def chain(self) -> ChainEngine | None:
        """This thread's engine; None without a network."""
        return getattr(_load(self, own_device(self.devices)), "engine", None)

    def on_device(self, engine: Engine) -> DeviceCubes:
        """The stages around an engine on its device, the same for all threads."""
        return _load(self, own_device(self.devices)).on_device(engine)

    def told(self) -> dict[str, np.ndarray]:
        """For a piece's arrays: what computed it, and what happened."""
        return told(self.chain())

    def warm_up(self) -> None:
        """Load the network into this process, once for all pieces that it will work on."""
        _load(self, own_device(self.devices))

    def find(self, snr: np.ndarray, *, whole: bool = False) -> Detections:
        """Detections of one window, in window pixels.

        Parameters
        ----------
        snr : ndarray of float32, shape (C, H, W)
            S/N with NaN where blank.
        whole : bool
            It is known that nothing is blank.
        """
        return _load(self, own_device(self.devices)).find(snr, whole=whole)


class FilterFinder:
    """The weightless detector."""

    def __init__(self, spec: CubeFinderSpec):
        from models.registry import get_model

        self.detector = get_model(spec.model).build()
        self.spec = spec

    def find(self, snr: np.ndarray, *, whole: bool = False) -> Detections:
        d = self.detector.find(snr, self.spec.beam_px, self.spec.scale_rms)
        centre = np.stack([d["z"], d["y"], d["x"]], -1).astype(float)
        score = np.clip(d["score"], 1e-9, 1 - 1e-9)
        return Detections(
            centre,
            np.asarray(d["size"], np.float32).reshape(-1, 3),
            np.log(score / (1 - score)).astype(np.float32),
            np.rint(centre).astype(np.int64),
            {"peak_snr": np.asarray(d["peak_snr"], np.float32)},
        )


class NetworkCubeFinder:
    """A network detector behind an engine."""

    def __init__(self, spec: CubeFinderSpec, device: str):
        from models.beam import beam_vector
        from models.outline import load_outline

        self.head = load_outline(spec.model)[0].head
        self.engine = load_chain(spec, device)
        self.spec = spec
        self.vector = beam_vector(spec.beam)[None]
        self._device_lock = threading.Lock()
        self._on_device: tuple[Engine, DeviceCubes] | None = None

    def on_device(self, engine: Engine) -> DeviceCubes:
        from pipeline.device_cubes import DeviceCubes

        with self._device_lock:
            if self._on_device is None or self._on_device[0] is not engine:
                self._on_device = engine, DeviceCubes(self.spec, engine)
            return self._on_device[1]

    def find(self, snr: np.ndarray, *, whole: bool = False) -> Detections:
        from models.yolo.candidates import find_candidates
        from models.yolo.maps import look
        from pipeline.cube_bright import find_bright, trust_bright_lines

        image = without_blanks(snr, self.head.stride, whole=whole)[None, None]
        maps = look(self.engine, image, self.vector, spec=self.head, passes=self.spec.passes)[0]
        low = math.log(MIN_PROBABILITY / (1 - MIN_PROBABILITY))
        found = find_candidates(maps, self.head, beam_px=self.spec.beam_px, min_logit=low)
        at = tuple(np.clip(np.rint(c).astype(int), 0, n - 1) for c, n in zip(found.centre.T, snr.shape, strict=True))
        # A centre on blank voxels is no source, whatever the network says of the edge around it.
        found = physical(found[np.isfinite(snr[at])], self.head, self.spec.beam_px)
        found.logit = trust_bright_lines(found, image[0, 0], self.spec.halo)
        bright = find_bright(image[0, 0], self.spec.beam_px, self.spec.scale_rms, self.spec.halo[1], found)
        return Detections.concatenate([found, bright])


def without_blanks(snr: np.ndarray, stride: tuple[int, ...], *, whole: bool = False) -> np.ndarray:
    """Blanks as 0, with sides that are multiples of a network's stride; the same array where it is so already."""
    fits = not any(n % s for n, s in zip(snr.shape, stride, strict=True))
    if fits and (whole or np.isfinite(snr.sum())):
        return snr
    whole = np.zeros([-(-n // s) * s for n, s in zip(snr.shape, stride, strict=True)], np.float32)
    np.copyto(whole[tuple(slice(0, n) for n in snr.shape)], snr, where=np.isfinite(snr))
    return whole


def physical(found: Detections, head: HeadSpec, beam: float) -> Detections:
    """Parameters of the head in S/N units, px, channels and radians, with errors."""
    p = found.params
    flux = np.exp(np.clip(p["log_flux"], -3, 16))
    found.params = {
        "net_flux": flux,
        "net_flux_error": flux * p["log_flux_scale"],
        "net_size": np.exp(np.clip(p["log_size"], -4, 5)) * beam,
        "net_size_scale": p["log_size_scale"],
        "net_w20": np.exp(np.clip(p["log_w20"], -4, 4)) * head.line_channels,
        "net_w20_scale": p["log_w20_scale"],
        "net_inclination": np.clip(p["inclination"], 0.0, np.pi / 2),
        "net_inclination_error": p["inclination_scale"],
        "net_theta": np.mod(np.arctan2(p["sin_theta"], p["cos_theta"]), 2 * np.pi),
        "net_theta_error": p["angle_scale"],
    }
    found.params = {name: np.asarray(value, np.float32) for name, value in found.params.items()}
    return found


@lru_cache(maxsize=16)
def _load(spec: CubeFinderSpec, device: str) -> Any:
    from models.weights import needs_weights

    return NetworkCubeFinder(spec, device) if needs_weights(spec.model) else FilterFinder(spec)


def make_cube_finder(
    model: str,
    pixels: Any,
    noise: Any,
    *,
    engine: str,
    precision: str,
    threads: int,
    beam: tuple[float, float, float],
    passes: int | None = None,
    device: str = "auto",
    client: Any = None,
) -> tuple[CubeFinderSpec, dict[str, Any]]:
    """Resolve a model's name or file into a finder for this cube, and its card (empty without weights)."""
    from models.weights import needs_weights

    if needs_weights(model):
        choice = pick_engine(model, engine=engine, precision=precision, device=device, client=client)
        return _network_finder(model, pixels, noise, choice, threads, beam, passes)
    from models.detectors.smooth_clip import measure_scale_rms
    from models.registry import get_model

    beam_px = math.sqrt(beam[0] * beam[1])
    detector = get_model(model).build()
    rms = tuple(float(v) for v in measure_scale_rms(pixels, noise, beam_px, detector=detector))
    halo = tuple(int(v) for v in detector.halo(beam_px))
    return CubeFinderSpec(model, "none", "f32", threads, beam, rms, (1, 1, 1), halo), {}


def _network_finder(
    model: str, pixels: Any, noise: Any, choice: Choice, threads: int, beam: tuple[float, float, float],
    passes: int | None,
) -> tuple[CubeFinderSpec, dict[str, Any]]:
    from models.outline import load_outline
    from pipeline.cube_bright import measure_bright_rms

    outline, card = load_outline(model)
    stride = tuple(int(s) for s in outline.stride)
    # Half the receptive field, and one cell more for the neighbours of a candidate.
    halo = tuple(
        -(-(field // 2) // s) * s + s for field, s in zip(outline.receptive_field, stride, strict=True)
    )
    rms = measure_bright_rms(pixels, noise, math.sqrt(beam[0] * beam[1]), halo[1])
    passes = passes or int(card.calibration.get("passes", 1))
    (name, precision, _), *others = choice.ways
    return CubeFinderSpec(
        model, name, precision, threads, beam, rms, stride, halo, passes, tuple(others), choice.devices, choice.line
    ), asdict(card)


def suppress_lines(found: Detections, beam_px: float) -> Detections:
    """Exact greedy suppression over the whole cube, independent of the order of rows; sorted by position.

    A detection falls when a better one lies within `SAME_SOURCE` of either's extent, channels and pixels each measured
    by the extents of their own axis.
    """
    if len(found) == 0:
        return found
    least = np.array([LEAST_CHANNELS, LEAST_BEAMS * beam_px, LEAST_BEAMS * beam_px])
    size = np.maximum(found.size, least)
    rank = np.round(found.logit.astype(np.float64), 4)
    # Pairs are looked for in units of the least extent, with each detection's own radius; then judged exactly.
    scaled = found.centre / least
    radius = SAME_SOURCE * (size / least).max(axis=1)
    keep = _ellipsoid_nms(found.centre, size, scaled, radius, rank)
    return found[keep].sorted()


def _ellipsoid_nms(
    centre: np.ndarray, size: np.ndarray, scaled: np.ndarray, radius: np.ndarray, rank: np.ndarray
) -> np.ndarray:
    from scipy.spatial import cKDTree

    order = np.lexsort((*centre.T, -rank))
    tree = cKDTree(scaled)
    kept = np.zeros(len(centre), bool)
    fallen = np.zeros(len(centre), bool)
    widest = float(radius.max())
    for row in order:
        if fallen[row]:
            continue
        kept[row] = True
        near = np.asarray(tree.query_ball_point(scaled[row], widest), int)
        near = near[~kept[near]]
        extent = np.maximum(size[near], size[row])
        inside = (((centre[near] - centre[row]) / (SAME_SOURCE * extent)) ** 2).sum(axis=1) < 1
        fallen[near[inside]] = True
    return kept
