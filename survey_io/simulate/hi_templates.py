"""Real galaxies as templates: the atlas of HI cubes from which SKA Science Data Challenge 2 built its sky.

The folder holds ``metadata_appended_LASs.txt`` and ``cubes/<id>*.fits[.gz]``: cubes of THINGS (Walter et al. 2008)
and HALOGAS (Heald et al. 2011), blanked, turned to position angle 0 and binned to pixels of 1 kpc. A galaxy is
turned in the plane of the sky, scaled in angle and stretched in velocity; its inclination stays its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from survey_io.errors import InputError
from survey_io.simulate.hi_paint import edges_at, splat_planes

METADATA = "metadata_appended_LASs.txt"
# Every fourth galaxy, by name, is held out.
HELD_OUT = 4
# HI diameter over the light's rms along the major axis; two cubes of the atlas lie outside: one was never binned,
# the other's diameter is not that of its gas. Discs have 3 to 5.
SIZE_OVER_RMS = (2.8, 7.0)
# A template is stretched in velocity by no more than this, and its pixels (1 kpc, of gas seen with 1 to 2 kpc) are
# no larger on the sky than this share of the beam.
STRETCH, PIXEL_SHARE = 2.0, 0.4
# Of the templates most like a drawn galaxy, one among so many is taken.
ALIKE = 4

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Template:
    """One galaxy of the atlas.

    Attributes
    ----------
    name, galaxy : str
        Of the cube (G01) and of the galaxy, spelt one way (NGC628): some galaxies have two cubes.
    levels : tuple
        The same light in blocks of 1, 2, 4 and 8 pixels a side, each as ``(light, east, north)``: light is (blocks,
        channels) and adds to 1, channels go up in velocity; east and north are those of a block's light from the
        centre of all, kpc.
    velocity : ndarray
        Of the channels from the middle of the profile at 20% of its peak, km/s.
    size : float
        HI diameter at 1 solar mass per square pc, kpc.
    w20 : float
        Measured in the cube, km/s.
    pa, inclination : float
        Degrees; the angle of the receding side is measured in the cube.
    """

    name: str
    galaxy: str
    levels: tuple[tuple[Array, Array, Array], ...]
    velocity: Array
    size: float
    w20: float
    pa: float
    inclination: float

    def paint(
        self,
        centre: tuple[float, float, float],
        *,
        size: float,
        w20: float,
        pa: float,
        mirrored: bool,
        per_channel: float,
        beam: tuple[float, float, float],
    ) -> tuple[NDArray[np.int64], Array]:
        """First voxel of a box, and the box; its sum is 1.

        Parameters
        ----------
        centre : (z, y, x)
        size : float
            HI diameter, px.
        w20, per_channel : float
            km/s, and km/s in a channel; channels go up in frequency.
        pa : float
            Of the receding side, degrees.
        mirrored : bool
            Mirror the galaxy about its major axis.
        beam : (major, minor, pa)
            FWHM in px.
        """
        hand = -1.0 if mirrored else 1.0
        turn = np.radians(pa - hand * self.pa)
        scale = size / self.size
        # Blocks of at most a third of a pixel of the cube are as good as the template's own pixels, and far fewer.
        coarser = int(np.clip(np.floor(np.log2(0.35 / scale)), 0, len(self.levels) - 1))
        light, right, up = self.levels[coarser]
        east = scale * (hand * right * np.cos(turn) + up * np.sin(turn))
        north = scale * (-hand * right * np.sin(turn) + up * np.cos(turn))
        z, y, x = centre
        channels = z - self.velocity * (w20 / self.w20) / per_channel
        return splat_planes((channels, y + north, x - east), light, beam=beam)


def read_template(path: Path, *, name: str, galaxy: str, size: float, inclination: float) -> Template | None:
    """A template, or None where the cube's light does not fit the given size (kpc)."""
    with fits.open(path) as hdus:
        cube, header = np.squeeze(hdus[0].data).astype(float), hdus[0].header
    step = header["CDELT3"] / 1e3
    if step < 0:
        cube, step = cube[::-1], -step
    cube = np.clip(np.nan_to_num(cube), 0, None)
    cube /= cube.sum()
    # A dark channel at both ends lets the profile fall to 0 within the cube.
    cube = np.pad(cube, ((1, 1), (0, 0), (0, 0)))
    image = cube.sum(axis=0)
    rows, columns = np.indices(image.shape)
    north, east = rows - (image * rows).sum(), (image * columns).sum() - columns
    first, last = edges_at(cube.sum(axis=(1, 2)))
    velocity = (np.arange(len(cube)) - 0.5 * (first + last)) * step
    flow = np.tensordot(velocity - velocity @ cube.sum(axis=(1, 2)), cube, axes=1)
    angle = np.arctan2((flow * east).sum(), (flow * north).sum())
    spread = np.sqrt((image * (east * np.sin(angle) + north * np.cos(angle)) ** 2).sum())
    if not SIZE_OVER_RMS[0] < size / spread < SIZE_OVER_RMS[1]:
        return None
    return Template(
        name, galaxy, tuple(_blocks(cube, east, north, side) for side in (1, 2, 4, 8)), velocity,
        size=size, w20=(last - first) * step, pa=float(np.degrees(angle)), inclination=inclination,
    )  # fmt: skip


