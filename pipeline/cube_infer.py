"""The pieces of work of one cube, each a plain function of small arguments: what Dask workers are sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.detections import Detections
from pipeline.cube_finders import CubeFinderSpec
from pipeline.device_cubes import find_cube_on_device
from pipeline.merge import owned
from survey_io.cube_snr import read_cube_snr
from survey_io.tiles import Tile

Arrays = dict[str, np.ndarray]

def find_cube_piece(pixels: Any, noise: Any, finder: CubeFinderSpec, tile: Tile, negative: bool = False) -> Arrays:
    """Candidates whose anchors a tile owns, in cube voxels, and the highest S/N over channels and over rows."""
    on_device = find_cube_on_device(pixels, noise, finder, tile, negative)
    if on_device is not None:
        return {**on_device, **finder.told()}
    snr = read_cube_snr(pixels, noise, tile.full, threads=finder.threads)
    if negative:
        np.negative(snr, out=snr)
    # One sum tells whether there are blanks to be looked for.
    whole = bool(np.isfinite(snr.sum()))
    if not whole and np.isnan(snr).all():
        found = Detections.empty(3)
    else:
        found = owned(finder.find(snr, whole=whole).shifted(tile.origin), tile.core)
    inner = snr[tuple(slice(c.start - f.start, c.stop - f.start) for c, f in zip(tile.core, tile.full, strict=True))]
    sky, velocity = _highest(inner, whole)
    maps = {"sky": sky, "position_velocity": velocity}
    return {
        **found.to_arrays(),
        **finder.told(),
        **{name: np.where(np.isnan(map_), -np.inf, map_).astype(np.float16) for name, map_ in maps.items()},
        "blank": np.array(0 if whole else np.isnan(inner).sum()),
    }


def _highest(snr: np.ndarray, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Highest values over channels and over rows, NaN where all are, in one way through the data."""
    # fmax passes over blanks.
    highest = np.maximum if whole else np.fmax
    sky = snr[0].copy()
    velocity = np.empty((len(snr), snr.shape[2]), snr.dtype)
    for plane, row in zip(snr, velocity, strict=True):
        highest(sky, plane, out=sky)
        highest.reduce(plane, axis=0, out=row)
    return sky, velocity


def assemble_maps(
    shape: tuple[int, int, int], tiles: list[Tile], parts: list[tuple[int, Arrays]]
) -> tuple[np.ndarray, np.ndarray]:
    """Highest S/N over channels, (ny, nx), and over rows, (nchan, nx), from the pieces of `find_cube_piece`."""
    sky = np.full(shape[1:], -np.inf, np.float32)
    velocity = np.full((shape[0], shape[2]), -np.inf, np.float32)
    for number, arrays in parts:
        c, y, x = tiles[number].core
        sky[y, x] = np.maximum(sky[y, x], arrays["sky"])
        velocity[c, x] = np.maximum(velocity[c, x], arrays["position_velocity"])
    return np.where(np.isneginf(sky), np.nan, sky), np.where(np.isneginf(velocity), np.nan, velocity)


def measure_cube_piece(
    pixels: Any, noise: Any, spectral: Any, beam: tuple[float, float, float], pixel_scale: float,
    sources: Arrays, batch: np.ndarray,
) -> Arrays:  # fmt: skip
    """Measurements of a batch of sources, by `measure_lines`; all sources come along as neighbours."""
    from pipeline.measure_cube import measure_lines

    return measure_lines(pixels, noise, spectral, beam=beam, pixel_scale=pixel_scale, sources=sources, which=batch)


def vet_cube_piece(
    pixels: Any, noise: Any, beam: tuple[float, float, float], finder: Any, calibration: dict[str, float],
    sources: Arrays, batch: np.ndarray,
) -> Arrays:  # fmt: skip
    """``line_score`` of a batch of sources, by `vet_lines`."""
    from pipeline.line_vetting import vet_lines

    own = {name: value[batch] for name, value in sources.items()}
    return {"line_score": vet_lines(pixels, noise, beam, own, finder, calibration)}
