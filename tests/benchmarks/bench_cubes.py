"""Held-out simulated HI cubes: SDC2 score, purity and speed of our finders of lines and of SoFiA-2 where it is.

    python tests/benchmarks/bench_cubes.py
    python tests/benchmarks/bench_cubes.py --templates SDC2_TEMPLATES --models light3d smooth-clip

Cubes of 512 channels x 256 x 256, seeds that no training used; with --templates a half of the galaxies are real ones
that were held out. Each finder is tuned on the tuning seeds by the best exact score, at a purity of at least --purity:
ours by the threshold on p_real, SoFiA-2 by its settings; fluxes of smooth-clip and SoFiA-2 are also corrected for the
bias that they show there ("bias-corrected"). The table is that of the test seeds. `light3d` is also given as shipped.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from sofia_peer import SETTINGS, find_sofia, run_sofia  # noqa: E402

from models.registry import get_model, list_models  # noqa: E402
from models.weights import list_weights, read_card  # noqa: E402
from pipeline.detect_cube import analyse_cube  # noqa: E402
from pipeline.options import DetectOptions  # noqa: E402
from pipeline.scorers.sdc2 import SDC2_SUBSCORES, Sdc2Score, score_sdc2  # noqa: E402
from survey_io.cube import open_cube  # noqa: E402
from survey_io.sdc2 import sdc2_columns  # noqa: E402
from survey_io.simulate.hi import HiModel, simulate_hi, truth_table, write_hi  # noqa: E402

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
LEAST_ROWS_FOR_BIAS = 30


@dataclass
class Run:
    """What one finder gave on one cube: columns of SDC2 and p_real (1 where there is none), the truth, seconds."""

    columns: dict[str, np.ndarray]
    p_real: np.ndarray
    truth: Table
    seconds: float

    def score(self, limit: float, *, sane: bool = False, bias: np.ndarray | None = None) -> Sdc2Score:
        """Score of the rows above a limit on p_real."""
        kept = {name: value[self.p_real >= limit] for name, value in self.columns.items()}
        if bias is not None:
            flux = kept["line_flux_integral"]
            kept["line_flux_integral"] = flux * np.exp(np.interp(np.log(flux), bias[0], bias[1]))
        return score_sdc2(kept, self.truth, sane=sane)


def main() -> None:
    """Print the table."""
    weightless = [name for name in list_models(kind="detector", ndim=3) if not get_model(name).has_weights]
    shipped = [name for name in list_weights() if get_model(read_card(name).model).ndim == 3]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=int, nargs="+", default=[9101, 9102], help="seeds that choose the threshold")
    parser.add_argument("--test", type=int, nargs="+", default=[9201, 9202, 9203], help="seeds that are reported")
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 256, 256], help="channels, rows, columns")
    parser.add_argument("--density", type=float, default=20.0, help="galaxies per million voxels; SDC2 has 1")
    parser.add_argument("--rms", type=float, default=2.0e-5, help="Jy/beam")
    parser.add_argument("--continuum", type=float, default=0.6, help="badly subtracted sources per 10,000 px")
    parser.add_argument("--templates", type=Path, help="folder of real galaxies; the held-out ones are used")
    parser.add_argument("--purity", type=float, default=0.9, help="least purity on the tuning seeds")
    parser.add_argument("--models", nargs="+", default=[*shipped, *weightless])
    parser.add_argument("--precision", default="auto", help="of the networks")
    parser.add_argument("--passes", type=int, help="looks of the networks at the data")
    given = parser.parse_args()
    model = HiModel(
        shape=tuple(given.shape), first_frequency=1.0e9, density=given.density, rms=given.rms,
        continuum=given.continuum, templates=given.templates, held_out=True if given.templates else None,
    )  # fmt: skip
    print(f"{'finder':>34}{'score':>9}{'sane':>9}{'rows':>6}{'purity':>8}{'found':>7}{'mean':>7}{'Mvox/s':>8}")
    perfect = [_truth(model, seed) for seed in given.test]
    bright = sum(int((truth["snr"] > 5).sum()) for truth in perfect)
    print(f"{'perfect list of S/N above 5':>34}{bright:>9.2f}{bright:>9.2f}{bright:>6}{1:>8.3f}{bright:>7}{1:>7.3f}")
    for name in given.models:
        tune, test = ([_ours(name, model, seed, given) for seed in seeds] for seeds in (given.tune, given.test))
        limit = _limit(tune, given.purity)
        _row(f"{name}, p_real > {limit:g}", model, test, limit)
        if name in shipped:
            own = float(read_card(name).threshold or 0.5)
            _row(f"{name} as shipped ({own:g})", model, test, own)
        else:
            _row(f"{name}, bias-corrected", model, test, limit, _flux_bias(tune, limit))
    if find_sofia():
        best, chosen = -np.inf, SETTINGS[0]
        for setting in SETTINGS:
            runs = [_sofia(model, seed, setting) for seed in given.tune]
            total = sum(run.score(0).score for run in runs)
            if total > best:
                best, chosen, bias = total, setting, _flux_bias(runs, 0)
        test = [_sofia(model, seed, chosen) for seed in given.test]
        label = f"SoFiA-2 {chosen['threshold']:g} sigma, rel {chosen['reliability']}"
        _row(label, model, test, 0)
        _row("SoFiA-2, bias-corrected", model, test, 0, bias)
    else:
        print("SoFiA-2 is left out: no `sofia` on the PATH")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB for cubes of {np.prod(model.shape) * 4 / 2**20:.0f} MiB")


def _truth(model: HiModel, seed: int) -> Table:
    return truth_table(model, simulate_hi(model, seed=seed)[1])


def _ours(name: str, model: HiModel, seed: int, given: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        path, truth = _write(model, seed, Path(folder))
        begin = time.perf_counter()
        options = DetectOptions(
            model=name, threshold=min(THRESHOLDS), precision=given.precision, passes=given.passes
        )
        table = analyse_cube(open_cube(path), options).table
        seconds = time.perf_counter() - begin
    columns = sdc2_columns(table)
    rows = np.searchsorted(np.asarray(table["source_id"]), columns["id"])
    return Run(columns, np.asarray(table["p_real"])[rows], truth, seconds)


def _sofia(model: HiModel, seed: int, setting: dict) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        path, truth = _write(model, seed, Path(folder))
        begin = time.perf_counter()
        table = run_sofia(path, Path(folder), setting, beam=model.beam, pixel=model.pixel_scale)
        seconds = time.perf_counter() - begin
    table = table[np.asarray(table["line_flux_integral"], float) > 0]
    return Run({name: np.asarray(table[name]) for name in table.colnames}, np.ones(len(table)), truth, seconds)


def _write(model: HiModel, seed: int, folder: Path) -> tuple[Path, Table]:
    cube, galaxies = simulate_hi(model, seed=seed)
    return write_hi(model, cube, galaxies, folder)["cube"], truth_table(model, galaxies)


def _limit(runs: list[Run], purity: float) -> float:
    """The threshold with the best total score at the wanted purity; the purest one where none reaches it."""
    best, chosen = -np.inf, max(THRESHOLDS)
    for limit in THRESHOLDS:
        scores = [run.score(limit) for run in runs]
        rows, matched = sum(s.n_det for s in scores), sum(s.n_match for s in scores)
        total = sum(s.score for s in scores)
        if rows and matched / rows >= purity and total > best:
            best, chosen = total, limit
    return chosen


def _flux_bias(runs: list[Run], limit: float) -> np.ndarray | None:
    """ln flux and the median ln (true / measured) of matches there, on the tuning cubes."""
    measured, ratio = [], []
    for run in runs:
        kept = {name: value[run.p_real >= limit] for name, value in run.columns.items()}
        scored = score_sdc2(kept, run.truth, sane=True)
        flux = kept["line_flux_integral"][scored.index]
        measured.append(np.log(flux))
        ratio.append(np.log(np.asarray(run.truth["line_flux_integral"])[scored.truth] / flux))
    measured, ratio = np.concatenate(measured), np.concatenate(ratio)
    if len(measured) < LEAST_ROWS_FOR_BIAS:
        return None
    edges = np.quantile(measured, np.linspace(0, 1, 6))
    bins = np.clip(np.digitize(measured, edges) - 1, 0, 4)
    return np.array([[np.median(values[bins == i]) for i in range(5)] for values in (measured, ratio)])


def _row(label: str, model: HiModel, runs: list[Run], limit: float, bias: np.ndarray | None = None) -> None:
    exact = [run.score(limit, bias=bias) for run in runs]
    sane = sum(run.score(limit, sane=True, bias=bias).score for run in runs)
    rows, matched = sum(s.n_det for s in exact), sum(s.n_match for s in exact)
    found, score = sum(s.n_found for s in exact), sum(s.score for s in exact)
    mean = sum(s.mean * s.n_match for s in exact if s.n_match) / max(matched, 1)
    speed = np.prod(model.shape) * len(runs) / sum(run.seconds for run in runs) / 1e6
    purity = matched / max(rows, 1)
    print(f"{label:>34}{score:>9.2f}{sane:>9.2f}{rows:>6}{purity:>8.3f}{found:>7}{mean:>7.3f}{speed:>8.2f}")
    weights = np.array([s.n_match for s in exact], float)
    parts = {
        part: np.average([s.subscores.get(part, 0.0) for s in exact], weights=np.maximum(weights, 1e-9))
        for part in SDC2_SUBSCORES
    }
    print(" " * 34 + "  ".join(f"{part} {value:.2f}" for part, value in parts.items()), flush=True)


if __name__ == "__main__":
    main()
