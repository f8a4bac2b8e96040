"""The picture of a cube: highest S/N over channels on the sky, and over rows against frequency, with its sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from pipeline.drawing import CERTAINTY, DPI, INK, MUTED, PAPER, draw_certainty_bar, save_figure
from survey_io.names import printable

if TYPE_CHECKING:
    from survey_io.cube import Cube

# Names are drawn beside this many of the brightest sources; more would hide the picture.
LABELLED = 25
# Maps with longer sides than this are binned before they are drawn.
MOST_PIXELS = 1200
# Rings are this many times the FWHM of the moment-0 map.
ELLIPSE = 1.8


def _binned(image: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """The highest value of each block of pixels, so that no side is longer than a picture can show; and its extent."""
    step = [-(-n // MOST_PIXELS) for n in image.shape]
    pad = [(0, -n % s) for n, s in zip(image.shape, step, strict=True)]
    filled = np.pad(np.nan_to_num(image, nan=-np.inf), pad, constant_values=-np.inf)
    ny, nx = filled.shape
    highest = filled.reshape(ny // step[0], step[0], nx // step[1], step[1]).max(axis=(1, 3))
    return np.where(np.isneginf(highest), np.nan, highest), (-0.5, nx - 0.5, -0.5, ny - 0.5)


def write_cube_quicklook(
    cube: Cube, table: Table, sky: np.ndarray, position_velocity: np.ndarray, path: str | Path
) -> Path:
    """Draw a cube with its detected sources and save it as PNG.

    Parameters
    ----------
    cube : Cube
    table : Table
        Columns of `survey_io.cube_columns.CUBE_COLUMNS`.
    sky : ndarray, shape (ny, nx)
        Highest S/N over channels.
    position_velocity : ndarray, shape (nchan, nx)
        Highest S/N over rows.
    path : str or Path
        PNG file to write; an existing file is replaced.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    nchan, ny, nx = cube.shape
    figure = Figure(figsize=(15, 7.6), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    left = WCSAxes(figure, (0.07, 0.09, 0.38, 0.80), wcs=cube.plane.wcs)
    figure.add_axes(left)
    right = figure.add_axes((0.53, 0.09, 0.37, 0.80))
    for axis, shown in ((left, sky), (right, position_velocity)):
        shown, extent = _binned(shown)
        finite = shown[np.isfinite(shown)]
        low, high = np.percentile(finite, (5, 99.7)) if finite.size else (0, 1)
        axis.imshow(
            shown, origin="lower", cmap="gray", vmin=low, vmax=max(high, low + 1), aspect="auto", extent=extent
        )
    left.set_aspect("equal")
    for coordinate, name in zip(left.coords, ("Right ascension", "Declination"), strict=False):
        coordinate.set_axislabel(name, color=MUTED)
        coordinate.set_ticklabel(color=MUTED)
        coordinate.set_ticks(color=MUTED)
    frequency = cube.spectral.frequency(np.arange(nchan)) / 1e6
    ticks = np.linspace(0, nchan - 1, 6)
    right.set_yticks(ticks, [f"{np.interp(t, np.arange(nchan), frequency):.2f}" for t in ticks])
    right.set_xlabel("x (px)")
    right.set_ylabel("frequency (MHz)")
    right.tick_params(colors=MUTED)
    right.xaxis.label.set_color(MUTED)
    right.yaxis.label.set_color(MUTED)
    order = np.argsort(-np.nan_to_num(np.asarray(table["snr"], float)))
    for rank, row in enumerate(table[order] if len(table) else ()):
        colour = CERTAINTY(float(np.nan_to_num(row["p_real"])))
        axes = [float(np.nan_to_num(row[name])) for name in ("maj", "min", "pa")]
        major, minor, theta = cube.plane.ellipse_to_pixel(row["x"], row["y"], *axes)
        major, minor = (ELLIPSE * max(float(side), 2.0) for side in (major, minor))
        angle = float(np.degrees(theta))
        left.add_patch(Ellipse((row["x"], row["y"]), major, minor, angle=angle, fill=False, ec=colour, lw=1.4))
        corner = (row["x_min"] - 0.5, row["z_min"] - 0.5)
        sides = (row["x_max"] - row["x_min"] + 1, row["z_max"] - row["z_min"] + 1)
        right.add_patch(Rectangle(corner, *sides, fill=False, ec=colour, lw=1.2))
        if rank < LABELLED:
            at = (row["x"] + 0.55 * major, row["y"])
            left.annotate(str(row["source_id"]), at, color=INK, fontsize=9, annotation_clip=True)
            right.annotate(str(row["source_id"]), (row["x_max"] + 1, row["z"]), color=INK, fontsize=9)
    left.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))
    right.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, nchan - 0.5))
    left.set_title("highest S/N over channels", fontsize=11, color=INK)
    right.set_title("highest S/N over rows", fontsize=11, color=INK)
    if len(table):
        draw_certainty_bar(figure, figure.add_axes((0.925, 0.09, 0.012, 0.80)), "p_real", 10)
    count = len(table)
    caption = f"{printable(cube.path.name)}   {nchan} x {ny} x {nx}   {count} source{'' if count == 1 else 's'}"
    figure.text(0.07, 0.95, caption, fontsize=13, color=INK)
    return save_figure(figure, Path(path))
