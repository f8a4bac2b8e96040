"""Species of molecules in held-out simulated spectra, and how long a thousand spectra take.

    python tests/benchmarks/bench_spectra_molecules.py [--weights NAME] [--count 1200] [--speed 1000]

The spectra have S/N of 2 to 50 (brightest line, matched filter), coverage gaps, baselines and lines of unknown
molecules; their seed is none of those of training, calibration or the card. Average precision of a species is over all
spectra where it is present above the S/N given, against all where it is absent. The speed is that of `skysift classify`
from one FITS file of many rows to the table, beside the network alone in each engine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from models.answers import AnswerCalibration
from models.engines.base import available_engines, load_engine
from models.molecule_lesson import MoleculeExamples
from models.weights import load_weights
from pipeline.calibrate_classifier import SNR_PARTS, run_network
from pipeline.classify import classify
from pipeline.classify_options import ClassifyOptions
from pipeline.scorers import classification as scores
from survey_io.line_lists import molecular_lines
from survey_io.simulate.molecules import simulate_molecules, write_molecules

SEED = 990_001


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="molecules")
    parser.add_argument("--count", type=int, default=1200, help="held-out spectra")
    parser.add_argument("--speed", type=int, default=1000, help="spectra of the timing; 0 leaves it out")
    given = parser.parse_args()
    print("\n".join(molecule_lines(given.weights, given.count)))
    if given.speed:
        print("\n".join(["", *speed_lines(given.weights, given.speed)]))


def molecule_lines(weights: str = "molecules", count: int = 1200) -> list[str]:
    """The scores, line by line."""
    module, card = load_weights(weights)
    examples, answers = MoleculeExamples(module), module.answers
    raw, wanted, weight, snr = [], [], [], []
    for first in range(0, count, 100):
        (inputs,), targets = examples.first("test", min(100, count - first), SEED + first)
        raw.append(run_network(module, (inputs,)))
        for store, name in ((wanted, "classes"), (weight, "class_weight"), (snr, "class_snr")):
            store.append(targets[name])
    truth, keep, strength = np.concatenate(wanted) > 0.5, np.concatenate(weight) > 0, np.concatenate(snr)
    probability = AnswerCalibration.from_card(card.calibration).probability(np.concatenate(raw), answers)
    error = scores.expected_calibration_error(truth, probability, keep=keep)
    parts = scores.scores_by_strength(truth, probability, strength, SNR_PARTS, keep=keep)
    lines = [
        f"{weights}: {count} held-out spectra, {len(answers.classes)} species",
        f"expected calibration error {error:.4f}, Brier score {scores.brier_score(truth, probability, keep=keep):.4f}",
        f"{'S/N of the brightest line':<28}{'present':>9}{'macro AP':>10}{'found at p>.5':>15}",
    ]
    for part in parts:
        span = f"{part['low']:g} and above" if part["high"] is None else f"{part['low']:g} to {part['high']:g}"
        lines.append(f"{span:<28}{part['count']:>9}{part['macro_average_precision']:>10.4f}{part['found']:>15.3f}")
    bright = truth & keep & (strength >= 5)
    absent = keep & ~truth
    each = scores.class_average_precision(bright, probability, keep=bright | absent)
    lines += ["", f"{'species, S/N above 5':<28}{'present':>9}{'AP':>10}{'found':>8}{'false':>8}"]
    for k, name in enumerate(answers.classes):
        found = (probability[bright[:, k], k] >= 0.5).mean() if bright[:, k].any() else np.nan
        false = (probability[absent[:, k], k] >= 0.5).mean()
        lines.append(f"{name:<28}{bright[:, k].sum():>9}{each[k]:>10.4f}{found:>8.3f}{false:>8.4f}")
    calm = scores.reliability_bins(truth, probability, keep=keep, bins=10)
    lines += ["", f"{'probability':<14}{'stated':>8}{'true':>8}{'number':>9}"]
    for low, high, stated, seen, number in zip(
        calm.low, calm.high, calm.stated, calm.measured, calm.count, strict=True
    ):
        lines.append(f"{low:.1f} to {high:.1f}    {stated:>8.3f}{seen:>8.3f}{number:>9}")
    return lines


def speed_lines(weights: str = "molecules", count: int = 1000) -> list[str]:
    """Seconds for so many spectra."""
    module, _ = load_weights(weights)
    lines = [f"{count} spectra of {module.grid.count} channels, 2 processors"]
    with tempfile.TemporaryDirectory() as scratch:
        made = list(simulate_molecules(count, seed=SEED))
        path = write_molecules(made, Path(scratch), name="spectra", lines=molecular_lines())["spectra"]
        options = ClassifyOptions(model=weights, output=Path(scratch) / "out")
        began = time.perf_counter()
        rows = len(classify([path], options).table)
        lines.append(f"  skysift classify, FITS file to table: {time.perf_counter() - began:.1f} s ({rows} rows)")
    rng = np.random.default_rng(0)
    flux = rng.standard_normal((64, module.grid.count))
    began = time.perf_counter()
    inputs = module.prepare(flux, np.ones_like(flux))
    lines.append(f"  normalisation alone: {(time.perf_counter() - began) * count / len(flux):.1f} s")
    for name in available_engines():
        engine = load_engine(name, module, threads=2)
        engine(inputs[:16])
        began = time.perf_counter()
        for first in range(0, 64, 16):
            engine(inputs[first : first + 16])
        label = "plain torch" if name == "torch" else name
        lines.append(f"  network alone, {label}: {(time.perf_counter() - began) * count / 64:.1f} s")
    return lines


if __name__ == "__main__":
    main()
