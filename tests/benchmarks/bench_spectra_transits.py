"""Planets in held-out simulated light curves: the network beside box least squares without weights, in the same run.

    python tests/benchmarks/bench_spectra_transits.py [--weights NAME] [--count 1000]

The curves are of `survey_io.simulate.transits`: planets with a total S/N of 5 to 50 (one in five up to 500), eclipsing
binaries, and stars with neither, with spots, pulsations, granulation, flares, systematics and gaps; their seed is none
of those of training, calibration or the card. The peer is astropy's BoxLeastSquares on the same flattened curves
without their rises above 3 sigma, judged by its signal detection efficiency (Kovacs, Zucker & Mazeh 2002) or by the S/N
of its depth. What is found is what scores higher than all but 1% of the curves without a planet; "stars" counts those
without any eclipse alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.timeseries import BoxLeastSquares

from models.answers import AnswerCalibration
from models.box_search import STEP_DAYS, trial_periods
from models.light_curves import flatten
from models.weights import load_weights
from pipeline.calibrate_classifier import run_network, score_values
from pipeline.scorers import classification as scores
from survey_io.simulate.transits import CLASSES, LightCurve, simulate_transits

SEED = 990_101
PARTS = ((5, 8), (8, 12), (12, 20), (20, 50), (50, 500))
FALSE_ALARMS = 0.01
# Boxes of the peer, days, and its phases per shortest box.
DURATIONS, OVERSAMPLE = (0.06, 0.12, 0.24), 4


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="transits")
    parser.add_argument("--count", type=int, default=1000, help="held-out light curves")
    given = parser.parse_args()
    print("\n".join(main_lines(given.weights, given.count)))


def transits_table(count: int = 1000, *, weights: str = "transits") -> list[dict[str, Any]]:
    """How well each method tells planets from all else.

    Returns
    -------
    list of dict
        One a method: "method"; "negatives" ("all", or "stars": those without any eclipse); "auc", area under the ROC;
        "found", completeness at 1% false alarms for each of `PARTS`; "ms", milliseconds a curve.
    """
    return _rows(*_measured(count, weights)[:2])


def main_lines(weights: str = "transits", count: int = 1000) -> list[str]:
    """The tables, line by line."""
    curves, methods, raw, module, card = _measured(count, weights)
    label = np.array([one.label for one in curves])
    counts = ", ".join(f"{(label == k).sum()} {name}" for k, name in enumerate(CLASSES))
    snr = np.array([one.snr for one in curves])
    spans = [f"{low}-{high}" for low, high in PARTS]
    numbers = [int(((label == 1) & (snr >= low) & (snr < high)).sum()) for low, high in PARTS]
    lines = [
        f"{weights}: {count} held-out light curves: {counts}",
        f"{'':<28}{'negatives':>10}{'AUC':>8}" + "".join(f"{span:>8}" for span in spans) + f"{'ms':>8}",
        f"{'planets':<28}{'':>10}{'':>8}" + "".join(f"{number:>8}" for number in numbers),
    ]
    for row in _rows(curves, methods):
        found = "".join(f"{share:>8.3f}" for share in row["found"])
        lines.append(f"{row['method']:<28}{row['negatives']:>10}{row['auc']:>8.4f}{found}{row['ms']:>8.1f}")
    fitted = AnswerCalibration.from_card(card.calibration)
    probability = fitted.probability(raw, module.answers)
    right, stated = scores.top_class(label, probability)
    confusion = scores.confusion_matrix(label, probability.argmax(axis=1), len(CLASSES))
    lines += [
        "", f"accuracy {right.mean():.3f}, balanced {scores.balanced_accuracy(confusion):.3f}, expected calibration "
        f"error {scores.expected_calibration_error(right, stated, bins=10):.4f}",
        f"{'true, answered':<20}" + "".join(f"{name:>18}" for name in CLASSES),
    ]  # fmt: skip
    lines += [f"{CLASSES[k]:<20}" + "".join(f"{n:>18}" for n in row) for k, row in enumerate(confusion)]
    lines += ["", "planets and binaries named as such:"]
    kept = right & (label > 0)
    quantities = {"period": [one.period for one in curves], "depth": [one.depth for one in curves],
                  "duration": [24 * one.duration for one in curves]}  # fmt: skip
    encoded = np.stack([value.encode(np.array(quantities[value.name])) for value in module.answers.values], axis=1)
    targets = {"values": np.nan_to_num(encoded), "value_weight": np.isfinite(encoded) & kept[:, None]}
    for name, one in score_values(raw, targets, module.answers, fitted).items():
        lines.append(
            f"  {name:<10} scatter {one['scatter']:.4f} dex, bias {one['bias']:+.4f}, within 1 sigma "
            f"{one['within_1_sigma']:.2f} of {one['count']}"
        )
    period = fitted.values(raw, module.answers)["period"][0]
    exact = np.abs(period / np.array(quantities["period"]) - 1)[kept] < 0.01
    lines.append(f"  periods right within 1%: {exact.mean():.3f}")
    return lines


def _measured(count: int, weights: str) -> tuple:
    """Curves, scores and milliseconds by method, the network's raw answers, the network and its card."""
    module, card = load_weights(weights)
    curves = list(simulate_transits(count, seed=SEED))
    flux = np.stack([one.flux for one in curves])
    batches = [flux[first : first + 16] for first in range(0, count, 16)]
    # What is made once is not a curve's.
    module.prepare(batches[0][:1], np.isfinite(batches[0][:1]) * 1.0)
    given, prepared = _timed(lambda part: module.prepare(part, np.isfinite(part) * 1.0), batches)
    raw, answered = _timed(lambda part: run_network(module, (part,)), [np.concatenate(given)])
    probability = AnswerCalibration.from_card(card.calibration).probability(raw[0], module.answers)
    flattened, spent = _timed(flatten, batches)
    pairs = [(flat, weight) for part in flattened for flat, weight in zip(part.flat, part.weight, strict=True)]
    found, searched = _timed(box_least_squares, pairs)
    efficiency, snr = np.array(found).T
    methods = {
        "network": (probability[:, 1], prepared + answered),
        "box least squares, SDE": (efficiency, spent + searched),
        "box least squares, S/N": (snr, spent + searched),
    }
    return curves, methods, raw[0], module, card