def _blocks(cube: Array, east: Array, north: Array, side: int) -> tuple[Array, Array, Array]:
    """Light, east and north of the lit blocks of ``side`` pixels a side."""
    grown = np.pad(cube, ((0, 0), (0, -cube.shape[1] % side), (0, -cube.shape[2] % side)))
    light = grown.reshape(len(cube), grown.shape[1] // side, side, grown.shape[2] // side, side).sum(axis=(2, 4))
    image = cube.sum(axis=0)
    total = light.sum(axis=0)
    lit = total > 0
    places = []
    for axis in (east, north):
        moment = np.pad(image * axis, ((0, -cube.shape[1] % side), (0, -cube.shape[2] % side)))
        moment = moment.reshape(total.shape[0], side, total.shape[1], side).sum(axis=(1, 3))
        places.append(moment[lit] / total[lit])
    return np.ascontiguousarray(light[:, lit].T), places[0], places[1]


@lru_cache(maxsize=4)
def read_templates(folder: str | Path, *, held_out: bool | None = None) -> tuple[Template, ...]:
    """Templates of a folder, sorted by name.

    Parameters
    ----------
    held_out : bool, optional
        True for the galaxies kept for tests, False for the others, None for all. Both cubes of a galaxy are on one
        side, and the sides depend on the folder's table alone, not on which cubes lie there.

    Raises
    ------
    InputError
        When table or cubes are missing.
    """
    table = Path(folder) / METADATA
    if not table.is_file():
        raise InputError(f"{folder}: no {METADATA}; expected the atlas of SDC2 (table and cubes/<id>*.fits)")
    rows = [line.split("#")[0].split() for line in table.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row]
    if any(len(row) < 13 for row in rows):
        raise InputError(f"{table}: a row with fewer than 13 columns")
    galaxies = sorted({_spelling(row[0]) for row in rows})
    kept_back = set(galaxies[HELD_OUT - 1 :: HELD_OUT])
    found = []
    for row in sorted(rows, key=lambda row: row[8]):
        galaxy = _spelling(row[0])
        files = sorted((table.parent / "cubes").glob(f"{row[8]}*.fits*"))
        if files and (held_out is None or (galaxy in kept_back) == held_out):
            template = read_template(
                files[0], name=row[8], galaxy=galaxy, size=10 ** float(row[10]), inclination=float(row[4])
            )
            found += [template] if template is not None else []
    if not found:
        raise InputError(f"{table.parent / 'cubes'}: no usable cube named in {METADATA}, such as G01*.fits.gz")
    return tuple(found)


def _spelling(galaxy: str) -> str:
    """NGC0925 and NGC_925 are one galaxy."""
    plain = re.sub(r"[^A-Z0-9]", "", galaxy.upper())
    return re.sub(r"(?<=[A-Z])0+(?=\d)", "", plain)


def choose(
    templates: tuple[Template, ...],
    *,
    inclination: Array,
    w20: Array,
    size_kpc: Array,
    size_beams: Array,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Which template stands in for each drawn galaxy: one of the few most like it that need no enlarging.

    ``size_beams`` is the drawn diameter over the beam's minor axis.
    """
    own = {name: np.array([getattr(one, name) for one in templates]) for name in ("inclination", "w20", "size")}
    unlike = (
        ((np.cos(np.radians(inclination))[:, None] - np.cos(np.radians(own["inclination"]))) / 0.15) ** 2
        + (np.log(w20[:, None] / own["w20"]) / 0.4) ** 2
        + np.log(size_kpc[:, None] / own["size"]) ** 2
    )
    coarse = size_beams[:, None] / own["size"] > PIXEL_SHARE
    # Where all are too coarse, the finest comes first.
    unlike = np.where(coarse, 1e6 - own["size"], unlike)
    pick = rng.integers(0, min(ALIKE, len(templates)), len(w20))
    order = np.argsort(unlike, axis=1)
    pick = np.minimum(pick, np.maximum((~coarse).sum(axis=1) - 1, 0))
    return order[np.arange(len(w20)), pick]
