"""Products of single sources of a cube: cubelet, mask, moment maps, spectrum and a picture that shows them all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from pipeline.measure_cube import source_mask
from survey_io.cubelet import Cubelet, cut_cubelet, moment_maps, write_cubelet
from survey_io.errors import InputError, OutputError

if TYPE_CHECKING:
    from pipeline.ledger import Ledger
    from survey_io.cube import Cube
    from survey_io.cube_beams import PixelBeam
    from survey_io.cube_noise import CubeNoise

Arrays = dict[str, np.ndarray]
# Around a source's voxels: beams of sky, and channels as a share of its own, at least so many.
MARGIN_BEAMS, MARGIN_SHARE, MARGIN_CHANNELS = 2.0, 0.25, 6
_OWN_FILES = re.compile(r"_(\d+)(_(cube|mask|mom[012]|spec)\.fits|_spec\.txt|\.png)$")


@dataclass(frozen=True)
class Source:
    """What a product needs to know of its source.

    Attributes
    ----------
    number : int
        ``source_id``.
    row : dict
        The catalogue's row.
    direction : (float, float)
        From the approaching to the receding side, px in x and y; along the major axis where there is no rotation.
    rotates : bool
        Whether the direction is that of the rotation.
    flux_units : (str, str)
        Of ``line_flux`` and ``line_flux_kms``.
    """

    number: int
    row: dict[str, Any]
    direction: tuple[float, float]
    rotates: bool
    flux_units: tuple[str, str] = ("", "")


def chosen_rows(table: Table, products: int | str) -> np.ndarray:
    """Rows that get products: all, or those with the highest S/N, in the catalogue's order."""
    if products == "all":
        return np.arange(len(table))
    order = np.argsort(-np.nan_to_num(np.asarray(table["snr"], float)), kind="stable")
    return np.sort(order[: int(products)])


def write_products(
    cube: Cube, noise: CubeNoise, table: Table, measured: Arrays, lines: Arrays, products: int | str, folder: Path,
    *, ledger: Ledger, clock: Any,
) -> tuple[Path, int]:  # fmt: skip
    """Write the products of a cube's sources, one after the other, so that memory is that of one source.

    Parameters
    ----------
    cube : Cube
    noise : CubeNoise
    table : Table
        The catalogue.
    measured : dict of ndarray
        `pipeline.measure_cube.measure_lines` of its rows.
    lines : dict of ndarray
        ``sources`` of that measurement: the masks are made again from them.
    products : "all" or int
        Which sources: all, or so many of the clearest.
    folder : Path
        Made when missing. Products that another run left there for sources that this one lacks are removed.
    ledger : Ledger
        What it holds of an interrupted run is not made again.
    clock : Clock

    Returns
    -------
    folder : Path
    count : int
        Sources with products.
    """
    from pipeline.tasks import run_stage

    rows = chosen_rows(table, products)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {int(table["source_id"][row]) for row in rows}
        for path in folder.iterdir():
            found = _OWN_FILES.search(path.name)
            if found and path.name.startswith(f"{cube.stem}_") and int(found[1]) not in wanted:
                path.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: expected a folder for the sources' products, got: {error.strerror}; give another with -o"
        ) from None
    beam = cube.pixel_beam()

    def make(row: int) -> Arrays:
        source = _source(table, measured, row)
        paths = make_product(cube, noise, beam, lines, row, source, f"{folder / cube.stem}_{source.number}")
        return {"files": np.array(len(paths))}

    with clock.stage("products", len(rows)) as advance:
        ledger.rest_on("products", {**lines, "row": np.asarray(rows)})
        run_stage("products", make, [(int(row), (int(row),)) for row in rows], ledger, advance=advance)
    return folder, len(rows)


def make_product(
    cube: Cube, noise: CubeNoise, beam: PixelBeam, lines: Arrays, row: int, source: Source, start: str
) -> list[Path]:
    """Make and write one source's products; returns their paths."""
    from pipeline.cube_product_picture import write_product_picture

    cubelet = source_cubelet(cube, noise, beam, lines, row, name=str(source.row["name"]))
    z = float(np.clip(source.row["z"], 0, cube.shape[0] - 1))
    moments = moment_maps(cubelet, z)
    spectrum = line_spectrum(cubelet, beam)
    paths = write_cubelet(cubelet, moments, spectrum, start)
    return [*paths, write_product_picture(cubelet, moments, spectrum, source, beam, Path(f"{start}.png"))]


