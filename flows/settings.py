"""Resolve options: command line over environment over YAML file over defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline.options import option_title, parse_options, read_option_values
from survey_io.errors import OptionError

AnyOptions = TypeVar("AnyOptions", bound=BaseModel)


def resolve_options(
    kind: type[AnyOptions],
    given: Mapping[str, Any],
    *,
    config: str | Path | None = None,
    values: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> AnyOptions:
    """Merge the sources of options and check the result.

    Parameters
    ----------
    kind : type
        The option class (pydantic), such as `DetectOptions`.
    given : mapping
        Values of the command line; ``None`` means "not given".
    config : path, optional
        YAML file.
    values : mapping, optional
        What that file holds, where it was read already.
    environment : mapping, optional
        Variables to search for ``SKYSIFT_<COMMAND>_<FIELD>``, such as ``SKYSIFT_DETECT_TILE``;
        the process's own environment when left out. An empty value means "not given".

    Raises
    ------
    OptionError
        For an unknown key in the file or the environment, or a value out of range.
    """
    environment = os.environ if environment is None else environment
    if values is None:
        values = read_option_values(kind, config) if config is not None else {}
    values = dict(values)
    origin = {name: str(config) for name in values}
    prefix = f"SKYSIFT_{option_title(kind).upper()}_"
    for variable in sorted(environment):
        if not variable.startswith(prefix) or not environment[variable]:
            continue
        name = variable.removeprefix(prefix).lower()
        if name not in kind.model_fields:
            known = ", ".join(prefix + field.upper() for field in kind.model_fields)
            raise OptionError(f"environment variable {variable} names no option; known: {known}")
        values[name], origin[name] = environment[variable], variable
    for name, value in given.items():
        if value is not None:
            values[name] = value
            origin.pop(name, None)
    return parse_options(kind, values, source=origin)
