"""Pictures that a person wants to look at: an image with its catalogue, a network's progress in training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from pipeline.binning import bin_image, estimate_noise, stretch
from pipeline.drawing import (
    DPI,
    INK,
    MAX_RINGS,
    PAPER,
    Box,
    Page,
    draw_beam,
    draw_certainty_bar,
    draw_rings,
    draw_scale_bar,
    label_sky,
    save_figure,
    show_image,
    write_text,
)
from survey_io.names import printable
from survey_io.observation import Observation


def write_quicklook(
    observation: Observation,
    table: Table,
    path: str | Path,
    *,
    max_size: int = 1600,
    title: str | None = None,
) -> Path:
    """Draw an image with its detected sources and save it as PNG.

    The overview is the image, binned to the size of the picture; where it is much larger than its beam, two
    panels beside it show the most crowded part and the brightest source outside it at full resolution.

    Parameters
    ----------
    observation : Observation
        Its pixels are read in strips: memory does not grow with the height of the image.
    table : Table
        Catalogue with the columns ``x``, ``y`` (px); used when present: ``maj``, ``min`` (arcsec), ``pa``
        (deg), ``p_real`` (else ``score``), ``snr``, ``local_rms``. May be empty.
    path : str or Path
        PNG file to write; an existing file is replaced.
    max_size : int
        Longest side of the picture in pixels, at least 400.
    title : str, optional
        First line; the file's name by default.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        When the file cannot be written.
    ValueError
        When `max_size` is below 400 or the table has no positions.
    """
    if max_size < 400:
        raise ValueError(f"max_size must be at least 400 pixels, got {max_size}")
    for name in ("x", "y"):
        if name not in table.colnames:
            raise ValueError(f"a quicklook needs the columns x and y, got {table.colnames}")
    path = Path(path)
    noise = estimate_noise(observation.pixels)
    marks = _marks(observation, table)
    zooms = _choose_zooms(observation, marks)

    ny, nx = observation.shape
    page = Page(nx / ny, max_size, zooms=bool(zooms), bar=bool(len(marks["x"])))
    figure, font = page.figure, page.font

    overview = WCSAxes(figure, page.overview, wcs=observation.wcs)
    figure.add_axes(overview)
    pixels_on_screen = page.side * DPI * min(page.aspect / nx, 1 / ny)
    image, factor = bin_image(observation.pixels, max(1, int(1 / pixels_on_screen)), noise)
    whole = (0, 0, image.shape[0] * factor, image.shape[1] * factor)
    show_image(overview, image, whole, interpolation="auto")
    overview.set_xlim(-0.5, nx - 0.5)
    overview.set_ylim(-0.5, ny - 0.5)
    label_sky(overview, observation, font)
    drawn = draw_rings(overview, marks, smallest=9 / pixels_on_screen, limit=MAX_RINGS, width=0.06 * font)
    draw_beam(overview, observation, (0, 0, ny, nx), pixels_on_screen)
    draw_scale_bar(overview, observation, (0, 0, ny, nx), font)

    for number, (box, caption) in enumerate(zooms):
        panel = figure.add_axes(page.zoom(number))
        rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
        on_screen = DPI * page.column / (box[2] - box[0])
        show_image(panel, stretch(observation.pixels.read((rows, columns)), floor=noise), box)
        panel.set(xlim=(box[1] - 0.5, box[3] - 0.5), ylim=(box[0] - 0.5, box[2] - 0.5), xticks=[], yticks=[])
        panel.spines[:].set_color(INK)
        draw_rings(panel, marks, smallest=7 / on_screen, limit=MAX_RINGS, width=0.11 * font, box=box)
        draw_beam(panel, observation, box, on_screen)
        draw_scale_bar(panel, observation, box, font)
        letter = "AB"[number]
        write_text(
            panel, 0.02, 0.98, f"{letter}  {caption}", font, ha="left", va="top", transform=panel.transAxes
        )
        frame = Rectangle(
            (box[1] - 0.5, box[0] - 0.5), box[3] - box[1], box[2] - box[0], fill=False, ec=INK, lw=0.09 * font
        )
        overview.add_patch(frame)
        write_text(overview, box[1], box[2], letter, font, ha="left", va="bottom", clip_on=True)

    if len(marks["x"]):
        draw_certainty_bar(figure, figure.add_axes(page.bar), marks["label"], font)
    caption = _caption(observation, table, noise, drawn)
    page.head(printable(title or observation.path.name), caption)
    return save_figure(figure, path)


def write_prediction_picture(
    path: str | Path,
    snr: NDArray[np.float32],
    truth: Mapping[str, ArrayLike],
    detections: Mapping[str, ArrayLike],
    *,
    probability: NDArray[np.float32] | None = None,
    title: str = "",
) -> Path:
    """Draw what a detector finds in one field beside what is there, to watch a training.

    Parameters
    ----------
    path : str or Path
        PNG file to write.
    snr : array (H, W)
        Signal over noise.
    truth, detections : mapping of str to array
        ``x``, ``y`` (px); detections also ``score`` in [0, 1]. With ``major``, ``minor`` (FWHM, px) and
        ``theta`` (rad) detections are drawn as ellipses, otherwise as rings of one size. Truth is drawn as
        dotted white circles.
    probability : array (h, w), optional
        Map of the predicted probability over the same field, of any resolution; drawn in a second panel.
    title : str
        For example the step and the loss.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    snr = np.asarray(snr)
    height, width = snr.shape
    panels = 1 if probability is None else 2
    # Inches: panels 7 high with the field's shape, a line of text above, the colour bar on the right.
    wide, high = 7 * float(np.clip(width / height, 0.3, 3)), 7.0
    page = (0.1 + panels * (wide + 0.15) + 0.85, high + 0.65)
    figure = Figure(figsize=page, dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    places = [(0.1 + i * (wide + 0.15), wide) for i in range(panels)] + [(page[0] - 0.85, 0.18)]
    axes = [figure.add_axes((x / page[0], 0.1 / page[1], w / page[0], high / page[1])) for x, w in places]
    bar = axes.pop()
    box = (0, 0, height, width)
    show_image(axes[0], stretch(snr, floor=0.0), box)
    x, y = (np.asarray(truth[key], dtype=float) for key in ("x", "y"))
    found = {key: np.asarray(detections[key], dtype=float) for key in ("x", "y", "score")}
    size = max(8.0, max(height, width) / 45)
    found["major"], found["minor"] = (
        np.asarray(detections.get(key, np.full(found["x"].size, size)), dtype=float)
        for key in ("major", "minor")
    )
    found["theta"] = np.asarray(detections.get("theta", np.zeros(found["x"].size)), dtype=float)
    found["p"], found["snr"] = (
        found["score"],
        np.asarray(detections.get("peak_snr", found["score"]), dtype=float),
    )
    for axis in axes:
        axis.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5), xticks=[], yticks=[])
        rings = EllipseCollection(
            np.full(x.size, size * 1.25), np.full(x.size, size * 1.25), np.zeros(x.size), units="xy",
            offsets=np.column_stack([x, y]), offset_transform=axis.transData, facecolors="none",
            edgecolors=INK, linewidths=0.8, linestyles="dotted",
        )  # fmt: skip
        axis.add_collection(rings)
    draw_rings(axes[0], found, smallest=size * 0.6, limit=10**6, width=1.3)
    if probability is not None:
        extent = (-0.5, width - 0.5, -0.5, height - 0.5)
        shown = np.nan_to_num(np.asarray(probability, dtype=float))
        axes[1].imshow(shown, origin="lower", extent=extent, cmap="magma", vmin=0, vmax=1, aspect="auto")
    draw_certainty_bar(figure, bar, "score", 9)
    note = f"{printable(title)}   " if title else ""
    note += f"true sources: {x.size:,} (dotted)   detections: {found['x'].size:,} (coloured by score)"
    figure.text(0.012, 0.965, note, color=INK, fontsize=11, va="center")
    return save_figure(figure, Path(path))


