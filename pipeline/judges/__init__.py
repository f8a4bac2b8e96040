"""How trained networks are judged on held-out data, by the name of what they learned from.

``get_judge(name)`` is a function ``judge(weights, options, *, folder, report) -> Evaluation``: ``weights`` is a
safetensors file or a name, ``options`` the `models.training.TrainOptions` of the recipe (which say where the data is
and how it is split), ``folder`` receives pictures and tables. The name is a recipe's ``lesson`` or, for networks that
bring their own, ``default:KIND`` with the kind of network, as `judge_name` gives it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from models.registry import get_model, unknown_name
from models.training import TrainOptions
from survey_io.errors import OptionError

from .evaluation import Comparison, Evaluation, compare

__all__ = ["Comparison", "Evaluation", "Judge", "compare", "get_judge", "judge_name", "list_judges", "register_judge"]

Judge = Callable[..., Evaluation]

# Files of this folder that register judges, imported when one is first asked for.
MODULES: tuple[str, ...] = ("boxes", "cutouts", "images", "votes")
_judges: dict[str, Judge] = {}


def register_judge(*names: str) -> Callable[[Judge], Judge]:
    """Register the decorated function as judge of these lessons."""

    def register(judge: Judge) -> Judge:
        for name in names:
            _judges[name] = judge
        return judge

    return register


def judge_name(options: TrainOptions) -> str:
    """The judge of a recipe: its lesson's, else that of the network's kind and dimensions ("default:detector2d")."""
    entry = get_model(options.name)
    return options.lesson or f"default:{entry.kind}{entry.ndim}d"


def list_judges() -> list[str]:
    """Names of all judges, sorted."""
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return sorted(_judges)


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
