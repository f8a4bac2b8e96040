"""Stellar classes on held-out stars, beside the nearest neighbour in the same run.

    python tests/benchmarks/bench_spectra_stellar.py INDO_US_FOLDER [--extra WEIGHTS ...]

The library's continuum was forced to a template of the known class, so it gives the label away: every method reads
continuum-normalised flux, and the rows "with continuum" only show what the leak is worth. Stars are split by the hash
of their names, stratified (survey_io.datasets.stellar_spectra.split_by_star): those of the test part were neither
trained on nor calibrated with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models.answers import AnswerCalibration
from models.registry import get_model
from models.stellar_lesson import StellarExamples
from models.weights import list_weights, load_weights, read_card
from pipeline.calibrate_classifier import run_network, score_values
from pipeline.scorers.classification import balanced_accuracy, confusion_matrix, expected_calibration_error
from survey_io.datasets.stellar_spectra import CLASSES, read_stellar_spectra


def main() -> None:
    """Print the table, the best network's confusion matrix and the errors of its values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds cflib.npz and labels.csv")
    parser.add_argument("--extra", nargs="*", default=[], help="further weights files")
    given = parser.parse_args()
    print("\n".join(stellar_lines(given.folder, given.extra)))


def stellar_lines(folder: Path, extra: list[str] = ()) -> list[str]:
    """The report, line by line."""
    library = read_stellar_spectra(folder)
    plain = StellarExamples(library, get_model("stellar").build())
    kept = StellarExamples(library, get_model("stellar").build(keep_continuum=True))
    train, test = plain.part == "train", plain.part == "test"
    true = library.label[test]
    lines = [
        f"stellar classes: {train.sum()} stars to learn from, {test.sum()} held out",
        f"{'method':<34}{'accuracy':>10}{'+-':>7}{'balanced':>10}{'cal. error':>12}",
    ]
    for name, examples in (("1-NN", plain), ("1-NN, with continuum", kept)):
        guess = nearest_neighbour(examples, library.label, train, test)
        lines.append(_row(name, true, guess, None))
    best = None
    shipped = [name for name in list_weights() if read_card(name).model in ("stellar", "stellar-course")]
    for weights in [*shipped, *extra]:
        module, card = load_weights(weights)
        examples = StellarExamples(library, module)
        inputs, targets = examples.fixed("test")
        raw = run_network(module, inputs)
        calibration = AnswerCalibration.from_card(card.calibration)
        probability = calibration.probability(raw, module.answers)
        leak = ", with continuum" * card.options.get("keep_continuum", False)
        lines.append(_row(Path(weights).stem + leak, true, probability.argmax(1), probability))
        if weights == "stellar":
            best = (true, probability.argmax(1), score_values(raw, targets, module.answers, calibration))
    if best is not None:
        lines += ["", "stellar: true class down, answered across", "      " + "".join(f"{name:>5}" for name in CLASSES)]
        for name, row in zip(CLASSES, confusion_matrix(best[0], best[1], len(CLASSES)), strict=True):
            lines.append(f"{name:>5} " + "".join(f"{count:>5}" for count in row))
        lines += ["", f"{'value':<8}{'scatter':>9}{'bias':>9}{'in 1 sigma':>12}{'stars':>7}"]
        for name, one in best[2].items():
            unit = " dex" if name != "logg" else ""
            lines.append(
                f"{name:<8}{one['scatter']:>9.3f}{one['bias']:>9.3f}{one['within_1_sigma']:>12.3f}{one['count']:>7}{unit}"
            )
    return lines


def nearest_neighbour(
    examples: StellarExamples, label: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Class of the nearest training star (Euclidean, over the network's own input) for each test star."""
    flux = examples.prepare(examples.flux, examples.seen)[:, 0].astype(np.float64)
    near, far = flux[train], flux[test]
    distance = (far**2).sum(1)[:, None] - 2 * far @ near.T + (near**2).sum(1)
    return label[train][distance.argmin(1)]


def _row(name: str, true: np.ndarray, guess: np.ndarray, probability: np.ndarray | None) -> str:
    accuracy = float((true == guess).mean())
    error = np.sqrt(accuracy * (1 - accuracy) / len(true))
    even = balanced_accuracy(confusion_matrix(true, guess, len(CLASSES)))
    text = f"{name:<34}{accuracy:>10.3f}{error:>7.3f}{even:>10.3f}"
    if probability is not None:
        text += f"{expected_calibration_error(true == guess, probability.max(1), bins=10):>12.3f}"
    return text


if __name__ == "__main__":
    main()
