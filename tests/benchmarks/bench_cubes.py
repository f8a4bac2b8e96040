"""Held-out simulated HI cubes: SDC2 score, purity and speed of our finders of lines.

    python tests/benchmarks/bench_cubes.py --tune 101 102 --test 201 202 203

The threshold on p_real is the one with the best exact score on the tuning seeds; the table is that of the test seeds.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.table import Table

from models.registry import list_models
from pipeline.detect_cube import analyse_cube
from pipeline.options import DetectOptions
from pipeline.scorers.sdc2 import SDC2_SUBSCORES, score_sdc2
from survey_io.cube import open_cube
from survey_io.sdc2 import sdc2_columns
from survey_io.simulate.hi import HiModel, simulate_hi, truth_table, write_hi

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=int, nargs="+", default=[101, 102], help="seeds that choose the threshold")
    parser.add_argument("--test", type=int, nargs="+", default=[201, 202, 203], help="seeds that are reported")
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 256, 256], help="channels, rows, columns")
    parser.add_argument("--density", type=float, default=6.0, help="galaxies per million voxels; SDC2 has 1")
    parser.add_argument("--rms", type=float, default=2.0e-5, help="Jy/beam")
    parser.add_argument("--models", nargs="+", default=list_models(kind="detector", ndim=3))
    given = parser.parse_args()
    model = HiModel(shape=tuple(given.shape), first_frequency=1.0e9, density=given.density, rms=given.rms)
    print(f"{'model':>12}{'p_real':>8}{'score':>9}{'sane':>9}{'rows':>6}{'purity':>8}{'mean':>7}{'Mvox/s':>8}")
    for name in given.models:
        tuned = [_run(name, model, seed)[:2] for seed in given.tune]
        totals = [sum(_score(table, truth, limit).score for table, truth in tuned) for limit in THRESHOLDS]
        limit = THRESHOLDS[int(np.argmax(totals))]
        runs = [_run(name, model, seed) for seed in given.test]
        exact = [_score(table, truth, limit) for table, truth, _ in runs]
        sane = sum(_score(table, truth, limit, sane=True).score for table, truth, _ in runs)
        rows, matched = sum(s.n_det for s in exact), sum(s.n_match for s in exact)
        mean = sum(s.mean * s.n_match for s in exact if s.n_match) / max(matched, 1)
        speed = np.prod(model.shape) * len(runs) / sum(seconds for *_, seconds in runs) / 1e6
        score = sum(s.score for s in exact)
        print(
            f"{name:>12}{limit:>8.2f}{score:>9.2f}{sane:>9.2f}{rows:>6}{matched / max(rows, 1):>8.3f}{mean:>7.3f}"
            f"{speed:>8.2f}"
        )
        parts = {part: np.nanmean([s.subscores[part] for s in exact]) for part in SDC2_SUBSCORES}
        print(" " * 12 + "  ".join(f"{part} {value:.2f}" for part, value in parts.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB for cubes of {np.prod(model.shape) * 4 / 2**20:.0f} MiB")


def _run(name: str, model: HiModel, seed: int) -> tuple[Table, Table, float]:
    cube, galaxies = simulate_hi(model, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = write_hi(model, cube, galaxies, Path(folder))["cube"]
        del cube
        begin = time.perf_counter()
        table = analyse_cube(open_cube(path), DetectOptions(model=name, threshold=min(THRESHOLDS))).table
        return table, truth_table(model, galaxies), time.perf_counter() - begin


def _score(table: Table, truth: Table, limit: float, *, sane: bool = False):
    return score_sdc2(sdc2_columns(table[np.asarray(table["p_real"]) >= limit]), truth, sane=sane)


if __name__ == "__main__":
    main()
