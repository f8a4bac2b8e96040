"""The parts that skysift's pictures are drawn with: page, rings, beam, scale bar, colour bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from survey_io.errors import OutputError
from survey_io.observation import Observation
from survey_io.quiet import quiet

INK, PAPER, MUTED = "#e8ecf1", "#10131a", "#9aa4b2"
# From doubtful to certain; none of them is grey, so that they stand out from the image.
CERTAINTY = LinearSegmentedColormap.from_list(
    "certainty", ["#ff4d5a", "#ffae3d", "#f3e85a", "#53e0a1", "#38c6ff"]
)
# More rings than this in the overview hide the sky; the zooms show every source.
MAX_RINGS = 1500
# A ring follows the contour of a Gaussian at this S/N, within these bounds in FWHM, so that it is not hidden.
CONTOUR_SNR = 1.5
RING_RANGE = (1.6, 3.5)
DPI = 100
PNG_LEVEL = 3
STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 18000, 36000, 72000, 180000)
AXIS_NAMES = {
    "RA": "Right ascension", "DEC": "Declination", "GLON": "Galactic longitude", "GLAT": "Galactic latitude",
    "ELON": "Ecliptic longitude", "ELAT": "Ecliptic latitude",
}  # fmt: skip

Box = tuple[int, int, int, int]  # first row, first column, row past the end, column past the end


class Page:
    """The figure and where its parts go; lengths in inches, places in the figure's fractions."""

    def __init__(self, aspect: float, max_size: int, *, zooms: bool, bar: bool) -> None:
        unit = max_size / 1600
        self.aspect = float(np.clip(aspect, 0.4, 3.0))
        self.left, self.bottom, self.top, self.gap = 1.0 * unit, 0.66 * unit, 0.95 * unit, 0.22 * unit
        right = (0.98 if bar else 0.3) * unit
        beside = self.left + right + (self.gap if zooms else 0)
        room = max_size / DPI
        self.side = min(
            (room - beside) / (self.aspect + (0.5 if zooms else 0)),
            room - self.bottom - self.top,
            11.5 * unit,
        )
        self.column = 0.5 * (self.side - self.gap) if zooms else 0.0
        self.width = beside + self.aspect * self.side + self.column
        self.height = self.bottom + self.side + self.top
        self.font = max(5.5, 10.5 * unit)
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(self.figure)
        self.overview = self._place(self.left, self.bottom, self.aspect * self.side, self.side)
        self.bar = self._place(self.width - right + 0.2 * unit, self.bottom, 0.2 * unit, self.side)

    def _place(self, x: float, y: float, width: float, height: float) -> list[float]:
        return [x / self.width, y / self.height, width / self.width, height / self.height]

    def zoom(self, number: int) -> list[float]:
        """Place of the upper (0) or lower (1) panel."""
        y = self.bottom + (1 - number) * (self.column + self.gap)
        return self._place(self.left + self.aspect * self.side + self.gap, y, self.column, self.column)

    def head(self, title: str, caption: str) -> None:
        """Write the two lines above the panels."""
        x = self.left / self.width
        options = {"va": "center", "parse_math": False}
        self.figure.text(x, 1 - 0.33 * self.top / self.height, title, color=INK, fontsize=1.5 * self.font,
                         weight="bold", **options)  # fmt: skip
        self.figure.text(
            x, 1 - 0.72 * self.top / self.height, caption, color=MUTED, fontsize=self.font, **options
        )


def show_image(axis: Axes, shown: NDArray[np.float32], box: Box, *, interpolation: str = "nearest") -> None:
    """Show an image already stretched to [0, 1] in the pixel coordinates of `box`; blanks are blue-grey."""
    extent = (box[1] - 0.5, box[3] - 0.5, box[0] - 0.5, box[2] - 0.5)
    axis.set_facecolor("#272d3a")
    axis.imshow(
        np.ma.masked_invalid(shown),
        origin="lower",
        extent=extent,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation=interpolation,
    )


