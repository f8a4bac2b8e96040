"""What an evaluation says: the numbers, their text and their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scorers import SUBSCORES

Bins = list[dict[str, float]]
SNR_TICKS = (2, 3, 4, 5, 7, 10, 20, 50, 100)


@dataclass(frozen=True)
class Report:
    """Result of `pipeline.evaluate.evaluate`: a dictionary of numbers that prints as a text.

    Attributes
    ----------
    values : dict
        ``reliability``, ``completeness_3``, ``_5``, ``_10`` and ``f1_...`` (above that apparent S/N),
        ``completeness_bins``, ``reliability_bins`` (by S/N), ``errors`` (by S/N), ``calibration`` (with
        p_real) and ``sdc1`` (with that scorer): ``exact``, ``corrected``, ``chance``.
    """

    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __str__(self) -> str:
        return format_report(self.values)


def wilson_interval(successes: NDArray[Any] | float, trials: NDArray[Any] | float) -> tuple[Any, Any]:
    """95% interval of a fraction (Wilson 1927); (0, 1) without trials."""
    z = 1.959964
    n = np.maximum(np.asarray(trials, dtype=np.float64), 1e-12)
    p = np.asarray(successes) / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def binned_fraction(values: NDArray[Any], success: NDArray[np.bool_], edges: Sequence[float]) -> Bins:
    """Share of successes among rows binned by a value: a list of lo, hi, n, mean, fraction, low, high
    (95%)."""
    edges = np.asarray(edges)
    index = np.digitize(values, edges) - 1
    bins = []
    for number, (lo, hi) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = (index == number) & np.isfinite(values)
        n, good = int(part.sum()), int(success[part].sum())
        low, high = wilson_interval(good, n)
        fraction = good / n if n else float("nan")
        mean = float(values[part].mean()) if n else float("nan")
        limits = {"lo": float(lo), "hi": float(hi), "n": n, "mean": mean}
        bins.append(limits | {"fraction": fraction, "low": float(low), "high": float(high)})
    return bins


def _range(one: dict[str, float]) -> str:
    if np.isinf(one["lo"]):
        return "all"
    return f"> {one['lo']:g}" if np.isinf(one["hi"]) else f"{one['lo']:g}-{min(one['hi'], 1e9):g}"


def format_report(values: dict[str, Any]) -> str:
    """The report as text, about 40 lines."""
    lines = []
    if "sdc1" in values:
        lines += [*_format_sdc1(values["sdc1"]), ""]
    n, matched = values["n_catalogue"], values["n_matched"]
    lines.append(
        f"{n} rows, {matched} matched to true sources above S/N {values['faintest_snr']:g}"
        f" ({values['n_truth']} in all)"
    )
    lines.append(f"reliability {values['reliability']:.3f}   beam {values['beam_arcsec']:.3g} arcsec")
    if np.isfinite(values["completeness_5"]):
        parts = [f"{k}: {values[f'completeness_{k}']:.3f} / {values[f'f1_{k}']:.3f}" for k in (3, 5, 10)]
        lines.append("completeness / F1 above S/N " + "   ".join(parts))
    lines += [
        "",
        f"{'S/N':>8}{'true':>8}{'found':>8}{'95% interval':>15}   {'rows':>7}{'real':>8}{'95% interval':>15}",
    ]
    for true, rows in zip(values["completeness_bins"], values["reliability_bins"], strict=True):
        lines.append(f"{_range(true):>8}{_format_bin(true)}   {_format_bin(rows, 7)}")
    lines += ["", *_format_errors(values["errors"])]
    if "calibration" in values:
        lines += [
            "",
            f"p_real: mean distance of stated and seen {values['calibration']['expected_error']:.3f}",
        ]
        lines.append(f"{'stated':>12}{'mean':>8}{'seen':>8}{'95% interval':>15}{'rows':>8}")
        for one in values["calibration"]["bins"]:
            if one["n"]:
                interval = f"{one['low']:.3f}-{one['high']:.3f}"
                lines.append(
                    f"{_range(one):>12}{one['mean']:>8.3f}{one['fraction']:>8.3f}{interval:>15}{one['n']:>8}"
                )
    return "\n".join(lines)


def _format_bin(one: dict[str, float], width: int = 8) -> str:
    if not one["n"]:
        return f"{0:>{width}}{'-':>8}{'':>15}"
    interval = f"{one['low']:.3f}-{one['high']:.3f}"
    return f"{one['n']:>{width}}{one['fraction']:>8.3f}{interval:>15}"


def _format_sdc1(sdc1: dict[str, Any]) -> list[str]:
    lines = [f"{'SDC1':>10}{'score':>11}{'rows':>8}{'match':>8}{'false':>7}{'purity':>8}{'accuracy':>10}"]
    for name in ("exact", "corrected"):
        one = sdc1[name]
        counts = "".join(
            f"{one[key]:>{width}}" for key, width in (("n_det", 8), ("n_match", 8), ("n_false", 7))
        )
        counts += f"{one['purity']:>8.3f}{one['accuracy']:>9.2f}%"
        lines.append(f"{name:>10}{one['value']:>11.2f}{counts}")
    lines.append(f"{'':>10}" + "".join(f"{name:>11}" for name in SUBSCORES))
    for name in ("exact", "corrected"):
        lines.append(f"{name:>10}" + "".join(f"{sdc1[name]['means'][key]:>11.3f}" for key in SUBSCORES))
    chance = sdc1["chance"]
    lines.append(
        f"matches by chance: {100 * chance['rate']:.1f}% of the rows (catalogue shifted by 30 arcsec)"
    )
    return lines


def _format_errors(errors: Bins) -> list[str]:
    head = f"{'S/N':>8}{'n':>7}{'offset':>9}{'flux':>8}{'+-':>7}{'size':>8}{'+-':>7}{'PA err':>8}"
    pulls = [name for name in ("ra", "dec", "flux") if f"{name}_pull" in errors[0]]
    lines = [head + "".join(f"{name + ' pull':>11}" for name in pulls)]
    for one in errors:
        line = f'{_range(one):>8}{one["n"]:>7}{one["position_arcsec"]:>8.3f}"'
        line += f"{one['flux_ratio']:>8.3f}{one['flux_scatter']:>7.3f}"
        line += f"{one['size_ratio']:>8.3f}{one['size_scatter']:>7.3f}{one['pa_error_deg']:>7.1f}°"
        lines.append(line + "".join(f"{one[name + '_pull']:>11.2f}" for name in pulls))
    return lines


def write_picture(report: Report, path: Path) -> Path:
    """Draw completeness, reliability, errors and calibration; returns the PNG's path."""
    from matplotlib.figure import Figure

    from pipeline.drawing import save_figure

    values = report.values
    figure = Figure(figsize=(11, 8), dpi=110, layout="constrained")
    axes = figure.subplots(2, 2)
    for axis, bins, title in (
        (axes[0, 0], values["completeness_bins"], "completeness: true sources found"),
        (axes[0, 1], values["reliability_bins"], "reliability: rows that are real"),
    ):
        _draw_bins(axis, bins, log=True)
        axis.set(title=title, xlabel="S/N of the peak", ylim=(0, 1.03), xscale="log", xlim=(2, 110))
        axis.set_xticks(SNR_TICKS, [str(one) for one in SNR_TICKS])
        axis.set_xticks([], minor=True)
    _draw_errors(axes[1, 0], values["errors"])
    if "calibration" in values:
        axis = axes[1, 1]
        axis.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
        _draw_bins(axis, values["calibration"]["bins"], log=False)
        axis.set(
            title="calibration of p_real",
            xlabel="stated probability",
            ylabel="seen",
            xlim=(0, 1),
            ylim=(0, 1.03),
        )
    else:
        axes[1, 1].set_axis_off()
    if "sdc1" in values:
        exact = values["sdc1"]["exact"]
        figure.suptitle(
            f"SDC1 score {exact['value']:.1f}: {exact['n_match']} matches, {exact['n_false']} false,"
            f" accuracy {exact['accuracy']:.1f}%"
        )
    else:
        figure.suptitle(
            f"{values['n_matched']} of {values['n_catalogue']} rows matched,"
            f" F1 {values['f1_5']:.3f} above S/N 5"
        )
    return save_figure(figure, path)


