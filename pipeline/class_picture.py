"""One picture per classified spectrum: the data, what the network saw, and what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import median_filter

from models.box_search import best_box
from models.light_curves import flatten
from pipeline.drawing import save_figure
from pipeline.place import Placed
from survey_io.class_columns import probability_column, spectrum_flags_text
from survey_io.spectral_grid import SpectralGrid
from survey_io.spectrum import Spectrum

# Classes shown as bars, the likeliest of many.
_BARS = 12


def draw_spectrum(spectrum: Spectrum, placed: Placed, module: Any, row: Any, folder: Path) -> Path:
    """Draw and write ``ID_NAME.png``.

    Parameters
    ----------
    spectrum : Spectrum
        As its file has it.
    placed : Placed
        On the model's grid: what the table tells of.
    module : torch module
        The classifier: its grid, answers and prepare.
    row : table row
        Of `survey_io.class_columns.make_class_table`.
    folder : Path

    Returns
    -------
    Path
    """
    from matplotlib.figure import Figure

    grid, flux = module.grid, placed.flux
    centres = placed.start + grid.centres()
    seen = np.isfinite(flux).astype(float)
    prepared = module.prepare(flux[None], seen[None])[0]
    periodic = spectrum.is_series and any(value.name == "period" for value in module.answers.values)
    rows = [["data", "bars"], ["input", "bars"], *([["folded", "bars"]] if periodic else [])]
    figure = Figure(figsize=(12, 3 * len(rows)), layout="constrained")
    panels = figure.subplot_mosaic(rows, width_ratios=(4, 1))
    unit = f" ({spectrum.flux_unit})" if str(spectrum.flux_unit) else ""
    # Light curves have gaps and much noise: dots.
    style = {"marker": ".", "ms": 1, "ls": ""} if spectrum.is_series else {"lw": 0.6}
    panels["data"].plot(spectrum.axis, spectrum.flux, color="black", **style)
    panels["data"].set(xlabel=str(spectrum.unit), ylabel=f"flux{unit}")
    # Lines are in the picture, single wild bins are not.
    good = median_filter(spectrum.flux[np.isfinite(spectrum.flux)], 3)
    low, high = good.min(), good.max()
    pad = 0.1 * (high - low) or 1.0
    panels["data"].set_ylim(low - pad, high + pad)
    panels["data"].set_title(f"{row['spectrum_id']}  {spectrum.name}", loc="left")
    shown = np.where(seen > 0, prepared[0], np.nan)
    panels["input"].plot(centres, shown, color="tab:blue", **style)
    panels["input"].set(xlabel=grid.unit, ylabel="what the network reads")
    for first, last in _stretches(seen == 0):
        panels["input"].axvspan(centres[first], centres[last], color="0.9", lw=0)
    if periodic:
        _fold(panels["folded"], flux, float(row["period"]), grid)
    classes = module.answers.classes
    chance = np.array([float(row[probability_column(name)]) for name in classes])
    order = np.arange(len(classes)) if len(classes) <= _BARS else np.sort(np.argsort(-chance)[:_BARS])
    bars = panels["bars"]
    colours = ["tab:orange" if k == chance.argmax() else "0.6" for k in order]
    bars.barh(np.arange(len(order)), chance[order], color=colours)
    bars.set_yticks(np.arange(len(order)), [classes[k] for k in order])
    bars.invert_yaxis()
    bars.set(xlim=(0, 1), xlabel="probability")
    lines = [f"{row['class']}" if row["class"] else "none named"]
    for value in module.answers.values:
        lines.append(f"{value.name} {row[value.name]:.4g} ± {row[value.name + '_err']:.2g} {value.unit}")
    if row["flags"]:
        lines.append(spectrum_flags_text(row["flags"]).replace("|", "\n"))
    bars.set_title("\n".join(lines), fontsize=9)
    stem = re.sub(r"[^A-Za-z0-9.+-]+", "_", spectrum.name)[:60]
    return save_figure(figure, folder / f"{row['spectrum_id']}_{stem}.png")


def _fold(axis: Any, flux: np.ndarray, period: float, grid: SpectralGrid) -> None:
    """The flattened light curve over a period and a half, its deepest box of this period in the middle."""
    curve = flatten(flux[None])
    box = best_box(curve.flat[0], curve.weight[0], period * np.linspace(0.998, 1.002, 9))
    time = grid.centres() - grid.start
    place = (time - box.epoch + 0.75 * box.period) % box.period - 0.75 * box.period
    seen = curve.weight[0] > 0
    relative = 1 + curve.flat[0] * curve.noise[0]
    for turn in (0, 1):
        at = place + turn * box.period
        use = seen & (at < 0.75 * box.period)
        axis.plot(at[use], relative[use], ".", ms=1, color="0.6")
        edges = np.linspace(-0.75, 0.75, 301) * box.period
        cells = np.clip(np.digitize(at[use], edges) - 1, 0, 299)
        count = np.bincount(cells, minlength=300)
        with np.errstate(invalid="ignore"):
            axis.plot(
                0.5 * (edges[1:] + edges[:-1]), np.bincount(cells, relative[use], 300) / count, ".", ms=3,
                color="tab:orange",
            )  # fmt: skip
    low, high = np.quantile(relative[seen], [0.002, 0.998])
    pad = 0.1 * (high - low) or 1.0
    axis.set(
        xlabel=f"{grid.unit} from the middle of the deepest box with a period of {box.period:.5g} {grid.unit}",
        ylabel="flattened flux", xlim=(-0.75 * box.period, 0.75 * box.period), ylim=(low - pad, high + pad),
    )  # fmt: skip


def _stretches(missing: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    padded = np.concatenate([[False], missing, [False]]).astype(int)
    starts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    return list(zip(starts, ends - 1, strict=True))
