"""The reliability diagram of a classifier: probabilities stated against shares that came true."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.drawing import save_figure
from pipeline.scorers.classification import reliability_bins


def draw_reliability(
    truth: np.ndarray, curves: dict[str, np.ndarray], path: Path, *, keep: np.ndarray | None = None, title: str = ""
) -> Path:
    """Draw and write the diagram, with the number of decisions in each bin below it.

    Parameters
    ----------
    truth : ndarray of bool
        What came true, any shape.
    curves : dict of ndarray
        By label, the probabilities stated, of the same shape: calibrated and not, say. The last one's counts are shown.
    path : Path
    keep : ndarray of bool, optional
        Decisions that count.
    title : str
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="0.7", lw=1)
    for label, probability in curves.items():
        bins = reliability_bins(truth, probability, keep=keep, bins=10)
        above.errorbar(
            bins.stated, bins.measured, bins.error, fmt="o-", ms=4, lw=1, capsize=2,
            label=f"{label}: calibration error {bins.expected_calibration_error:.4f}",
        )  # fmt: skip
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that came true", title=title)
    above.legend(loc="upper left", fontsize=8, frameon=False)
    below.bar(0.5 * (bins.low + bins.high), bins.count, width=0.9 * (bins.high - bins.low), color="0.6")
    below.set(yscale="log", xlabel="probability stated", ylabel="decisions")
    return save_figure(figure, path)
