"""Training fields of cubes without end: crops of simulated HI cubes with targets, made in worker processes.

As `models.loader` for images: a pool of noise-free cubes and noise cubes is kept and slowly renewed; every field is a
random crop of one, scaled in depth, plus an unrelated crop of noise, flipped on all axes and turned. Angles of the
receding side follow each of these, a flip of the channels among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from models.fields import Field, PooledFields
from models.yolo.assign import assign_centres
from models.yolo.head import HeadSpec
from survey_io.simulate import hi
from survey_io.simulate.render import FWHM_TO_SIGMA
from survey_io.spectral import HI_REST_FREQUENCY, LIGHT

# A galaxy whose matched filter reaches this S/N must be found; between the two it is neither demanded nor punished.
DEMANDED, IGNORED_BELOW = 4.0, 2.6
# Extent of a galaxy's light (FWHM) over its HI diameter; sizes are told to the network down to this many beams.
LIGHT_SHARE, SIZE_FLOOR = 0.52, 0.15
# Shares of fields with a border of the cube, with blanked channels, with strong continuum residuals.
EDGE_SHARE, FLAGGED_SHARE, CONTINUUM_SHARE = 0.3, 0.2, 0.3
# Share of fields with wavy baselines: far below the noise of a voxel, and several sigma when summed along a line of
# sight, as around bright galaxies and continuum of real cubes.
BASELINE_SHARE, BASELINE_AMPLITUDE = 0.25, 0.3
# Share of cubes whose galaxies are up to e^3 times brighter than the challenge's: what was never shown is doubted.
BRIGHT_SHARE = 0.2
# Share of cubes whose channels are correlated (Hanning smoothing), as those of older telescopes are.
HANNING_SHARE = 0.2


@dataclass
class HiCube:
    """One member of the pool: noise-free cube and noise (unit rms), galaxies in px, channels and S/N units.

    ``low`` is the angle from +x towards +y of the gas at low channels, rad; ``flux`` the sum of S/N over voxels by the
    beam's area; ``w20`` in channels; ``size`` the HI diameter in px.
    """

    sky: np.ndarray
    noise: np.ndarray
    galaxies: dict[str, np.ndarray]
    beam_px: float


def draw_model(shape: tuple[int, int, int], rng: np.random.Generator, *, templates: Path | None = None) -> hi.HiModel:
    """A cube of the training range: half of them like SDC2, the rest with other beams, channels and distances.

    Parameters
    ----------
    shape : (channels, y, x)
    rng : numpy Generator
    templates : Path, optional
        Real galaxies from which half of the galaxies of half of the cubes are made, but for the held-out ones.
    """
    real = templates is not None and rng.random() < 0.5
    common = {
        "shape": shape, "density": float(np.exp(rng.uniform(np.log(8), np.log(60)))), "noise_fall": 0.0,
        # Galaxies far below the noise teach nothing and cost time.
        "least_flux": 1.34 if rng.random() < 0.3 else 3.0,
        "templates": templates if real else None, "held_out": False if real else None,
        "continuum": float(np.exp(rng.uniform(np.log(1), np.log(20)))) if rng.random() < CONTINUUM_SHARE else 0.0,
        "rms": float(2.0e-5 * np.exp(rng.normal(0, 0.3))),
    }  # fmt: skip
    if rng.random() < 0.5:
        return hi.HiModel(**common, first_frequency=float(rng.uniform(0.95e9, 1.14e9)))
    pixel = 2.8
    return hi.HiModel(
        **common,
        first_frequency=float(rng.uniform(0.95e9, 1.38e9)),
        pixel_scale=pixel,
        beam=pixel * float(np.exp(rng.uniform(np.log(2.0), np.log(6.0)))),
        channel_width=float(np.exp(rng.uniform(np.log(15e3), np.log(90e3)))),
        dispersion=float(rng.uniform(6, 14)),
    )


def draw_cube(shape: tuple[int, int, int], rng: np.random.Generator, *, templates: Path | None = None) -> HiCube:
    """Draw a cube, its galaxies and its noise."""
    model = draw_model(shape, rng, templates=templates)
    galaxies = hi.draw_galaxies(model, rng)
    if model.first_frequency > 1.15e9:
        # Nearby galaxies of the challenge's fluxes would be tiny: theirs are larger, and so are their widths.
        galaxies.size *= np.exp(rng.uniform(0, 1.2, len(galaxies)))
        if model.templates is None:
            galaxies.w20 *= np.exp(rng.uniform(0, 0.8, len(galaxies)))
    if rng.random() < BRIGHT_SHARE:
        galaxies.flux *= np.exp(rng.uniform(0, 3, len(galaxies)))
        if model.templates is None:
            galaxies.w20 *= np.exp(rng.uniform(0, 0.8, len(galaxies)))
    sky = np.zeros(shape, np.float32)
    hi.paint_galaxies(model, galaxies, sky=sky)
    if model.continuum:
        hi.contaminate(model, sky, rng)
    rms = model.channel_rms().astype(np.float32)[:, None, None]
    sky /= rms
    noise = hi.noise_cube(model, rng) / rms
    spread = 1.0
    if rng.random() < HANNING_SHARE:
        sky, noise = _hanning(sky), _hanning(noise)
        spread = float(noise.std())
        sky, noise = sky / spread, noise / spread
    per_channel = LIGHT * model.channel_width * HI_REST_FREQUENCY / model.frequency(galaxies.z) ** 2
    fields = {
        "x": galaxies.x, "y": galaxies.y, "z": galaxies.z, "snr": galaxies.snr,
        "flux": galaxies.flux / model.channel_width / model.rms / spread,
        "size": galaxies.size / model.pixel_scale, "w20": galaxies.w20 / per_channel,
        "inclination": np.radians(galaxies.inclination),
        # Position angles run from north (+y) to east (-x); channels rise in frequency, so receding gas is at low ones.
        "low": np.radians(galaxies.pa) + np.pi / 2,
    }  # fmt: skip
    return HiCube(sky, noise, fields, model.beam_px)


def _hanning(cube: np.ndarray) -> np.ndarray:
    out = 0.5 * cube
    out[1:] += 0.25 * cube[:-1]
    out[:-1] += 0.25 * cube[1:]
    return out


def crop_cube(
    cube: HiCube, size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray], tuple[float, float, float]]:
    """A random crop as the pipeline would see it: S/N, its galaxies (centres within the crop), and the beam."""
    room = np.array(cube.sky.shape) - size
    # Every other field is sure to hold a galaxy; the rest teach what emptiness looks like.
    first = rng.integers(0, room + 1)
    count = len(cube.galaxies["x"])
    if count and rng.random() < 0.5:
        # Mostly one of the brighter of three: a field around an invisible galaxy is an empty one.
        one = int(max(rng.integers(count, size=3), key=lambda row: cube.galaxies["snr"][row]))
        centre = np.array([cube.galaxies[axis][one] for axis in "zyx"])
        first = np.clip(np.rint(centre - rng.uniform(0.1, 0.9, 3) * size).astype(int), 0, room)
    other = rng.integers(0, room + 1)
    depth = float(np.exp(rng.uniform(np.log(0.45), np.log(2.0))))
    window = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    noise = cube.noise[tuple(slice(a, a + n) for a, n in zip(other, size, strict=True))]
    snr = depth * cube.sky[window] + noise
    g = {name: value.copy() for name, value in cube.galaxies.items()}
    for axis, start in zip("zyx", first, strict=True):
        g[axis] = g[axis] - start
    g["snr"], g["flux"] = g["snr"] * depth, g["flux"] * depth
    if rng.random() < BASELINE_SHARE:
        snr += _baseline(size, cube.beam_px, rng)
    limits = dict(zip("zyx", size, strict=True))
    near = np.logical_and.reduce([(g[a] > -0.5) & (g[a] < n - 0.5) for a, n in limits.items()])
    near &= g["snr"] > IGNORED_BELOW
    g = {name: value[near] for name, value in g.items()}
    # The pipeline's noise is an estimate, whose errors are smooth along the channels.
    snr *= (1 + 0.03 * _smooth_noise(size[0], rng))[:, None, None].astype(np.float32)
    if size[1] == size[2] and rng.random() < 0.5:
        snr = snr.transpose(0, 2, 1)
        g["x"], g["y"], g["low"] = g["y"], g["x"], np.pi / 2 - g["low"]
    if rng.random() < 0.5:
        snr, g["x"], g["low"] = snr[:, :, ::-1], size[2] - 1 - g["x"], np.pi - g["low"]
    if rng.random() < 0.5:
        snr, g["y"], g["low"] = snr[:, ::-1], size[1] - 1 - g["y"], -g["low"]
    if rng.random() < 0.5:
        snr, g["z"], g["low"] = snr[::-1], size[0] - 1 - g["z"], g["low"] + np.pi
    snr = np.ascontiguousarray(snr)
    keep = np.ones(len(g["x"]), bool)
    if rng.random() < EDGE_SHARE:
        axis, side = int(rng.integers(3)), int(rng.integers(2))
        edge = int(rng.integers(2, size[axis] // 3))
        blank: list[slice] = [slice(None)] * 3
        blank[axis] = slice(0, edge) if side else slice(size[axis] - edge, size[axis])
        snr[tuple(blank)] = 0
        along = g["zyx"[axis]]
        keep = along >= edge - 0.5 if side else along < size[axis] - edge - 0.5
    if rng.random() < FLAGGED_SHARE:
        snr[rng.random(size[0]) < rng.uniform(0.005, 0.08)] = 0
    return snr, {name: value[keep] for name, value in g.items()}, (cube.beam_px, cube.beam_px, 0.0)


def _baseline(size: tuple[int, int, int], beam_px: float, rng: np.random.Generator) -> np.ndarray:
    """A map with the beam's smoothness or more times a slow wave along the channels, in S/N units."""
    sky = rng.standard_normal(size[1:])
    sigma = beam_px * FWHM_TO_SIGMA * rng.uniform(0.7, 3.0)
    for axis in (0, 1):
        sky = gaussian_filter1d(sky, sigma, axis=axis, mode="wrap")
    z = np.arange(size[0]) / size[0]
    wave = sum(np.cos(np.pi * (k * z + rng.uniform(0, 2))) * rng.normal() for k in range(3))
    amplitude = rng.uniform(0.03, BASELINE_AMPLITUDE) / max(float(sky.std() * np.abs(wave).max()), 1e-6)
    return (amplitude * wave[:, None, None] * sky[None]).astype(np.float32)


