"""`Preview`: everything that a page shows of one image or cube on disk."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.preview.cube import MAPS, channel_labels, cube_maps, read_spectrum
from pipeline.preview.overview import Overview
from pipeline.preview.tiles import BLANK, SCALE, SOFTENING, TILE, Pyramid
from survey_io.background import ArrayPixels
from survey_io.cube import Cube, is_cube, open_cube
from survey_io.errors import InputError
from survey_io.image import open_image
from survey_io.observation import Beam, Observation
from survey_io.spectra_files import holds_spectra

__all__ = ["Preview", "open_preview"]

# Channels of a cube whose noise and overview stay in memory.
KEPT_PLANES = 24


class Preview:
    """Tiles, values and coordinates of one observation.

    Parameters
    ----------
    opened : Observation or Cube
    folder : Path
        Where overviews and maps are kept.

    Attributes
    ----------
    key : str
        Changes when the file does: for addresses that may be cached for ever.
    """

    def __init__(self, opened: Observation | Cube, folder: Path) -> None:
        self.cube = opened if isinstance(opened, Cube) else None
        self.plane: Observation = opened.plane if isinstance(opened, Cube) else opened
        status = self.plane.path.stat()
        identity = f"{self.plane.path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{self.plane.pixels.hdu}"
        self.key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder = folder / self.key
        self._pyramids: OrderedDict[str, Pyramid] = OrderedDict()
        self._lock, self._maps_lock = threading.Lock(), threading.Lock()

    @property
    def planes(self) -> list[str]:
        """What can be shown: "image", or the maps of a cube; its channels are "0", "1" and so on."""
        return ["image"] if self.cube is None else list(MAPS)

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return cube_maps(self.cube, self.folder / "maps.npz")

    def pyramid(self, plane: str) -> Pyramid:
        """The tiles of a plane.

        Raises
        ------
        IndexError
            When there is no such plane.
        """
        if self.cube is not None and plane in MAPS:
            with self._maps_lock:
                pixels: Any = ArrayPixels(self._maps[plane])
        elif self.cube is None and plane == "image":
            pixels = self.plane.pixels
        elif self.cube is not None and plane.isdecimal() and int(plane) < self.cube.shape[0]:
            pixels = self.cube.pixels.plane(int(plane))
        else:
            raise IndexError(f"no plane {plane[:40]!r}")
        with self._lock:
            if plane not in self._pyramids:
                # Channels are many and quick to read: their overviews are not kept on disk.
                cache = None if plane.isdecimal() else self.folder / f"{plane}.npz"
                self._pyramids[plane] = Pyramid(pixels, cache)
                while len(self._pyramids) > KEPT_PLANES:
                    self._pyramids.popitem(last=False)
            self._pyramids.move_to_end(plane)
            return self._pyramids[plane]

    def overview(self) -> Overview:
        """The overview of the image, or of the first map of a cube."""
        return self.pyramid(self.planes[0]).overview

    def describe(self) -> dict[str, Any]:
        """What the page needs before its first tile; quick, reads no pixels."""
        ny, nx = self.plane.shape
        jacobian = self.plane.jacobian((nx - 1) / 2, (ny - 1) / 2)
        described: dict[str, Any] = {
            "key": self.key,
            "shape": [ny, nx],
            "tile": TILE,
            "scale": SCALE,
            "softening": SOFTENING,
            "blank": BLANK,
            "levels": max(1, int(np.ceil(np.log2(max(ny, nx) / TILE))) + 1),
            "planes": [{"id": "image", "label": "image"}]
            if self.cube is None
            else [{"id": name, "label": label} for name, label in MAPS.items()],
            "unit": "" if self.plane.unit is None else self.plane.unit.to_string(),
            "pixel_scale": self.plane.pixel_scale,
            # arcsec per pixel; rows are (east, north), columns (x, y).
            "jacobian": np.where(np.isfinite(jacobian), jacobian, 0).tolist(),
            "beam": None,
        }
        if self.plane.beam is not None:
            beam = self.plane.beam
            pixels = self.plane.beam_pixels()
            described["beam"] = {
                "major": beam.major, "minor": beam.minor, "pa": beam.pa, "origin": beam.origin,
                "pixels": [float(value) for value in pixels],
            }  # fmt: skip
        if self.cube is not None:
            described["frequencies"] = channel_labels(self.cube)
        return described

    def plane_scale(self, plane: str) -> dict[str, Any]:
        """Background and noise that the numbers of a plane's tiles stand for; builds the overview when needed."""
        pyramid = self.pyramid(plane)
        unit = "" if self.plane.unit is None else self.plane.unit.to_string()
        if plane in MAPS:
            unit = "" if plane == "peak" else f"{unit} Hz".strip()
        return {
            "level": pyramid.overview.level, "noise": pyramid.noise, "top": pyramid.top, "unit": unit,
        }  # fmt: skip

    def tile(self, plane: str, level: int, row: int, column: int) -> bytes:
        """A tile as gzip, see `pipeline.preview.tiles.Pyramid.tile_bytes`.

        Raises
        ------
        IndexError
            When there is no such tile.
        """
        return self.pyramid(plane).tile_bytes(level, row, column)

    def probe(self, plane: str, x: float, y: float) -> dict[str, Any]:
        """Position and value of a pixel.

        Returns
        -------
        dict
            ``ra``, ``dec`` (deg, ICRS; None without sky), ``value`` (None without), ``snr`` over the plane's noise.
        """
        ra, dec = (float(np.ravel(value)[0]) for value in self.plane.pixel_to_sky(x, y))
        column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        pyramid = self.pyramid(plane)
        value = float(pyramid.pixels.read((slice(row, row + 1), slice(column, column + 1)))[0, 0])
        noise, level = pyramid.overview.noise, pyramid.overview.level
        known, sky = np.isfinite(value), np.isfinite(ra) and np.isfinite(dec)
        return {
            "x": x, "y": y, "ra": ra if sky else None, "dec": dec if sky else None,
            "value": float(f"{value:.6g}") if known else None,
            "snr": round((value - level) / noise, 2) if known and noise > 0 else None,
        }  # fmt: skip

    def spectrum(self, x: float, y: float, radius: float) -> dict[str, Any]:
        """Spectrum of a cube around a position, see `pipeline.preview.cube.read_spectrum`.

        Raises
        ------
        IndexError
            When this is no cube.
        """
        if self.cube is None:
            raise IndexError("an image has no spectrum")
        unit = "" if self.plane.unit is None else self.plane.unit.to_string()
        return {**read_spectrum(self.cube, x, y, radius), "unit": unit}

    def place(self, ra: Any, dec: Any, major: Any, minor: Any, pa: Any) -> dict[str, np.ndarray]:
        """Where sources lie in the pixel grid: x, y, major, minor (px, FWHM), theta (rad).

        Sources without a size get the beam, or four pixels.
        """
        ra, dec = np.asarray(ra, float), np.asarray(dec, float)
        x, y = self.plane.sky_to_pixel(ra, dec) if ra.size else (ra, dec)
        beam = self.plane.beam
        usual = (beam.major, beam.minor, beam.pa) if beam else (4 * self.plane.pixel_scale,) * 2 + (0.0,)
        sizes = [np.asarray(values, float) for values in (major, minor, pa)]
        unknown = ~np.isfinite(sizes).all(0) | (sizes[0] <= 0) | (sizes[1] <= 0)
        sizes = [np.where(unknown, value, values) for value, values in zip(usual, sizes, strict=True)]
        placed = np.isfinite(x) & np.isfinite(y)
        at = np.where(placed, x, 0), np.where(placed, y, 0)
        width, height, theta = self.plane.ellipse_to_pixel(*at, *sizes) if ra.size else (x, x, x)
        return {"x": x, "y": y, "major": width, "minor": height, "theta": theta}


def open_preview(
    path: str | Path, folder: Path, *, hdu: int | str | None = None, beam: Beam | tuple[float, ...] | None = None
) -> Preview | None:
    """Open an observation to look at it; None for spectra, which have no image.

    Parameters
    ----------
    path : path-like
    folder : Path
        Where overviews and maps are kept.
    hdu, beam
        As the run was given them.

    Raises
    ------
    InputError
        When the file is missing or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected the observation's file, there is none; was it moved?", path=str(path))
    if is_cube(path, hdu=hdu):
        return Preview(open_cube(path, hdu=hdu, beam=beam), folder)
    if holds_spectra(path, hdu=hdu):
        return None
    return Preview(open_image(path, hdu=hdu, beam=beam), folder)
