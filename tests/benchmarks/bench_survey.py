"""Retraining on a survey against the weights it begins with, by spatial cross-validation.

    python tests/benchmarks/bench_survey.py --data DIR --image CROP.fits --truth TRUTH.txt --primary-beam PB.fits

Every fold trains on its strips of the image, calibrates on them and on the validation strips, and is scored on a strip
that neither saw; over all folds each pixel is scored once. "recalibrated" is the network as shipped with the survey's
own calibration, "retrained" the same with the network trained further. Errors are those of a paired bootstrap over
blocks of the image. The recipe is flows/recipes/survey.yaml; a fold takes about two minutes of a core.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.registry import get_model  # noqa: E402
from models.train_options import TrainOptions  # noqa: E402
from models.training import train  # noqa: E402
from models.weights import find_weights, load_weights, save_weights  # noqa: E402
from pipeline.calibrate_survey import calibrate_survey  # noqa: E402
from pipeline.judges import get_judge  # noqa: E402
from pipeline.judges.evaluation import Evaluation, compare  # noqa: E402

SHOWN = ("rows", "matched", "flux", "b_maj", "b_min", "pa", "flux_ratio", "size_ratio")


def recipe(given: argparse.Namespace, fold: int) -> TrainOptions:
    """The recipe of surveys on these files and this fold."""
    values = yaml.safe_load((ROOT / "flows" / "recipes" / "survey.yaml").read_text(encoding="utf-8"))
    files = {"image": given.image, "truth": given.truth}
    if given.primary_beam:
        files["primary_beam"] = given.primary_beam
    del values["retrain"]
    own = {
        **values["lesson_options"], "images": [files], "fold": fold, "folds": given.folds, "scorer": given.scorer,
    }  # fmt: skip
    values |= {"lesson_options": own, "data": given.data, "output": given.work / f"fold{fold}"}
    values |= {"start": find_weights(values["start"]), "threads": given.threads}
    values |= {"steps": given.steps} if given.steps else {}
    return TrainOptions(**values)


def publish(module: torch.nn.Module, path: Path, options: TrainOptions) -> Path:
    """Weights calibrated on the fold's own strips, beginning with the shipped card."""
    card = load_weights(options.name)[1]
    save_weights(module, card, path)
    found = calibrate_survey(str(path), options, report=lambda line: print(f"  {path.stem}: {line}", file=sys.stderr))
    save_weights(module, replace(card, threshold=found["threshold"], calibration=found["calibration"]), path)
    return path


def run_fold(given: argparse.Namespace, fold: int) -> dict[str, Evaluation]:
    """Scores of the three on a fold's test strip."""
    options = recipe(given, fold)
    shipped = load_weights(options.name)[0]
    paths = {"shipped": options.name}
    paths["recalibrated"] = publish(shipped, options.output / "recalibrated.safetensors", options)
    checkpoint = train(options, report=lambda line: print(f"  fold {fold}: {line[:120]}", file=sys.stderr))
    state = torch.load(checkpoint, weights_only=True)
    module = get_model(options.name).build(**state["model_options"])
    module.load_state_dict(state["average"])
    paths["retrained"] = publish(module.eval(), options.output / "retrained.safetensors", options)
    judge = get_judge("survey")
    quiet = {"folder": options.output, "report": lambda _: None}
    return {name: judge(str(path), options, **quiet) for name, path in paths.items()}


def pooled(folds: list[Evaluation]) -> Evaluation:
    """The sum over folds, with the blocks of all of them."""
    values = np.concatenate([[one.score(np.array([row])) for row in range(len(one.units))] for one in folds])
    units = tuple(f"fold {number} {unit}" for number, one in enumerate(folds) for unit in one.units)
    return Evaluation(folds[0].metric, units, lambda rows: float(values[rows].sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the files")
    parser.add_argument("--image", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--primary-beam")
    parser.add_argument("--scorer", choices=("survey", "sdc1"), default="sdc1")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("bench_survey"))
    given = parser.parse_args()
    done = [run_fold(given, fold) for fold in range(given.folds)]
    print(f"{'fold':<6}{'weights':<14}{done[0]['shipped'].metric:>12}" + "".join(f"{name:>12}" for name in SHOWN))
    for fold, scores in enumerate(done):
        for name, one in scores.items():
            shown = "".join(f"{one.numbers[column]:>12}" for column in SHOWN)
            print(f"{fold:<6}{name:<14}{one.value:>12.1f}{shown}")
    total = {name: pooled([scores[name] for scores in done]) for name in done[0]}
    for name, one in total.items():
        print(f"{'all':<6}{name:<14}{one.value:>12.1f}")
    for new, old in (("recalibrated", "shipped"), ("retrained", "shipped"), ("retrained", "recalibrated")):
        found = compare(total[new], total[old], draws=2000)
        print(f"{new} over {old}: {found.gain:+.1f} +- {found.error:.1f} ({100 * found.gain / found.old:+.2f}%)")


if __name__ == "__main__":
    main()
