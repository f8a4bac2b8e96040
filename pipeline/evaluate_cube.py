"""A cube's catalogue against the truth: the score of SDC2, exact and sane, and what was found by true S/N and flux."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.scorers.sdc2 import SDC2_SUBSCORES, Sdc2Score, score_sdc2
from survey_io.catalogue import read_catalogue
from survey_io.errors import InputError
from survey_io.sdc2 import SDC2_COLUMNS, read_sdc2, sdc2_columns

# Edges of the bins of true line flux (Jy Hz).
FLUX_EDGES = (0.0, 10.0, 20.0, 35.0, 60.0, 100.0, np.inf)


@dataclass(frozen=True)
class CubeReport:
    """Numbers of `evaluate_lines`; prints as a text."""

    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __str__(self) -> str:
        lines = [f"{'SDC2':>8}{'score':>10}{'rows':>7}{'match':>7}{'false':>7}{'found':>7}{'purity':>8}{'mean':>8}"]
        for name in ("exact", "sane"):
            one = self.values[name]
            lines.append(
                f"{name:>8}{one['score']:>10.2f}{one['n_det']:>7}{one['n_match']:>7}{one['n_false']:>7}"
                f"{one['n_found']:>7}{one['reliability']:>8.3f}{one['mean']:>8.3f}"
            )
        lines.append(f"{'':>8}" + "".join(f"{name:>20}" for name in SDC2_SUBSCORES))
        for name in ("exact", "sane"):
            parts = self.values[name]["subscores"]
            lines.append(f"{name:>8}" + "".join(f"{parts[part]:>20.3f}" for part in SDC2_SUBSCORES))
        lines += ["", f"{'true flux (Jy Hz)':>20}{'galaxies':>10}{'found':>8}{'flux ratio':>12}"]
        for one in self.values["completeness_bins"]:
            if one["n"]:
                span = f"{one['low']:g}-{one['high']:g}"
                lines.append(f"{span:>20}{one['n']:>10}{one['fraction']:>8.3f}{one['flux_ratio']:>12.3f}")
        return "\n".join(lines)


def evaluate_lines(catalogue: Any, truth: Any) -> CubeReport:
    """Compare a cube's catalogue with the true galaxies.

    Parameters
    ----------
    catalogue : path or Table
        A cube's catalogue in any format, or a list in the SDC2 columns.
    truth : path or Table
        SDC2 columns.

    Raises
    ------
    InputError
        Files or columns that cannot be used.
    """
    found, true = _load(catalogue), _load(truth)
    exact, sane = score_sdc2(found, true), score_sdc2(found, true, sane=True)
    flux, ours = np.asarray(true["line_flux_integral"]), np.asarray(found["line_flux_integral"])
    matched = np.zeros(len(flux), bool)
    matched[sane.truth] = True
    ratio = np.full(len(flux), np.nan)
    ratio[sane.truth] = ours[sane.index] / flux[sane.truth]
    bins = []
    for low, high in zip(FLUX_EDGES[:-1], FLUX_EDGES[1:], strict=True):
        rows = (flux >= low) & (flux < high)
        n, seen = int(rows.sum()), rows & matched
        middle = float(np.median(ratio[seen])) if seen.any() else float("nan")
        share = float(matched[rows].mean()) if n else float("nan")
        bins.append({"low": low, "high": high, "n": n, "fraction": share, "flux_ratio": middle})
    return CubeReport({"exact": _plain(exact), "sane": _plain(sane), "completeness_bins": bins})


def _plain(score: Sdc2Score) -> dict[str, Any]:
    values = {name: value for name, value in asdict(score).items() if name not in ("index", "truth")}
    return values | {"reliability": score.reliability}


def _load(source: Any) -> dict[str, np.ndarray]:
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix.lower() in (".txt", ".dat"):
            source = read_sdc2(path)
        else:
            source = read_catalogue(path)
        if not {"line_flux", "frequency"} <= set(source.colnames) and not set(SDC2_COLUMNS) <= set(source.colnames):
            raise InputError(
                f"{path}: expected a cube's catalogue or the SDC2 columns ({' '.join(SDC2_COLUMNS)}), got "
                f"{' '.join(source.colnames[:12])}"
            )
    return sdc2_columns(source)
