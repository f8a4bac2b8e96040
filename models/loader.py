"""Training fields without end: crops of simulated skies with targets, made in worker processes.

A pool of noise-free skies and noise maps is kept and slowly renewed; every field is a random crop of a sky,
scaled in depth, plus an unrelated crop of noise, flipped and rotated. So a small pool gives many fields, and
no field comes twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.fields import Field, PooledFields
from models.yolo.assign import assign_centres
from models.yolo.head import HeadSpec
from survey_io.background import ArrayPixels, estimate_background
from survey_io.simulate import continuum as sim
from survey_io.simulate.render import FWHM_TO_SIGMA, covariance

# A source of this S/N or more must be found; between the two it is neither demanded nor punished.
DEMANDED, IGNORED_BELOW = 2.5, 1.3
SIZE_FLOOR = 0.1
# Share of fields that show a border of the image.
EDGE_SHARE = 0.3


@dataclass
class Sky:
    """One member of the pool: noise-free sky and noise (unit rms), sources and beam, all in px.

    ``beam`` is what the network will be told; what the sky was painted with is ``blur`` times wider.
    """

    sky: np.ndarray
    noise: np.ndarray
    sources: sim.Sources
    beam: tuple[float, float, float]
    gain: float
    blur: float = 1.0


def draw_sky(size: int, rng: np.random.Generator) -> Sky:
    """Draw a sky of the training range: beams of 2.1 to 8.8 px, round or elliptical.

    Most images have beams of 2 to 3 px, so these come more often. A header's beam is a fit to the point-spread
    function; a real one differs by some per cent, and a network that trusted it would get fluxes wrong by twice that.
    """
    widest = 3.2 if rng.random() < 0.35 else 8.8
    fwhm = float(np.exp(rng.uniform(np.log(2.1), np.log(widest))))
    ratio = 1.0 if rng.random() < 0.4 else rng.uniform(0.55, 1.0)
    beam = (fwhm / np.sqrt(ratio), fwhm * np.sqrt(ratio), rng.uniform(0, np.pi))
    blur = rng.uniform(0.98, 1.06)
    model = sim.SkyModel.random(rng)
    sources = sim.draw_sources((size, size), model, beam, rng)
    sky = sim.paint((size, size), sources, model, beam, rng)
    # Fluxes are sums over pixels by the area of the beam that the network is told.
    sources.flux = sources.flux * blur**2
    told = (beam[0] / blur, beam[1] / blur, beam[2])
    return Sky(sky, sim.noise_map((size, size), model, beam, rng), sources, told, sim.detectability(model), blur)


def crop_field(
    sky: Sky, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray], tuple]:
    """A random crop as the pipeline would see it: S/N (size, size), its sources, and the turned beam."""
    limit = sky.sky.shape[0] - size
    y0, x0, ny0, nx0 = rng.integers(0, limit + 1, 4)
    depth = float(np.exp(rng.uniform(np.log(0.4), np.log(2.0))))
    image = depth * sky.sky[y0 : y0 + size, x0 : x0 + size] + sky.noise[ny0 : ny0 + size, nx0 : nx0 + size]
    s = sky.sources
    near = (abs(s.x - x0 - size / 2) < size / 2 + 8) & (abs(s.y - y0 - size / 2) < size / 2 + 8)
    near &= s.peak * depth * sky.gain > IGNORED_BELOW
    x, y, theta, beam_theta = s.x[near] - x0, s.y[near] - y0, s.theta[near], sky.beam[2]
    if rng.random() < 0.5:
        image, (x, y) = image.T, (y, x)
        theta, beam_theta = np.pi / 2 - theta, np.pi / 2 - beam_theta
    if rng.random() < 0.5:
        image, x, theta, beam_theta = image[:, ::-1], size - 1 - x, np.pi - theta, np.pi - beam_theta
    if rng.random() < 0.5:
        image, y, theta, beam_theta = image[::-1], size - 1 - y, -theta, -beam_theta
    image = np.ascontiguousarray(image)
    found = estimate_background(ArrayPixels(image), mesh=int(rng.choice([64, 128])))
    level, rms = found.sample((slice(0, size), slice(0, size)))
    snr = (image - level) / rms
    keep = np.ones(len(x), bool)
    # Borders of the image and blank areas are 0 to the network; the flips above do not matter to a random side.
    if rng.random() < EDGE_SHARE:
        edge, side = int(rng.integers(4, size // 3)), int(rng.integers(4))
        blank, along = (slice(0, edge) if side < 2 else slice(size - edge, size)), (y if side % 2 == 0 else x)
        snr[(blank, slice(None)) if side % 2 == 0 else (slice(None), blank)] = 0
        keep = along >= edge - 0.5 if side < 2 else along < size - edge - 0.5
    local = rms[np.clip(np.rint(y), 0, size - 1).astype(int), np.clip(np.rint(x), 0, size - 1).astype(int)]
    fields = {
        "x": x, "y": y, "theta": theta, "flux": s.flux[near] * depth / local, "major": s.major[near],
        "minor": s.minor[near], "snr": s.peak[near] * depth * sky.gain / local,
    }  # fmt: skip
    fields = {name: value[keep] for name, value in fields.items()}
    return snr.astype(np.float32), fields, (sky.beam[0], sky.beam[1], float(np.mod(beam_theta, np.pi)))


def encode_targets(fields: dict[str, np.ndarray], beam: tuple[float, float, float]) -> dict[str, np.ndarray]:
    """Targets of a field in the terms of `yolo_loss`, and what `assign_centres` needs beside them."""
    fwhm = np.sqrt(beam[0] * beam[1])
    cov = covariance(fields["major"], fields["minor"], fields["theta"]) + covariance(
        *(np.array([v]) for v in beam)
    )
    major = np.maximum(fields["major"] / fwhm, SIZE_FLOOR)
    minor = np.maximum(fields["minor"] / fwhm, SIZE_FLOOR)
    resolved = np.clip(2 * major, 0, 1)
    ellipticity = np.clip((1 - fields["minor"] / np.maximum(fields["major"], 1e-6)) * resolved, 0, 1)
    ones = np.ones_like(major)
    return {
        "centre": np.stack([fields["y"], fields["x"]], -1),
        "size": np.sqrt(np.stack([cov[2], cov[0]], -1)) / FWHM_TO_SIGMA,
        "beam": np.full(len(major), fwhm),
        "params": np.stack(
            [
                np.log(fields["flux"]), np.log(major), np.log(minor),
                np.cos(2 * fields["theta"]), np.sin(2 * fields["theta"]),
            ],
            -1,
        ),
        "param_weight": np.stack([ones, ones, ones, ellipticity, ellipticity], -1),
    }  # fmt: skip


def positive_radius(beam_fwhm: float) -> float:
    """Radius (px) within which anchors answer for a source: 0.4 beams, but at least one 2-px anchor."""
    return max(0.4 * beam_fwhm, 1.45)


class SkyFields(PooledFields):
    """Endless batches of fields for detectors whose head has fixed anchors.

    Parameters
    ----------
    spec : HeadSpec
    batch, size : int
        Fields per batch and their side in px.
    seed : int
        Two loaders of one seed give the same batches.
    pool, sky_size, renew : int
        Skies kept, their side in px, and batches after which one is replaced.
    first, every : int
        Numbers of the batches: see `models.streams.NumberedBatches`.
    """

    def __init__(
        self, spec: HeadSpec, *, batch: int, size: int, seed: int,
        pool: int = 64, sky_size: int = 640, renew: int = 6, first: int = 0, every: int = 1,
    ):  # fmt: skip
        grid = tuple(size // s for s in spec.stride)
        super().__init__(
            batch=batch, seed=seed, assigned=(spec.boxes, *grid), at_first=8, pool=pool, renew=renew,
            first=first, every=every,
        )  # fmt: skip
        self.spec, self.size, self.sky_size = spec, size, max(sky_size, size + 64)
        self.anchors = spec.anchor_positions(grid).reshape(-1, spec.ndim)
        # Half the diagonal between anchors: no source falls between them.
        self.smallest_radius = 0.51 * np.sqrt(spec.ndim) * max(spec.stride) / spec.boxes ** (1 / spec.ndim)

    def draw(self, rng: np.random.Generator) -> Sky:
        """See `PooledFields`."""
        return draw_sky(self.sky_size, rng)

    def cut(self, sky: Sky, rng: np.random.Generator) -> Field:
        """See `PooledFields`."""
        snr, fields, beam = crop_field(sky, self.size, rng)
        target = encode_targets(fields, beam)
        fwhm = float(np.sqrt(beam[0] * beam[1]))
        radius = np.full(len(target["beam"]), max(positive_radius(fwhm), self.smallest_radius))
        ignore = fields["snr"] < DEMANDED
        priority = np.log(np.maximum(fields["flux"], 1e-3))
        found = assign_centres(self.anchors, target["centre"], radius, priority, ignore)
        return Field(snr, beam, target, found, ignore)
