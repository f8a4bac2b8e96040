"""What networks learn from, by name: a recipe's ``lesson`` is one of these; without one a network brings its own.

A lesson is built by ``get_lesson(name)(net, options)`` and is what `models.training.Lesson` says. Its further options
come from ``options.lesson_options``, checked by a pydantic model of the lesson's own (unknown keys are refused).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.registry import unknown_name
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from models.training import Lesson, TrainOptions

# Files of this folder that register lessons, imported when a name is first asked for.
MODULES: tuple[str, ...] = ("boxes", "cube_survey", "cutouts", "images", "survey", "votes")
_lessons: dict[str, Callable[..., Any]] = {}

OptionsModel = TypeVar("OptionsModel", bound=BaseModel)


def register_lesson(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated builder ``(net, options) -> Lesson`` under a name.

    Raises
    ------
    ValueError
        When the name is taken by another builder: a programmer's mistake, found at import.
    """

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        known = _lessons.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (build.__module__, build.__qualname__):
            raise ValueError(f"lesson name {name!r} is already used by {known.__module__}; choose another")
        _lessons[name] = build
        return build

    return register


def list_lessons() -> list[str]:
    """Names of all registered lessons, sorted."""
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return sorted(_lessons)


def get_lesson(name: str) -> Callable[[nn.Module, TrainOptions], Lesson]:
    """Find a lesson's builder by name.

    Raises
    ------
    OptionError
        For an unknown name; the message lists the known ones and the nearest.
    """
    known = list_lessons()
    if name not in _lessons:
        raise OptionError(unknown_name("lesson", name, known))
    return _lessons[name]


def lesson_options(model: type[OptionsModel], options: TrainOptions) -> OptionsModel:
    """The lesson's own options out of ``options.lesson_options``.

    Raises
    ------
    OptionError
        For an unknown key, which is answered with the known ones, and for a value out of its range.
    """
    known = list(model.model_fields)
    for key in options.lesson_options:
        if key not in known:
            raise OptionError(unknown_name(f"lesson option of {options.lesson!r}", key, known))
    try:
        return model(**options.lesson_options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OptionError(
            f"lesson option {where} of {options.lesson!r}: {first['msg']}; got {first.get('input')!r}"
        ) from None