def _smooth_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    noise = gaussian_filter1d(rng.standard_normal(size), 4.0, mode="wrap")
    return noise / max(float(noise.std()), 1e-6)


def encode_lines(g: dict[str, np.ndarray], beam_px: float, spec: HeadSpec) -> dict[str, np.ndarray]:
    """Targets of a field in the terms of `yolo_loss`."""
    light = LIGHT_SHARE * g["size"]
    cosine = np.cos(g["inclination"])
    along, across = np.abs(np.cos(g["low"])), np.abs(np.sin(g["low"]))
    width = np.hypot(along, across * cosine) * light
    height = np.hypot(across, along * cosine) * light
    ones = np.ones_like(light)
    turned = np.sin(g["inclination"])
    return {
        "centre": np.stack([g["z"], g["y"], g["x"]], -1),
        "size": np.stack([np.maximum(g["w20"], 2.0), np.hypot(height, beam_px), np.hypot(width, beam_px)], -1),
        "beam": np.full(len(light), beam_px),
        "params": np.stack(
            [
                np.log(g["flux"]), np.log(np.maximum(g["size"] / beam_px, SIZE_FLOOR)),
                np.log(np.maximum(g["w20"], 1.0) / spec.line_channels), g["inclination"],
                np.cos(g["low"]), np.sin(g["low"]),
            ],
            -1,
        ),
        "param_weight": np.stack([ones, ones, ones, ones, turned, turned], -1),
    }  # fmt: skip


