"""Networks that foretell Galaxy Zoo's votes, judged on the test part against predicting the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.lessons import get_lesson
from models.lessons.votes import VotesLesson
from models.training import TrainOptions
from models.weights import load_weights
from pipeline.judges import register_calibrator, register_judge
from pipeline.judges.evaluation import Evaluation
from pipeline.judges.images import run_pieces
from pipeline.scorers import galaxy_zoo as scores
from survey_io.datasets.galaxy_tree import KAGGLE_COLUMNS, conditional_fractions, cumulative_fractions

__all__ = ["calibrate_votes", "judge_votes"]


@register_judge("votes")
def judge_votes(
    weights: str | Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> Evaluation:
    """Judge a network by the root mean square error of the 37 cumulative fractions.

    Parameters
    ----------
    weights : str or path
        Name of shipped weights, or a safetensors file.
    options : TrainOptions
        Of a recipe with the lesson ``votes``.
    folder : Path
        Receives ``votes.png`` and ``votes.csv``: the fractions foretold, cumulative, by galaxy.
    report : callable

    Returns
    -------
    Evaluation
        Of the metric "rmse37", smaller is better; its units are the names of the test galaxies.
    """
    module, _ = load_weights(weights)
    lesson: VotesLesson = get_lesson(options.lesson or "votes")(module, options)
    galaxies = lesson.examples.pictures
    rows, train = galaxies.rows("test"), galaxies.rows("train")
    truth = cumulative_fractions(conditional_fractions(galaxies.votes))
    predicted = module.answers.cumulative(run_pieces(module, lesson))
    wanted = truth[rows]
    errors = scores.galaxy_errors(wanted, predicted)
    mean = scores.galaxy_zoo_rmse(wanted, scores.mean_fractions(truth[train], len(rows)))
    rmse = scores.galaxy_zoo_rmse(wanted, predicted)
    questions = scores.question_scores(wanted, predicted)
    numbers = {
        "examples": len(rows), "rmse37": rmse, "rmse37_of_the_training_mean": mean, "below_the_mean": 1 - rmse / mean,
        "questions": [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(one).items()}
            for one in questions
        ],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(galaxies.names[rows].tolist())
    _write(names, predicted, folder / "votes.csv")
    picture = _draw(wanted, predicted, questions, folder / "votes.png")
    report(
        f"{module.name}: RMSE {rmse:.4f} over 37 fractions of {len(rows):,} held-out galaxies, "
        f"{100 * (1 - rmse / mean):.1f}% below the {mean:.4f} of the training mean"
    )
    return Evaluation(
        "rmse37", names, lambda which: float(np.sqrt(errors[which].mean())), larger_is_better=False, numbers=numbers,
        pictures=(picture,),
    )  # fmt: skip


@register_calibrator("votes")
def calibrate_votes(
    weights: Path, options: TrainOptions, *, folder: Path, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Nothing is fitted: fractions are what was learned. The score is that of the test part."""
    numbers = judge_votes(weights, options, folder=folder, report=report).numbers
    kept = ("examples", "rmse37", "rmse37_of_the_training_mean", "below_the_mean")
    score = {name: round(numbers[name], 4) for name in kept}
    score["accuracy_by_question"] = {one["name"]: one["accuracy"] for one in numbers["questions"] if one["count"]}
    return {"threshold": 0.5, "calibration": {}, "score": score}


def _write(names: tuple[str, ...], predicted: np.ndarray, path: Path) -> None:
    """The fractions in the form that the challenge takes."""
    lines = [",".join(("GalaxyID", *KAGGLE_COLUMNS))]
    lines += [",".join((name, *(f"{one:.6f}" for one in row))) for name, row in zip(names, predicted, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(wanted: np.ndarray, predicted: np.ndarray, questions: list[scores.QuestionScore], path: Path) -> Path:
    """Fractions foretold against those given, and the accuracy of each question."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.6", lw=1)
    left.scatter(wanted.ravel(), predicted.ravel(), s=4, alpha=0.3, lw=0)
    left.set_xlabel("fraction of votes (cumulative)")
    left.set_ylabel("foretold")
    left.set_title(f"RMSE {scores.galaxy_zoo_rmse(wanted, predicted):.4f}, {len(wanted):,} galaxies")
    place = np.arange(len(questions))
    right.barh(place, [one.accuracy for one in questions], color="C0", label="foretold")
    right.plot([one.commonest for one in questions], place, "k|", ms=14, label="commonest answer")
    right.set_yticks(place, [f"{one.name} ({one.count})" for one in questions])
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.set_xlabel("share of galaxies with the right answer")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    return path