def _column(table: Table, name: str, default: float) -> NDArray[np.float64]:
    if name not in table.colnames:
        return np.full(len(table), default)
    values = np.ma.asarray(getattr(table[name], "value", table[name])).astype(float)
    return np.ma.filled(values, np.nan)


def _marks(observation: Observation, table: Table) -> dict[str, Any]:
    """Ellipses in the pixel grid, with probability and S/N, in the order of falling S/N."""
    x, y = _column(table, "x", np.nan), _column(table, "y", np.nan)
    beam = observation.beam
    usual = (beam.major, beam.minor, beam.pa) if beam else (4 * observation.pixel_scale,) * 2 + (0.0,)
    size = [_column(table, name, value) for name, value in zip(("maj", "min", "pa"), usual, strict=True)]
    unknown = ~np.isfinite(size).all(0) | (size[0] <= 0) | (size[1] <= 0)
    size = [np.where(unknown, value, column) for value, column in zip(usual, size, strict=True)]
    major, minor, theta = observation.ellipse_to_pixel(x, y, *size) if len(table) else (x, x, x)
    label = next((name for name in ("p_real", "score") if name in table.colnames), "p_real")
    marks = {"x": x, "y": y, "major": major, "minor": minor, "theta": theta,
             "p": _column(table, label, 1.0), "snr": _column(table, "snr", 0.0)}  # fmt: skip
    keep = np.isfinite([x, y, major, minor, theta]).all(0)
    order = np.argsort(-np.nan_to_num(marks["snr"][keep]), kind="stable")
    return {key: value[keep][order] for key, value in marks.items()} | {"label": label}


