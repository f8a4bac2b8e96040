"""The picture of a file of spectra: each with its continuum and its lines, and the clearest lines one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from pipeline.drawing import CERTAINTY, DPI, INK, MUTED, PAPER, draw_certainty_bar, save_figure
from survey_io.names import printable

if TYPE_CHECKING:
    from pipeline.spectrum_lines import Prepared

# More spectra than this are not shown; lines shown one by one; room of a line's number, as a share of the axis.
MOST_SPECTRA, ZOOMS, LABEL_ROOM = 6, 6, 0.012
# A spectrum with more channels is drawn as the range of values of each of so many bins.
MOST_POINTS = 3000
# A zoom shows so many FWHM on either side, and no fewer channels.
ZOOM_FWHM, ZOOM_CHANNELS = 4.0, 20


def write_spectrum_quicklook(prepared: list[Prepared], table: Table, path: str | Path, *, title: str) -> Path:
    """Draw spectra with their detected lines and save them as PNG.

    Parameters
    ----------
    prepared : list of Prepared
        The first few are shown.
    table : Table
        Columns of `survey_io.line_columns.LINE_COLUMNS`.
    path : str or Path
        PNG file to write; an existing file is replaced.
    title : str
        Name of the file.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    shown = prepared[:MOST_SPECTRA]
    strength = np.nan_to_num(np.asarray(table["snr"], float))
    owner = _owners(prepared, table)
    order = [int(row) for row in np.argsort(-strength, kind="stable") if owner[row] < len(shown)]
    zooms = order[:ZOOMS]
    rows = len(shown) + bool(zooms)
    figure = Figure(figsize=(15, 1.1 + 3.0 * rows), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    high = 1.1 + 3.0 * rows
    for number, one in enumerate(shown):
        axis = figure.add_axes((0.06, 1 - (0.75 + 3.0 * number + 2.4) / high, 0.86, 2.4 / high))
        own = [row for row in order if owner[row] == number]
        _draw_spectrum(axis, one, _own_units(table[own] if own else table[:0], one), label=len(shown) > 1)
    for place, row in enumerate(zooms):
        width = 0.86 / ZOOMS
        axis = figure.add_axes((0.06 + place * width, 0.45 / high, 0.8 * width, 2.15 / high))
        _draw_zoom(axis, prepared[owner[row]], _own_units(table[[row]], prepared[owner[row]])[0])
    if len(table):
        draw_certainty_bar(figure, figure.add_axes((0.945, 0.45 / high, 0.01, (high - 1.4) / high)), "p_real", 10)
    count, more = len(table), len(prepared) - len(shown)
    rest = f"   ({more} more spectra)" if more else ""
    caption = f"{printable(title)}   {count} line{'' if count == 1 else 's'}{rest}"
    figure.text(0.06, 1 - 0.45 / high, caption, fontsize=13, color=INK, parse_math=False)
    return save_figure(figure, Path(path))


def _owners(prepared: list[Prepared], table: Table) -> np.ndarray:
    """Number of the spectrum that each row is of."""
    keys = [
        (one.channels.spectrum.name, -1 if one.channels.spectrum.row is None else one.channels.spectrum.row)
        for one in prepared
    ]
    known = {key: number for number, key in reversed(list(enumerate(keys)))}
    return np.array([known[(str(row["spectrum"]), int(row["row"]))] for row in table], int)


def _own_units(rows: Table, one: Prepared) -> Table:
    """Rows in the units of their spectrum, where those of the file differ."""
    spectrum, rows = one.channels.spectrum, rows.copy()
    for names, unit in ((("centre", "fwhm"), spectrum.unit), (("peak", "continuum"), spectrum.flux_unit)):
        for name in names:
            scale = (rows[name].unit or u.dimensionless_unscaled).to(unit)
            rows[name] = np.asarray(rows[name]) * scale
    return rows


def _style(axis: Axes) -> None:
    axis.set_facecolor(PAPER)
    axis.tick_params(colors=MUTED, labelsize=9)
    for spine in axis.spines.values():
        spine.set_color(MUTED)
    for text in (axis.xaxis.label, axis.yaxis.label):
        text.set_color(MUTED)
        text.set_fontsize(9)
    axis.xaxis.get_offset_text().set_color(MUTED)
    axis.yaxis.get_offset_text().set_color(MUTED)


def _draw_spectrum(axis: Axes, one: Prepared, rows: Table, *, label: bool) -> None:
    spectrum, count = one.channels.spectrum, one.channels.count
    x = one.channels.axis(np.arange(count))
    bins = -(-count // MOST_POINTS)
    if bins == 1:
        axis.step(x, one.flux, where="mid", color=INK, lw=0.7)
    else:
        pad = -count % bins
        blocks = np.pad(one.flux, (0, pad), constant_values=np.nan).reshape(-1, bins)
        middle = np.pad(x, (0, pad), mode="edge").reshape(-1, bins).mean(axis=1)
        low, high = np.fmin.reduce(blocks, axis=1), np.fmax.reduce(blocks, axis=1)
        axis.fill_between(middle, low, high, color=INK, lw=0.5)
    axis.plot(x, np.where(np.isfinite(one.level), one.level, np.nan), color="#ffae3d", lw=0.9)
    finite = one.flux[np.isfinite(one.flux)]
    low, high = np.percentile(finite, (0.1, 99.9))
    # Lines are shown whole, spikes are not.
    heights = np.asarray(rows["continuum"] + rows["peak"], float)
    heights = heights[np.isfinite(heights)]
    low, high = min([low, *heights]), max([high, *heights])
    room = max(high - low, 1e-30)
    seen = np.flatnonzero(np.isfinite(one.flux))
    ends = (x[seen[0]], x[seen[-1]])
    colours = CERTAINTY(np.nan_to_num(np.asarray(rows["p_real"], float)))
    centre, half = np.asarray(rows["centre"], float), 0.5 * np.nan_to_num(np.asarray(rows["fwhm"], float))
    floor, top = low - 0.12 * room, high + 0.22 * room
    spans = [[(c - h, floor), (c - h, top), (c + h, top), (c + h, floor)] for c, h in zip(centre, half, strict=True)]
    axis.add_collection(PolyCollection(spans, facecolors=colours, alpha=0.22, linewidths=0), autolim=False)
    axis.vlines(centre, high + 0.06 * room, high + 0.12 * room, colors=colours, lw=1.2)
    labels: list[float] = []
    for row in rows:
        # The clearest come first; numbers that would lie on others are left out.
        if all(abs(row["centre"] - other) > LABEL_ROOM * (ends[1] - ends[0]) for other in labels):
            labels.append(float(row["centre"]))
            axis.text(row["centre"], high + 0.13 * room, str(row["line_id"]), color=INK, fontsize=8, ha="center")
    axis.set(xlim=ends, ylim=(floor, top))
    axis.set_xlabel(_axis_label(spectrum.unit))
    axis.set_ylabel(spectrum.flux_unit.to_string() or "flux")
    if label:
        axis.set_title(printable(spectrum.name), loc="left", fontsize=9, color=MUTED, parse_math=False)
    _style(axis)


def _draw_zoom(axis: Axes, one: Prepared, row: Table.Row) -> None:
    channels = np.arange(one.channels.count)
    centre = float(np.interp(row["centre"], one.channels.axis(channels), channels))
    reach = max(ZOOM_FWHM * float(np.nan_to_num(row["fwhm_channels"])), ZOOM_CHANNELS)
    low, high = max(int(centre - reach), 0), min(int(centre + reach) + 1, one.channels.count)
    span = slice(low, high)
    x, level = one.channels.axis(np.arange(low, high)), one.level[span]
    axis.step(x, one.flux[span], where="mid", color=INK, lw=0.8)
    axis.plot(x, level, color="#ffae3d", lw=0.9)
    colour, half = CERTAINTY(float(np.nan_to_num(row["p_real"]))), 0.5 * float(np.nan_to_num(row["fwhm"]))
    axis.axvspan(row["centre"] - half, row["centre"] + half, color=colour, alpha=0.22, lw=0)
    axis.axvline(row["centre"], color=colour, lw=0.8)
    axis.set_xlim(x[0], x[-1])
    axis.xaxis.get_major_locator().set_params(nbins=3)
    axis.set_yticks([])
    axis.set_title(f"{row['line_id']}   S/N {row['snr']:.1f}", fontsize=9, color=INK)
    _style(axis)


def _axis_label(unit) -> str:
    kind = {"length": "wavelength", "frequency": "frequency", "time": "time"}.get(str(unit.physical_type), "velocity")
    return f"{kind} ({unit.to_string()})"