def draw_rings(
    axis: Axes, marks: Mapping[str, Any], *, smallest: float, limit: int, width: float, box: Box | None = None
) -> int:
    """Rings coloured by probability, at least `smallest` px across; returns how many were drawn."""
    inside = np.ones(len(marks["x"]), dtype=bool)
    if box is not None:
        inside = (marks["y"] > box[0] - 0.5) & (marks["y"] < box[2] - 0.5)
        inside &= (marks["x"] > box[1] - 0.5) & (marks["x"] < box[3] - 0.5)
    row = np.flatnonzero(inside)[:limit]
    contour = np.sqrt(np.log2(np.maximum(np.nan_to_num(marks["snr"][row]) / CONTOUR_SNR, 1.0)))
    scale = np.clip(contour, *RING_RANGE)
    rings = EllipseCollection(
        np.maximum(scale * marks["major"][row], smallest),
        np.maximum(scale * marks["minor"][row], smallest),
        np.degrees(marks["theta"][row]),
        units="xy",
        offsets=np.column_stack([marks["x"][row], marks["y"][row]]),
        offset_transform=axis.transData,
        facecolors="none",
        linewidths=width,
        edgecolors=CERTAINTY(np.clip(np.nan_to_num(marks["p"][row]), 0, 1)),
    )
    axis.add_collection(rings)
    return row.size


def draw_beam(axis: Axes, observation: Observation, box: Box, on_screen: float) -> None:
    """Draw the beam to scale in the lower left corner, unless it is too small to be seen."""
    if observation.beam is None:
        return
    major, minor, theta = observation.beam_pixels()
    if major * on_screen < 5:
        return
    side = max(1.6 * major, 18 / on_screen)
    corner = (box[1] - 0.5 + 10 / on_screen, box[0] - 0.5 + 10 / on_screen)
    axis.add_patch(Rectangle(corner, side, side, fc=PAPER, ec=MUTED, lw=0.8, zorder=5))
    centre = (corner[0] + side / 2, corner[1] + side / 2)
    axis.add_patch(Ellipse(centre, major, minor, angle=np.degrees(theta), fc=INK, ec="none", zorder=5))


def draw_scale_bar(axis: Axes, observation: Observation, box: Box, font: float) -> None:
    """Draw a bar of a round angle in the lower right corner."""
    width, height = box[3] - box[1], box[2] - box[0]
    longest = 0.28 * width * observation.pixel_scale
    length = max((step for step in STEPS if step <= longest), default=longest)
    end, y = box[3] - 0.04 * width, box[0] + 0.035 * height
    stroke = [withStroke(linewidth=0.4 * font, foreground=PAPER)]
    ends = [end - length / observation.pixel_scale, end]
    axis.plot(ends, [y, y], color=INK, lw=0.18 * font, path_effects=stroke, solid_capstyle="butt")
    text = f"{length:.3g} arcsec"
    if length >= 60:
        text = f"{length / 60:g} arcmin" if length < 3600 else f"{length / 3600:g}°"
    write_text(
        axis,
        end - 0.5 * length / observation.pixel_scale,
        y + 0.012 * height,
        text,
        font,
        ha="center",
        va="bottom",
    )


def write_text(axis: Axes, x: float, y: float, text: str, font: float, **options: Any) -> None:
    """Write a label that stays readable on any background."""
    stroke = [withStroke(linewidth=0.28 * font, foreground=PAPER)]
    axis.text(x, y, text, color=INK, fontsize=font, path_effects=stroke, zorder=6, **options)


def label_sky(axis: WCSAxes, observation: Observation, font: float) -> None:
    """Name the sky axes after the coordinates of the image."""
    for coordinate, kind in zip(axis.coords, observation.wcs.wcs.ctype, strict=True):
        name = kind.split("-")[0]
        coordinate.set_axislabel(AXIS_NAMES.get(name, name), color=MUTED, fontsize=font, minpad=0.6)
        coordinate.set_ticklabel(color=MUTED, fontsize=0.9 * font, exclude_overlapping=True)
        coordinate.set_ticks(color=MUTED)
    axis.coords.frame.set_color(MUTED)


def draw_certainty_bar(figure: Figure, axis: Axes, label: str, font: float) -> None:
    """Explain the rings' colours."""
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), CERTAINTY), cax=axis)
    name = "probability of being real" if label == "p_real" else "score"
    bar.set_label(name, color=MUTED, fontsize=font)
    bar.ax.tick_params(colors=MUTED, labelsize=0.9 * font)
    bar.outline.set_edgecolor(PAPER)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the picture; raises OutputError when the file cannot be written."""
    try:
        with quiet(RuntimeWarning):
            # Corners of an all-sky projection lie off the sky: their ticks are left out with a warning each.
            # Level 3 takes a third of the time of the usual 6, for files larger by some per cent.
            figure.savefig(
                path, format="png", facecolor=figure.get_facecolor(), pil_kwargs={"compress_level": PNG_LEVEL}
            )
    except OSError as error:
        raise OutputError(
            f"{path}: expected to write a picture there, got {error}; choose a writable folder"
        ) from error
    finally:
        # Figure, axes and canvas name each other: without this each picture's 10 MB stay until the collector comes by.
        figure.clear()
        figure.canvas.renderer = None
    return path