def _timed(work: Callable[[Any], Any], parts: list) -> tuple[list, float]:
    began = time.perf_counter()
    done = [work(part) for part in parts]
    return done, time.perf_counter() - began


def box_least_squares(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Signal detection efficiency and S/N of the depth of the best box in a flattened curve with its weights."""
    flat, weight = pair
    use = (weight > 0) & (flat < 3)
    time_used = np.flatnonzero(use) * STEP_DAYS
    search = BoxLeastSquares(time_used, flat[use], 1.0)
    result = search.power(np.sort(trial_periods()), DURATIONS, objective="snr", oversample=OVERSAMPLE)
    # The signal residue of the original: the root of the gain in likelihood.
    residue = np.maximum(result.depth_snr, 0)
    return float((residue.max() - residue.mean()) / residue.std()), float(result.depth_snr.max())


def _rows(curves: list[LightCurve], methods: dict[str, tuple[np.ndarray, float]]) -> list[dict[str, Any]]:
    label = np.array([one.label for one in curves])
    snr = np.array([one.snr for one in curves])
    rows = []
    for negatives, others in (("all", label != 1), ("stars", label == 0)):
        for name, (score, seconds) in methods.items():
            limit = np.quantile(score[others], 1 - FALSE_ALARMS)
            keep = others | (label == 1)
            found = [
                float((score[(label == 1) & (snr >= low) & (snr < high)] > limit).mean()) for low, high in PARTS
            ]
            rows.append({
                "method": name, "negatives": negatives, "auc": scores.roc_auc(label == 1, score, keep=keep),
                "found": found, "ms": 1e3 * seconds / len(curves),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