def _choose_zooms(observation: Observation, marks: Mapping[str, Any]) -> list[tuple[Box, str]]:
    """Boxes of the most crowded part and of a bright source, where the overview cannot show them."""
    ny, nx = observation.shape
    beam = observation.beam_pixels()[0] if observation.beam else 4.0
    side = int(np.clip(45 * beam, 96, 800))
    if not len(marks["x"]) or min(ny, nx) < 2.2 * side:
        return []

    def box_around(x: float, y: float) -> Box:
        x0 = int(np.clip(x - side / 2, 0, nx - side))
        y0 = int(np.clip(y - side / 2, 0, ny - side))
        return y0, x0, y0 + side, x0 + side

    likely = marks["p"] > 0.5 if (marks["p"] > 0.5).any() else np.ones(len(marks["p"]), dtype=bool)
    step = side / 4
    count, _, _ = np.histogram2d(
        marks["y"][likely], marks["x"][likely],
        bins=(max(4, int(ny / step)), max(4, int(nx / step))), range=((-0.5, ny - 0.5), (-0.5, nx - 0.5)),
    )  # fmt: skip
    window = np.lib.stride_tricks.sliding_window_view(count, (4, 4)).sum((2, 3))
    row, column = np.unravel_index(np.argmax(window), window.shape)
    crowded = box_around((column + 2) * nx / count.shape[1], (row + 2) * ny / count.shape[0])
    zooms = [(crowded, "most crowded")]
    for x, y in zip(marks["x"][likely], marks["y"][likely], strict=True):
        box = box_around(x, y)
        if abs(box[0] - crowded[0]) >= side or abs(box[1] - crowded[1]) >= side:
            brightest = (x, y) == (marks["x"][likely][0], marks["y"][likely][0])
            return [*zooms, (box, "brightest source" if brightest else "bright source")]
    return zooms


def _caption(observation: Observation, table: Table, noise: float, drawn: int) -> str:
    ny, nx = observation.shape
    parts = [f"{len(table):,} source{'' if len(table) == 1 else 's'}" if len(table) else "no sources"]
    if drawn < len(table):
        parts[0] += f" ({drawn:,} brightest ringed in the overview)"
    parts.append(f"{nx} × {ny} pixels")
    if observation.beam:
        beam = observation.beam
        assumed = " (estimated)" if beam.origin == "estimated" else ""
        parts.append(f"beam {beam.major:.3g} × {beam.minor:.3g} arcsec at {beam.pa:.0f}°{assumed}")
    rms = _column(table, "local_rms", np.nan)
    level = float(np.median(rms[np.isfinite(rms)])) if np.isfinite(rms).any() else noise
    unit = "" if observation.unit is None else observation.unit.to_string()
    if unit in ("Jy / beam", "beam-1 Jy"):
        for factor, name in ((1e9, "nJy"), (1e6, "μJy"), (1e3, "mJy"), (1.0, "Jy")):
            if level * factor < 1000:
                level, unit = level * factor, f"{name}/beam"
                break
    parts.append(f"rms {level:.3g} {unit}".rstrip())
    return "   ·   ".join(parts)
