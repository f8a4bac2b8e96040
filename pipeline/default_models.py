"""Which model serves which data when none is named, and whether a named one can."""

from __future__ import annotations

from pipeline.options import DetectOptions
from survey_io.errors import OptionError

DEFAULT_MODELS = {1: "lines", 2: "light", 3: "light3d"}
_DATA = {1: "spectra", 2: "images", 3: "cubes"}


def resolve_model(options: DetectOptions, ndim: int) -> DetectOptions:
    """The same options with a model that reads data of so many dimensions, by its version where one is in use.

    Raises
    ------
    OptionError
        When the named model, or the one a weights file holds, reads other data; with the names that fit.
    """
    from models.weights import exact_name, find_weights, is_path, needs_weights, read_card

    asked = DEFAULT_MODELS[ndim] if options.model == "auto" else options.model
    exact = exact_name(asked)
    if exact != options.model:
        options = options.with_changes(model=exact)
    if exact == DEFAULT_MODELS[ndim]:
        return options
    from models.registry import get_model, list_models

    if not needs_weights(exact) and get_model(exact).ndim == ndim:
        return options
    name = exact if not is_path(exact) and exact in list_models() else read_card(find_weights(exact)).model
    entry = get_model(name)
    fitting = ", ".join(one for one in list_models(kind="detector", ndim=ndim) if get_model(one).reads != "photograph")
    if entry.kind != "detector":
        raise OptionError(
            f"model {options.model!r} classifies, it does not detect: use 'skysift classify', or one of {fitting}"
        )
    if entry.reads == "photograph":
        raise OptionError(f"model {options.model!r} reads photographs, these are maps of the sky: use one of {fitting}")
    if entry.ndim != ndim:
        cube = " (a cube has a spectral axis of 2 channels or more)" if entry.ndim == 3 else ""
        raise OptionError(
            f"model {options.model!r} reads {_DATA[entry.ndim]}, and these are {_DATA[ndim]}{cube}: use one of "
            f"{fitting}"
        )
    return options
