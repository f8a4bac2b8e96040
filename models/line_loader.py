"""Training fields of spectra without end: crops of simulated spectra with targets, made in worker processes.

As `models.loader` for images. Every spectrum goes through the continuum and noise estimates of the pipeline, so that
a network sees their errors: troughs beside bright lines, bends that a median does not follow. Fields are random crops,
flipped and negated, with which emission and absorption change places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.boxes import from_centres, overlapping_pairs
from models.fields import Field, PooledFields
from models.yolo.assign import assign_centres
from models.yolo.head import HeadSpec
from survey_io.continuum import estimate_continuum
from survey_io.simulate.line_shapes import SHAPES
from survey_io.simulate.lines import LineModel, simulate_lines

# A line whose matched filter reaches this S/N must be found; between the two it is neither demanded nor punished.
DEMANDED, IGNORED_BELOW = 4.5, 3.0
# Anchors within this share of the FWHM of a line's centre answer for it: P of a wide line, whose centre is known to
# many channels only, would else be spread over as many anchors.
RADIUS_SHARE, LEAST_RADIUS, MOST_RADIUS = 0.22, 1.6, 30.0
# A line whose box (centre and FWHM, of at least so many channels) overlaps by this IoU with that of a higher one shows
# no peak of its own: equal lines do from 0.8 FWHM apart.
HIDDEN_IOU, HIDDEN_LEAST = 0.1, 3.0


@dataclass
class LineField:
    """One member of the pool: S/N as the pipeline sees it, blanks 0; and its lines.

    Of the lines ``z``, ``width``, ``snr`` and ``ignore`` (neither demanded nor punished); ``flux`` is the signed sum of
    their S/N over channels.
    """

    snr: np.ndarray
    lines: dict[str, np.ndarray]


def draw_line_model(channels: int, rng: np.random.Generator) -> LineModel:
    """A spectrum of the training range: half of them plain, the rest with all that goes wrong in spectra."""
    kind = rng.random()
    density = 0.0 if kind < 0.1 else float(np.exp(rng.uniform(np.log(0.5), np.log(40))))
    width = float(np.exp(rng.uniform(np.log(2.0), np.log(110.0))))
    # Crowded spectra hold narrow lines: others would be a continuum.
    density = min(density, 220.0 / width)
    count = int(rng.integers(1, len(SHAPES) + 1))
    absorbing = float(rng.choice([0.0, 1.0, rng.random()], p=[0.4, 0.3, 0.3]))
    messy = rng.random() < 0.5
    many = {
        "noise_bend": float(rng.uniform(0, 0.4)), "loud": float(rng.choice([0.0, 1.0], p=[0.6, 0.4])),
        "spikes": float(np.exp(rng.uniform(np.log(0.1), np.log(8)))), "gaps": float(rng.choice([0.0, 1.0, 3.0])),
        "flagged": float(rng.choice([0.0, 0.01, 0.08], p=[0.6, 0.3, 0.1])),
        "level": float(rng.uniform(-5, 200)), "slope": float(rng.normal(0, 30)),
        "bend": float(np.exp(rng.uniform(np.log(0.1), np.log(20)))), "bend_length": float(rng.uniform(500, 2000)),
        "ripple": float(rng.choice([0.0, np.exp(rng.uniform(np.log(0.05), np.log(1.0)))])),
        "ripple_period": float(np.exp(rng.uniform(np.log(25), np.log(600)))),
    } if messy else {"spikes": float(rng.choice([0.0, 0.5])), "gaps": 0.0}  # fmt: skip
    return LineModel(
        channels=channels, density=density, width=width, width_scatter=float(rng.choice([0.1, 0.4, 1.0])),
        shapes=tuple(str(s) for s in rng.permutation(SHAPES)[:count]), absorbing=absorbing,
        least_snr=1.5, most_snr=float(np.exp(rng.uniform(np.log(30), np.log(2000)))),
        bright=float(rng.uniform(0, 0.4)), blended=float(rng.choice([0.05, 0.3])),
        smoothing=str(rng.choice(["none", "hanning", "resampled"], p=[0.5, 0.2, 0.3])),
        resampling=float(rng.uniform(1.1, 2.5)), **many,
    )  # fmt: skip


def draw_field(channels: int, rng: np.random.Generator) -> LineField:
    """Draw a spectrum and take its continuum and noise off it as the pipeline does."""
    model = draw_line_model(channels, rng)
    spectrum = simulate_lines(model, rng)
    # Half of the files tell the course of their noise.
    level, rms = estimate_continuum(spectrum.flux, error=spectrum.rms if rng.random() < 0.5 else None)
    with np.errstate(invalid="ignore"):
        snr = np.nan_to_num((spectrum.flux - level) / rms)
    table = spectrum.lines
    lines = {name: np.asarray(table[name]) for name in ("z", "width", "flux", "snr")}
    at = np.clip(np.rint(lines["z"]).astype(int), 0, channels - 1)
    lines["flux"] = lines["flux"] / spectrum.rms[at]
    lines["ignore"] = (lines["snr"] < DEMANDED) | hidden_lines(lines)
    keep = (lines["snr"] > IGNORED_BELOW) & seen_lines(lines["z"], ~spectrum.blank)
    return LineField(snr.astype(np.float32), {name: value[keep] for name, value in lines.items()})


def seen_lines(z: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which of some lines have their centre, or a channel beside it, outside gaps."""
    near = np.convolve(seen, np.ones(3), mode="same") > 0
    return near[np.clip(np.rint(z).astype(int), 0, len(seen) - 1)]


