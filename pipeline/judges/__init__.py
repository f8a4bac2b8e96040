"""How trained networks are judged on held-out data, by the name of what they learned from.

``get_judge(name)`` is a function ``judge(weights, options, *, folder, report) -> Evaluation``: ``weights`` is a
safetensors file or a name, ``options`` the `models.training.TrainOptions` of the recipe (which say where the data is
and how it is split), ``folder`` receives pictures and tables. Further keywords of a judge are its ``judge_options`` in
a recipe's section ``retrain``. The name is a recipe's ``lesson`` or, for networks that bring their own,
``default:KIND`` with the kind of network, as `judge_name` gives it.

``find_calibrator(name)`` is what fits probabilities and chooses the threshold of new weights, on other data than the
judge's: ``calibrate(weights, options, *, folder, report)`` gives "threshold", "calibration" and "score" for the card,
or None where there is nothing to calibrate.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.registry import get_model, unknown_name
from models.training import TrainOptions
from survey_io.errors import OptionError

from .evaluation import Comparison, Evaluation, Judged, compare

__all__ = [
    "Comparison", "Evaluation", "Judge", "Judged", "compare", "default_name", "find_calibrator", "get_judge",
    "judge_name", "judge_with", "list_judges", "register_calibrator", "register_judge",
]  # fmt: skip

Judge = Callable[..., Evaluation]
Calibrator = Callable[..., dict[str, Any] | None]

# Files of this folder that register judges, imported when one is first asked for.
MODULES: tuple[str, ...] = (
    "boxes", "classes", "cube_survey", "cubes", "cutouts", "images", "lines", "skies", "survey", "votes",
)  # fmt: skip
_judges: dict[str, Judge] = {}
_calibrators: dict[str, Calibrator] = {}


def register_judge(*names: str) -> Callable[[Judge], Judge]:
    """Register the decorated function as judge of these lessons."""

    def register(judge: Judge) -> Judge:
        for name in names:
            _judges[name] = judge
        return judge

    return register


def register_calibrator(*names: str) -> Callable[[Calibrator], Calibrator]:
    """Register the decorated function as calibrator of what these lessons trained."""

    def register(calibrate: Calibrator) -> Calibrator:
        for name in names:
            _calibrators[name] = calibrate
        return calibrate

    return register


def judge_name(options: TrainOptions) -> str:
    """The judge of a recipe: its lesson's, else that of the network's kind and dimensions ("default:detector2d")."""
    return options.lesson or default_name(options.name)


def default_name(model: str) -> str:
    """What judges and calibrates networks that bring their own lesson."""
    entry = get_model(model)
    return f"default:{entry.kind}{entry.ndim}d"


def find_calibrator(options: TrainOptions) -> Calibrator | None:
    """What calibrates the weights of a recipe: its lesson's own, else that of the network's kind; None for neither.

    Detectors of things on photographs have none of their kind: their scores are no probabilities of skies.
    """
    _load()
    entry = get_model(options.name)
    own = _calibrators.get(options.lesson)
    if own is not None or (entry.kind == "detector" and entry.reads == "photograph"):
        return own
    return _calibrators.get(default_name(options.name))


def list_judges() -> list[str]:
    """Names of all judges, sorted."""
    _load()
    return sorted(_judges)


def _load() -> None:
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")


def get_judge(name: str) -> Judge:
    """Find a judge.

    Raises
    ------
    OptionError
        For an unknown name; the message lists the known ones.
    """
    known = list_judges()
    if name not in _judges:
        raise OptionError(unknown_name("judge", name, known))
    return _judges[name]


def judge_with(
    weights: str | os.PathLike[str], options: TrainOptions, judge_options: dict[str, Any], *, folder: Path,
    report: Callable[[str], None] = print,
) -> Evaluation:  # fmt: skip
    """Judge weights as a recipe says.

    Parameters
    ----------
    weights : str or path
    options : TrainOptions
    judge_options : dict
        Further keywords of the recipe's judge.
    folder : Path
        Made when missing.
    report : callable

    Raises
    ------
    OptionError
        For an option that this judge has not; the message lists those that it has.
    """
    name = judge_name(options)
    judge = get_judge(name)
    known = [
        word for word, parameter in inspect.signature(judge).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and word not in ("folder", "report")
    ]  # fmt: skip
    for word in judge_options:
        if word not in known:
            raise OptionError(unknown_name(f"judge option of {name!r}", word, known))
    folder.mkdir(parents=True, exist_ok=True)
    return judge(weights, options, folder=folder, report=report, **judge_options)
