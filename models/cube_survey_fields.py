"""Training fields read out of real cubes, among fields of simulated ones; as `models.survey_fields` for images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.cube_loader import CubeFields, HiCube, encode_lines
from models.fields import Batch, Field
from models.streams import my_numbers
from models.yolo.assign import IGNORED, assign_centres
from models.yolo.head import HeadSpec
from survey_io.cube_noise import CubeNoise
from survey_io.cube_snr import read_cube_snr

# Share of real fields that are sure to hold a galaxy that must be found.
CENTRED_SHARE = 0.6


@dataclass(frozen=True)
class RealCube:
    """One cube to read fields from; its voxels stay on disk.

    Attributes
    ----------
    pixels, noise
        As `survey_io.cube_snr.read_cube_snr` takes them.
    galaxies : dict of ndarray
        As `HiCube`.
    beam_px : float
    usable : ndarray of bool, shape (ny, nx)
        Lines of sight of the part that may be learned from.
    """

    pixels: object
    noise: CubeNoise
    galaxies: dict[str, np.ndarray]
    beam_px: float
    usable: np.ndarray


def turn_cube(
    snr: np.ndarray, usable: np.ndarray, g: dict[str, np.ndarray], code: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """One of the 16 symmetries of a cube with square planes: bit 0 swaps y and x, 1 to 3 mirror x, y and channels.

    A line mirrored along the channels recedes on its other side: ``low`` turns by half a circle.
    """
    g = dict(g)
    nz, ny, nx = snr.shape
    if code & 1:
        snr, usable = snr.transpose(0, 2, 1), usable.T
        g["x"], g["y"], g["low"] = g["y"], g["x"], np.pi / 2 - g["low"]
        ny, nx = nx, ny
    if code & 2:
        snr, usable, g["x"], g["low"] = snr[:, :, ::-1], usable[:, ::-1], nx - 1 - g["x"], np.pi - g["low"]
    if code & 4:
        snr, usable, g["y"], g["low"] = snr[:, ::-1], usable[::-1], ny - 1 - g["y"], -g["low"]
    if code & 8:
        snr, g["z"], g["low"] = snr[::-1], nz - 1 - g["z"], g["low"] + np.pi
    return np.ascontiguousarray(snr), np.ascontiguousarray(usable), g


class CubeSurveyFields(CubeFields):
    """Endless batches by number, a share of their fields real.

    Parameters
    ----------
    spec : HeadSpec
    cubes : list of RealCube
    demanded, ignored : float
        Expected S/N from which a galaxy must be found, and below which it is background.
    share : float
        Of real fields.
    augment : bool
        Turn fields.
    batch, size, seed, first, every
        As `CubeFields`.
    """

    def __init__(
        self, spec: HeadSpec, cubes: list[RealCube], *, demanded: float, ignored: float, share: float, augment: bool,
        batch: int, size: tuple[int, int, int], seed: int, first: int = 0, every: int = 1,
    ):  # fmt: skip
        super().__init__(
            spec, batch=batch, size=size, seed=seed, cube_shape=tuple(n + 16 for n in size), first=first, every=every
        )
        self.cubes, self.demanded, self.ignored = cubes, demanded, ignored
        self.share, self.augment, self.numbers = share, augment, (first, every)
        areas = np.array([cube.usable.sum() for cube in cubes], float)
        self.chances = areas / areas.sum()

    def __iter__(self) -> Iterator[Batch]:
        for number in itertools.count(*my_numbers(*self.numbers)):
            rng = np.random.default_rng([self.seed, number])
            yield self.make_batch([None if self.share >= 1 else self.draw(rng)], rng)

    def cut(self, sky: HiCube | None, rng: np.random.Generator) -> Field:
        """See `PooledFields`."""
        if rng.random() < self.share:
            cube = self.cubes[int(rng.choice(len(self.cubes), p=self.chances))]
            return self.cut_real(cube, self.place(cube, rng), rng)
        return super().cut(sky, rng)

    def place(self, cube: RealCube, rng: np.random.Generator) -> tuple[int, int, int]:
        """First voxel (z, y, x) of a field around a place of the usable part, often around a galaxy of it."""
        g, shape = cube.galaxies, cube.pixels.shape
        y, x = (np.clip(np.rint(g[axis]).astype(int), 0, n - 1) for axis, n in zip("yx", shape[1:], strict=True))
        rows = np.flatnonzero((g["snr"] >= self.demanded) & cube.usable[y, x])
        if len(rows) and rng.random() < CENTRED_SHARE:
            row = int(rng.choice(rows))
            middle = np.array([g[axis][row] for axis in "zyx"])
        else:
            sights = np.flatnonzero(cube.usable)
            sight = int(sights[rng.integers(len(sights))])
            middle = np.array([rng.uniform(0, shape[0]), *np.divmod(sight, shape[2])])
        first = np.rint(middle - rng.uniform(0.15, 0.85, 3) * self.size).astype(int)
        return tuple(int(one) for one in first)

    def cut_real(self, cube: RealCube, first: tuple[int, int, int], rng: np.random.Generator | None) -> Field:
        """A field at its first voxel; without ``rng`` as it is. What lies outside of the cube is 0."""
        window = tuple(slice(a, a + n) for a, n in zip(first, self.size, strict=True))
        snr = np.nan_to_num(read_cube_snr(cube.pixels, cube.noise, window), nan=0.0)
        usable = np.zeros(self.size[1:], bool)
        ny, nx = cube.usable.shape
        rows, columns = (slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(window[1:], (ny, nx), strict=True))
        if rows.start < rows.stop and columns.start < columns.stop:
            inside = tuple(slice(s.start - a, s.stop - a) for s, a in zip((rows, columns), first[1:], strict=True))
            usable[inside] = cube.usable[rows, columns]
        g = {name: value.copy() for name, value in cube.galaxies.items()}
        for axis, start in zip("zyx", first, strict=True):
            g[axis] = g[axis] - start
        near = np.logical_and.reduce([(g[a] > -0.5) & (g[a] < n - 0.5) for a, n in zip("zyx", self.size, strict=True)])
        # Shown or not, a galaxy on voxels without data cannot be asked for.
        z, y, x = (np.clip(np.rint(g[a]).astype(int), 0, n - 1) for a, n in zip("zyx", self.size, strict=True))
        near &= (g["snr"] > self.ignored) & (snr[z, y, x] != 0)
        g = {name: value[near] for name, value in g.items()}
        if rng is not None and self.augment:
            code = int(rng.integers(16)) & (15 if self.size[1] == self.size[2] else 14)
            snr, usable, g = turn_cube(snr, usable, g, code)
        target = encode_lines(g, cube.beam_px, self.spec)
        ignore = g["snr"] < self.demanded
        radius, priority = np.full(len(ignore), self.radius), np.log(np.maximum(g["flux"], 1e-3))
        found = assign_centres(self.anchors, target["centre"] / self.pitch, radius, priority, ignore)
        at = (self.anchors * self.pitch)[:, 1:].T
        y, x = (np.clip(np.rint(a).astype(int), 0, n - 1) for a, n in zip(at, self.size[1:], strict=True))
        found[~usable[y, x]] = IGNORED
        voted = np.zeros(len(ignore), bool)
        voted[np.unique(found[found >= 0])] = True
        return Field(snr, (cube.beam_px, cube.beam_px, 0.0), target, found, ignore | ~voted)