class CubeFields(PooledFields):
    """Endless batches of fields for detectors of lines in cubes; the interface is that of `models.loader.SkyFields`.

    Parameters
    ----------
    spec : HeadSpec
    batch : int
        Fields per batch.
    size : (channels, y, x)
        Of a field.
    seed : int
        Two loaders of one seed give the same batches.
    pool, renew : int
        Cubes kept, and batches after which one is replaced.
    cube_shape : (channels, y, x)
        Of a cube of the pool.
    templates : Path, optional
        As `draw_model`.
    first, every : int
        Numbers of the batches: see `models.streams.NumberedBatches`.
    """

    def __init__(
        self, spec: HeadSpec, *, batch: int, size: tuple[int, int, int], seed: int, pool: int = 40, renew: int = 6,
        cube_shape: tuple[int, int, int] = (256, 112, 112), templates: Path | None = None,
        first: int = 0, every: int = 1,
    ):  # fmt: skip
        grid = tuple(n // s for n, s in zip(size, spec.stride, strict=True))
        super().__init__(
            batch=batch, seed=seed, assigned=(spec.boxes, *grid), at_first=4, pool=pool, renew=renew,
            first=first, every=every,
        )  # fmt: skip
        self.spec, self.size, self.templates = spec, tuple(size), templates
        self.cube_shape = tuple(max(c, n + 16) for c, n in zip(cube_shape, self.size, strict=True))
        per_axis = [len({anchor[axis] for anchor in spec.anchors}) for axis in range(3)]
        # Distances are taken in units of the anchors' pitch; half a diagonal between anchors misses no galaxy.
        self.pitch, self.radius = np.array(spec.stride) / np.array(per_axis), 0.51 * np.sqrt(3)
        self.anchors = spec.anchor_positions(grid).reshape(-1, 3) / self.pitch

    def draw(self, rng: np.random.Generator) -> HiCube:
        """See `PooledFields`."""
        return draw_cube(self.cube_shape, rng, templates=self.templates)

    def cut(self, sky: HiCube, rng: np.random.Generator) -> Field:
        """See `PooledFields`."""
        snr, galaxies, beam = crop_cube(sky, self.size, rng)
        target = encode_lines(galaxies, beam[0], self.spec)
        ignore = galaxies["snr"] < DEMANDED
        radius, priority = np.full(len(ignore), self.radius), np.log(np.maximum(galaxies["flux"], 1e-3))
        found = assign_centres(self.anchors, target["centre"] / self.pitch, radius, priority, ignore)
        return Field(snr, beam, target, found, ignore)