def source_cubelet(
    cube: Cube, noise: CubeNoise, beam: tuple[float, float, float], lines: Arrays, row: int, *, name: str = ""
) -> Cubelet:
    """The box around one source: its voxels without residual continuum, and the mask that it was measured with."""
    window, _, _, mask, _, _ = source_mask(cube.pixels, noise, beam, lines, row)
    origin = [span.start for span in window]
    where = np.nonzero(mask)
    if len(where[0]) == 0:
        centre = [round(float(lines[axis][row])) for axis in "zyx"]
        low, high = centre, [c + 1 for c in centre]
    else:
        low = [int(index.min()) + start for index, start in zip(where, origin, strict=True)]
        high = [int(index.max()) + start + 1 for index, start in zip(where, origin, strict=True)]
    sky = round(MARGIN_BEAMS * float(np.sqrt(beam[0] * beam[1]))) + 1
    margin = (max(MARGIN_CHANNELS, round(MARGIN_SHARE * (high[0] - low[0]))), sky, sky)
    box = tuple(
        slice(max(a - m, 0), min(b + m, n)) for a, b, m, n in zip(low, high, margin, cube.shape, strict=True)
    )
    voxels = cube.pixels.read(box)
    voxels -= noise.level(box)
    rms = np.broadcast_to(noise.rms(box), voxels.shape)
    own = np.zeros(voxels.shape, bool)
    index = tuple(i + (start - span.start) for i, start, span in zip(where, origin, box, strict=True))
    own[index] = True
    voxels[own & ~np.isfinite(rms)] = np.nan
    return cut_cubelet(cube, box, voxels, own, rms, name=name)


def line_spectrum(cubelet: Cubelet, beam: PixelBeam) -> Table:
    """Integrated spectrum of a source, one row per channel of its box.

    Returns
    -------
    Table
        ``channel`` (of the whole cube, from 0), ``frequency``, ``velocity`` (optical; NaN without a rest frequency),
        ``flux_density`` and its error over the source's voxels, ``n_pixels`` of them, and ``flux_outline`` with its
        error over the source's outline on the sky in every channel, which also shows what lies beside the line.
    """
    plane, spectral = cubelet.cube.plane, cubelet.cube.spectral
    area = beam.area(cubelet.window[0])
    try:
        unit, scale = "Jy", plane.jansky_per_beam()
    except InputError:
        unit, scale = None if plane.unit is None else f"{plane.unit.to_string()} beam", 1.0
    voxels, mask = np.nan_to_num(cubelet.voxels.astype(float)), cubelet.mask
    usable = np.isfinite(cubelet.voxels) & np.isfinite(cubelet.rms)
    outline = mask.any(axis=0)[None] & usable
    columns: Arrays = {"channel": cubelet.channels, "frequency": spectral.frequency(cubelet.channels)}
    blank = np.full(len(cubelet.channels), np.nan)
    columns["velocity"] = blank if spectral.rest_frequency is None else spectral.velocity_optical(cubelet.channels)
    units = {"frequency": "Hz", "velocity": "km/s"}
    for name, which in (("density", mask), ("outline", outline)):
        count = which.sum(axis=(1, 2))
        rms = np.sqrt((np.where(which & usable, cubelet.rms, 0.0) ** 2).sum(axis=(1, 2)) / np.maximum(count, 1))
        # Fewer pixels than a beam are as uncertain as a beam is.
        error = rms * np.sqrt(np.where(count > 0, np.maximum(count, area), 0) / area)
        columns[f"flux_{name}"] = np.where(which, voxels, 0.0).sum(axis=(1, 2)) / area * scale
        columns[f"flux_{name}_err"] = error * scale
        units[f"flux_{name}"] = units[f"flux_{name}_err"] = unit
        if name == "density":
            columns["n_pixels"] = count.astype(np.int32)
    table = Table(columns)
    for name, text in units.items():
        table[name].unit = text
    return table


def _source(table: Table, measured: Arrays, row: int) -> Source:
    values = {name: table[name][row] for name in table.colnames}
    direction = (float(measured["kin_dx"][row]), float(measured["kin_dy"][row]))
    rotates = bool(np.isfinite(direction).all() and np.hypot(*direction) > 0)
    if not rotates:
        theta = float(np.nan_to_num(measured["theta"][row]))
        direction = (float(np.cos(theta)), float(np.sin(theta)))
    units = tuple(str(table[name].unit or "") for name in ("line_flux", "line_flux_kms"))
    return Source(int(values["source_id"]), values, direction, rotates, units)