def hidden_lines(lines: dict[str, np.ndarray]) -> np.ndarray:
    """Lines that a higher one of the same sign covers: they are neither demanded nor punished."""
    hidden = np.zeros(len(lines["z"]), bool)
    z, width, flux = lines["z"], lines["width"], lines["flux"]
    boxes = from_centres(z[:, None], np.maximum(width, HIDDEN_LEAST)[:, None])
    one, other, overlap = overlapping_pairs(boxes, boxes)
    height = np.abs(flux) / width
    under = (overlap > HIDDEN_IOU) & (height[one] < height[other]) & (flux[one] * flux[other] > 0)
    hidden[one[under]] = True
    return hidden


def crop_field(field: LineField, size: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A random crop, flipped and negated at random, with the lines whose centres lie in it; blank beyond the ends."""
    count = len(field.snr)
    # Ends of spectra are part of every fourth field or so.
    margin = size // 4
    first = int(rng.integers(-margin, max(count - size + margin, 1 - margin)))
    snr = np.zeros(size, np.float32)
    low, high = max(first, 0), min(first + size, count)
    snr[low - first : high - first] = field.snr[low:high]
    lines = {name: value.copy() for name, value in field.lines.items()}
    lines["z"] -= first
    inside = (lines["z"] > -0.5) & (lines["z"] < size - 0.5)
    lines = {name: value[inside] for name, value in lines.items()}
    if rng.random() < 0.5:
        snr, lines["z"] = snr[::-1], size - 1 - lines["z"]
    if rng.random() < 0.3:
        snr, lines["flux"] = -snr, -lines["flux"]
    return np.ascontiguousarray(snr), lines


def encode_line_targets(lines: dict[str, np.ndarray], spec: HeadSpec) -> dict[str, np.ndarray]:
    """Targets of a field in the terms of `yolo_loss`."""
    ones = np.ones(len(lines["z"]))
    return {
        "centre": lines["z"][:, None],
        "size": lines["width"][:, None],
        # There is no beam along a spectral axis.
        "beam": ones,
        "params": np.stack([np.log(np.abs(lines["flux"])), np.log(lines["width"] / spec.line_channels)], -1),
        "param_weight": np.stack([ones, ones], -1),
        "classes": np.stack([lines["flux"] > 0, lines["flux"] < 0], -1).astype(float),
    }


class SpectrumFields(PooledFields):
    """Endless batches of fields for detectors of lines in spectra; the interface is that of `models.loader.SkyFields`.

    Parameters
    ----------
    spec : HeadSpec
    batch : int
        Fields per batch.
    size : int
        Channels of a field.
    seed : int
        Two loaders of one seed give the same batches.
    pool, renew : int
        Spectra kept, and batches after which one is replaced.
    first, every : int
        Numbers of the batches: see `models.streams.NumberedBatches`.
    """

    def __init__(
        self, spec: HeadSpec, *, batch: int, size: int, seed: int, pool: int = 128, renew: int = 1,
        first: int = 0, every: int = 1,
    ):  # fmt: skip
        grid = (size // spec.stride[0],)
        super().__init__(
            batch=batch, seed=seed, assigned=(spec.boxes, *grid), at_first=16, pool=pool, renew=renew,
            first=first, every=every,
        )  # fmt: skip
        self.spec, self.size = spec, size
        self.anchors = spec.anchor_positions(grid).reshape(-1, 1)

    def draw(self, rng: np.random.Generator) -> LineField:
        """See `PooledFields`."""
        # Some spectra are shorter than a field; most are long, so that few fields hold an end.
        short = rng.random() < 0.25
        channels = int(rng.integers(self.size // 5, 2 * self.size) if short else rng.integers(2, 6) * self.size)
        return draw_field(channels, rng)

    def cut(self, sky: LineField, rng: np.random.Generator) -> Field:
        """See `PooledFields`."""
        snr, lines = crop_field(sky, self.size, rng)
        target = encode_line_targets(lines, self.spec)
        radius = np.clip(RADIUS_SHARE * lines["width"], LEAST_RADIUS, MOST_RADIUS)
        # Of two lines the one with the higher peak has the anchors between them.
        priority = np.log(np.maximum(lines["snr"], 1e-3) / np.sqrt(lines["width"]))
        found = assign_centres(self.anchors, target["centre"], radius, priority, lines["ignore"])
        return Field(snr, (1.0, 1.0, 0.0), target, found, lines["ignore"])
