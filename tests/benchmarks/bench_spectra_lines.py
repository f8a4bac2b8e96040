"""Lines in held-out simulated spectra: the network against the filter bank; and what it says of detections in cubes.

    python tests/benchmarks/bench_spectra_lines.py
    python tests/benchmarks/bench_spectra_lines.py --spectra 400 --cubes 3

Seeds are those that neither training nor calibration saw. Each finder's threshold is the lowest that gives a
reliability of 0.95 on tuning spectra; the tables are those of the test spectra, all of them and those whose continuum
is a constant. "alone" are lines with no other within their widths. Errors of centre, width and flux are those of the
catalogue, measured on the data, of the lines that a finder found (a finder of bright lines only has small ones);
"common" is that of the centres of lines that all found. The last table tells how well `line_score` parts the real rows
of a cube's catalogue from the false ones, beside the detector's own p_real.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.calibrate_cube import _match
from pipeline.calibrate_lines import Searched, draw_spectra, search_drawn
from pipeline.detect_cube import analyse_cube
from pipeline.measure_spectrum import measure_spectrum_lines
from pipeline.options import DetectOptions
from pipeline.scorers.lines import match_lines, score_lines
from survey_io.cube import open_cube
from survey_io.simulate.hi import HiModel, simulate_hi, truth_table, write_hi

TUNING_SEED, TEST_SEED, CUBE_SEED = 301_000, 302_000, 303_000
RELIABILITY = 0.95
# S/N from which a line counts as missed when it is not found.
WANTED_SNR = 5.0


def lines_table(
    *, spectra: int = 300, models: tuple[str, ...] = ("lines", "line-clip"), plain: bool = False
) -> list[dict[str, Any]]:
    """One row per finder: completeness, reliability, F1, errors of centre and width, seconds per million channels.

    With ``plain`` of those of the spectra whose continuum is a constant: no bends, ripples or loud channels.
    """
    tuning, test = (draw_spectra(spectra, seed) for seed in (TUNING_SEED, TEST_SEED))
    if plain:
        tuning, test = ([one for one in drawn if np.ptp(one[0].continuum) == 0] for drawn in (tuning, test))
    rows, errors = [], []
    for name in models:
        limit = _limit(search_drawn(name, tuning))
        begin = time.perf_counter()
        searched = search_drawn(name, test)
        seconds = time.perf_counter() - begin
        measured = [_measured(one, prepared, limit) for one, (_, prepared) in zip(searched, test, strict=True)]
        everything = score_lines(measured, least=WANTED_SNR)
        alone = score_lines([(found, _alone(truth)) for found, truth in measured], least=WANTED_SNR)
        channels = sum(prepared.channels.count for _, prepared in test)
        rows.append({
            "finder": name, "found": everything.completeness, "alone": alone.completeness,
            "reliability": everything.reliability, "f1": everything.f1, "centre": everything.centre,
            "width": everything.width, "flux": everything.flux, "lines": everything.wanted, "rows": everything.rows,
            "s_per_million": seconds / channels * 1e6,
        })  # fmt: skip
        errors.append(_centre_errors(measured))
    shared = set.intersection(*(set(own) for own in errors))
    for row, own in zip(rows, errors, strict=True):
        row["common"] = float(np.median([own[line] for line in shared])) if shared else float("nan")
    return rows


def _centre_errors(measured: list[tuple[dict, dict]]) -> dict[tuple[int, int], float]:
    """Error of the centre over the FWHM of every line that was found, by spectrum and line."""
    errors = {}
    for number, (found, truth) in enumerate(measured):
        for row, line in enumerate(match_lines(found, truth)):
            if line >= 0:
                errors[number, int(line)] = abs(found["z"][row] - truth["z"][line]) / truth["width"][line]
    return errors


def _limit(searched: list[Searched]) -> float:
    """The lowest log odds from which the wanted reliability is reached on tuning spectra."""
    logits = np.concatenate([one.found["logit"] for one in searched])
    best = float(logits.max())
    for limit in np.quantile(logits, np.linspace(0, 0.995, 200)):
        pairs = [({**one.found, "score": one.found["logit"]}, one.truth) for one in searched]
        if score_lines(pairs, least=WANTED_SNR, threshold=float(limit)).reliability >= RELIABILITY:
            return float(limit)
    return best


def _measured(one: Searched, prepared: Any, limit: float) -> tuple[dict, dict]:
    """The rows above a limit with what a catalogue says of them, and the truth."""
    keep = one.found["logit"] >= limit
    found = {name: value[keep] for name, value in one.found.items()}
    m = measure_spectrum_lines(prepared.flux, prepared.level, prepared.rms, found)
    rms = prepared.rms[np.clip(np.rint(found["z"]).astype(int), 0, len(prepared.rms) - 1)]
    return {**found, "z": m["z"], "width": m["width"], "flux": m["flux"] / rms}, one.truth


def _alone(truth: dict) -> dict:
    """The truth with all lines ignored that have another of any strength within their added widths."""
    apart = np.abs(truth["z"][:, None] - truth["z"][None]) < truth["width"][:, None] + truth["width"][None]
    np.fill_diagonal(apart, False)
    return {**truth, "ignore": truth["ignore"] | apart.any(axis=1)}


def vetting_table(*, cubes: int = 2, models: tuple[str, ...] = ("light3d", "smooth-clip")) -> list[dict[str, Any]]:
    """One row per finder: areas under the ROC curves of p_real, line_score and both together."""
    drawn = HiModel(shape=(384, 144, 144), density=20.0, continuum=2.0, interference=0.01)
    rows = []
    for name in models:
        real, p_real, line_score = [], [], []
        for number in range(cubes):
            cube, galaxies = simulate_hi(drawn, seed=CUBE_SEED + number)
            with tempfile.TemporaryDirectory() as folder:
                path = write_hi(drawn, cube, galaxies, Path(folder))["cube"]
                result = analyse_cube(open_cube(path), DetectOptions(model=name, threshold=0.05))
            table = result.table
            real.append(_match(table, truth_table(drawn, galaxies)) >= 0)
            p_real.append(np.asarray(table["p_real"], float))
            line_score.append(np.nan_to_num(np.asarray(table["line_score"], float)))
        real, p_real, line_score = (np.concatenate(parts) for parts in (real, p_real, line_score))
        both = _log_odds(p_real) + _log_odds(line_score)
        rows.append({
            "finder": name, "rows": len(real), "real": int(real.sum()), "p_real": area_under(real, p_real),
            "line_score": area_under(real, line_score), "both": area_under(real, both),
        })  # fmt: skip
    return rows


def area_under(real: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: how often a real row has the higher score than a false one; ties count half."""
    good, bad = score[real][:, None], score[~real][None]
    return float(np.mean((good > bad) + 0.5 * (good == bad)))


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    names = list(rows[0])
    print("  ".join(f"{name:>13}" for name in names))
    for row in rows:
        print("  ".join(f"{v:>13}" if isinstance(v, (str, int)) else f"{v:>13.4f}" for v in row.values()), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=300, help="tuning spectra, and as many test spectra")
    parser.add_argument("--cubes", type=int, default=2, help="cubes for line_score; 0 leaves them out")
    given = parser.parse_args()
    for plain in (False, True):
        print("spectra with a constant continuum" if plain else "all spectra")
        show(lines_table(spectra=given.spectra, plain=plain))
    if given.cubes:
        print("areas under ROC curves, detections of simulated HI cubes")
        show(vetting_table(cubes=given.cubes))


if __name__ == "__main__":
    main()