def _draw_bins(axis: Any, bins: Bins, *, log: bool) -> None:
    used = [one for one in bins if one["n"]]
    if not used:
        return
    x = np.array([one["mean"] for one in used])
    y = np.array([one["fraction"] for one in used])
    low, high = np.array([one["low"] for one in used]), np.array([one["high"] for one in used])
    if log:
        x = np.array([np.sqrt(max(one["lo"], 0.1) * min(one["hi"], 2 * one["lo"])) for one in used])
    axis.errorbar(
        x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o-", ms=4, lw=1.4, capsize=2
    )
    axis.grid(alpha=0.25)


def _draw_errors(axis: Any, errors: Bins) -> None:
    labels = [f"S/N {_range(one)}" for one in errors]
    places = np.arange(len(errors))
    for shift, name in ((-0.1, "flux"), (0.1, "size")):
        ratio = np.array([one[f"{name}_ratio"] for one in errors])
        scatter = np.array([one[f"{name}_scatter"] for one in errors])
        axis.errorbar(
            places + shift, ratio, yerr=ratio * scatter, fmt="o", ms=5, capsize=3, label=f"{name} / true"
        )
    axis.axhline(1.0, color="0.6", lw=1, ls="--")
    axis.set_xticks(places, labels)
    axis.set(title="median ratio and scatter of matched sources", ylim=(0, 2))
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
