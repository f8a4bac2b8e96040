"""Whether p_real says the truth, on simulated skies or cubes that no training and no calibration saw.

    python tests/benchmarks/bench_calibration.py light
    python tests/benchmarks/bench_calibration.py light3d --count 24

The card's calibration is taken as it ships. Per bin of p_real: what is stated on average, the share that is real, and
the number of rows; beside it the detector's own probability, uncalibrated. The calibration's own skies have other
seeds (50,000 on) and its cubes too (70,000 on).
"""

from __future__ import annotations

import argparse

import numpy as np

from models.registry import get_model
from models.weights import read_card
from pipeline.calibrate import Sample, corrected_probability, draw_sample, reliability_curve
from pipeline.calibrate_cube import draw_cubes
from pipeline.reliability import Calibration


def main() -> None:
    """Print both tables and the mean squared error of the probabilities (Brier score)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="light", help="name of shipped weights, or a weights file")
    parser.add_argument("--count", type=int, default=24, help="skies or cubes")
    parser.add_argument("--size", type=int, default=1024, help="side of a sky, px")
    parser.add_argument("--seed", type=int, default=910_000)
    given = parser.parse_args()
    card = read_card(given.model)
    quiet = {"report": lambda _: None}
    if get_model(card.model).ndim == 3:
        sample = draw_cubes(given.model, cubes=given.count, seed=given.seed, threshold=0.0, **quiet)
    else:
        sample = draw_sample(given.model, skies=given.count, size=given.size, seed=given.seed, **quiet)
    shipped = Calibration(**card.calibration["reliability"])
    for label, calibration in (("as shipped", shipped), ("uncalibrated", Calibration(shift_width=1e-6))):
        _show(label, sample, calibration)


def _show(label: str, sample: Sample, calibration: Calibration) -> None:
    print(f"{label}\n{'p_real':>12}{'stated':>9}{'real':>8}{'rows':>8}")
    for span, (stated, seen, rows) in reliability_curve(sample, calibration).items():
        print(f"{span:>12}{stated:>9.3f}{seen:>8.3f}{rows:>8}")
    error = corrected_probability(sample, calibration) - np.asarray(sample.table["real"])
    print(f"{'Brier score':>12}{np.mean(error**2):>9.4f}")


if __name__ == "__main__":
    main()
