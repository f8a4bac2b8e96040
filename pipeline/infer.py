"""The pieces of work of one image, each a plain function of small arguments: what Dask workers are sent.

Pixels are read by path where the work is done; only detections and measurements travel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.detections import Detections
from pipeline.device_pieces import find_on_device
from pipeline.finders import FinderSpec
from pipeline.measure import measure_sources
from pipeline.merge import owned
from survey_io.background import BackgroundMap, background_row
from survey_io.tiles import Tile, plan_tiles

Arrays = dict[str, np.ndarray]

# The negated image is searched in blocks of this side, up to this many pixels in all: enough for some hundred false
# detections at the lowest score kept, at no more than a quarter of a large image's search.
NEGATIVE_BLOCK = 512
NEGATIVE_PIXELS = 2_500_000
STRIP_ROWS = 64


def background_piece(pixels: Any, first: int, last: int, mesh: int, step: int) -> Arrays:
    """Mesh statistics of rows ``first`` to ``last`` (excluded) of mesh cells."""
    rows = [background_row(pixels, row, mesh=mesh, step=step) for row in range(first, last)]
    return {"background": np.stack([b for b, _ in rows]), "rms": np.stack([r for _, r in rows])}


def read_snr(pixels: Any, background: BackgroundMap, window: tuple[slice, slice]) -> np.ndarray:
    """S/N of a window, float32; NaN where blank, outside the image, or without a noise estimate."""
    return read_level(pixels, background, window)[0]


def read_level(
    pixels: Any, background: BackgroundMap, window: tuple[slice, slice], *, in_sigma: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """A window without its background, over the rms or, with ``in_sigma`` false, in the image's unit beside the rms."""
    rows, columns = window
    height, width = rows.stop - rows.start, columns.stop - columns.start
    image = np.empty((height, width), np.float32)
    noise = None if in_sigma else np.empty((height, width), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        # In strips that stay in a core's cache from reading to division.
        for part, level, rms in background.strips(window, STRIP_ROWS):
            strip = (slice(rows.start + part.start, rows.start + part.stop), columns)
            values = np.subtract(pixels.read(strip), level, out=image[part])
            if noise is None:
                np.divide(values, rms, out=values)
            else:
                noise[part] = rms
    return image, noise


def find_piece(
    pixels: Any, background: BackgroundMap, finder: FinderSpec, tiles: list[Tile], negative: bool = False
) -> Arrays:
    """Candidates whose anchors the tiles own, in image pixels; where a GPU runs the network, all found there."""
    on_device = find_on_device(pixels, background, finder, tiles, negative)
    if on_device is not None:
        return {**on_device.to_arrays(), **finder.told()}
    snr = np.empty((len(tiles), *(s.stop - s.start for s in tiles[0].full)), np.float32)
    for window, tile in zip(snr, tiles, strict=True):
        window[:] = read_snr(pixels, background, tile.full)
    if np.isnan(snr[:, ::16, ::16]).all() and np.isnan(snr).all():
        return Detections.empty(2).to_arrays()
    found = finder.find(snr, negative=negative)
    parts = [owned(part.shifted(tile.origin), tile.core) for part, tile in zip(found, tiles, strict=True)]
    return {**Detections.concatenate(parts).to_arrays(), **finder.told()}


def group_tiles(tiles: list[Tile], batch: int) -> list[list[Tile]]:
    """Batches of tiles of one shape, in raster order within a shape."""
    shapes: dict[tuple[int, ...], list[Tile]] = {}
    for tile in tiles:
        shapes.setdefault(tuple(s.stop - s.start for s in tile.full), []).append(tile)
    return [same[i : i + batch] for same in shapes.values() for i in range(0, len(same), batch)]


def negative_tiles(shape: tuple[int, int], finder: FinderSpec) -> tuple[list[Tile], float]:
    """Blocks of the image for the search of the negated image, evenly spread, and their share of its area.

    They depend on the image's shape only, so that probabilities do not depend on the tiling.
    """
    tiles = plan_tiles(shape, tile=NEGATIVE_BLOCK, halo=finder.halo, stride=finder.stride, even=True)
    count = max(1, min(len(tiles), NEGATIVE_PIXELS // NEGATIVE_BLOCK**2))
    chosen = [tiles[int((i + 0.5) * len(tiles) / count)] for i in range(count)]
    area = sum(int(np.prod([s.stop - s.start for s in tile.core])) for tile in chosen)
    return chosen, area / float(np.prod(shape))


def measure_piece(
    pixels: Any,
    background: BackgroundMap,
    window: tuple[slice, slice],
    sources: Arrays,
    beam: tuple[float, float, float],
    shape: tuple[int, int],
) -> Arrays:
    """Measurements of the owned sources of a window, by `measure_sources`; ``index`` tells which they are."""
    image, rms = read_level(pixels, background, window, in_sigma=False)
    # A copy: a piece may have to be done once more with the same arguments.
    sources = dict(sources)
    index = sources.pop("index")
    measured = measure_sources(
        image, rms, sources, origin=(window[0].start, window[1].start), beam=beam, shape=shape
    )
    return {**measured, "index": index[sources["owned"]]}


def measure_pieces(
    shape: tuple[int, int], sources: Arrays, *, tile: int, margin: int
) -> list[tuple[tuple[slice, slice], Arrays]]:
    """Split sources into windows: each source is owned by one, its neighbours within the margin come along."""
    tiles = plan_tiles(shape, tile=tile, halo=margin)
    if len(sources["x"]) == 0:
        return []
    columns = -(-shape[1] // tile)
    home = np.clip(sources["y"] // tile, 0, -(-shape[0] // tile) - 1).astype(int) * columns + np.clip(
        sources["x"] // tile, 0, columns - 1
    ).astype(int)
    pieces = []
    for number in np.unique(home):
        window = tiles[number].full
        rows, cols = window
        near = np.flatnonzero(
            (sources["y"] >= rows.start) & (sources["y"] < rows.stop)
            & (sources["x"] >= cols.start) & (sources["x"] < cols.stop) | (home == number)
        )  # fmt: skip
        part = {name: value[near] for name, value in sources.items()}
        pieces.append((window, {**part, "owned": home[near] == number, "index": near}))
    return pieces
