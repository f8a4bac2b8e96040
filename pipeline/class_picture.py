"""One picture per classified spectrum: the data, what the network saw, and what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import median_filter

from pipeline.drawing import save_figure
from pipeline.place import Placed
from survey_io.class_columns import probability_column, spectrum_flags_text
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
    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplot_mosaic([["data", "bars"], ["input", "bars"]], width_ratios=(4, 1))
    unit = f" ({spectrum.flux_unit})" if str(spectrum.flux_unit) else ""
    panels["data"].plot(spectrum.axis, spectrum.flux, lw=0.6, color="black")
    panels["data"].set(xlabel=str(spectrum.unit), ylabel=f"flux{unit}")
    # Lines are in the picture, single wild bins are not.
    good = median_filter(spectrum.flux[np.isfinite(spectrum.flux)], 3)
    low, high = good.min(), good.max()
    pad = 0.1 * (high - low) or 1.0
    panels["data"].set_ylim(low - pad, high + pad)
    panels["data"].set_title(f"{row['spectrum_id']}  {spectrum.name}", loc="left")
    shown = np.where(seen > 0, prepared[0], np.nan)
    panels["input"].plot(centres, shown, lw=0.6, color="tab:blue")
    panels["input"].set(xlabel=grid.unit, ylabel="what the network reads")
    for first, last in _stretches(seen == 0):
        panels["input"].axvspan(centres[first], centres[last], color="0.9", lw=0)
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


def _stretches(missing: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    padded = np.concatenate([[False], missing, [False]]).astype(int)
    starts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    return list(zip(starts, ends - 1, strict=True))
