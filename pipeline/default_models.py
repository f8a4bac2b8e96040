"""Which model serves which data when none is named, and whether a named one can."""

from __future__ import annotations

from pipeline.options import DetectOptions
from survey_io.errors import OptionError

DEFAULT_MODELS = {1: "lines", 2: "light", 3: "light3d"}
_DATA = {1: "spectra", 2: "images", 3: "cubes"}


def resolve_model(options: DetectOptions, ndim: int) -> DetectOptions:
    """The same options with a model that reads data of so many dimensions.

    Raises
    ------
    OptionError
        When the named model, or the one a weights file holds, reads other data; with the names that fit.
    """
    if options.model == "auto":
        return options.with_changes(model=DEFAULT_MODELS[ndim])
    if options.model == DEFAULT_MODELS[ndim]:
        return options
    from models.registry import get_model, list_models
    from models.weights import find_weights, needs_weights, read_card

    if not needs_weights(options.model) and get_model(options.model).ndim == ndim:
        return options
    name = options.model if options.model in list_models() else read_card(find_weights(options.model)).model
    reads = get_model(name).ndim
    if reads != ndim:
        fitting = ", ".join(list_models(kind="detector", ndim=ndim))
        cube = " (a cube has a spectral axis of 2 channels or more)" if reads == 3 else ""
        raise OptionError(
            f"model {options.model!r} reads {_DATA[reads]}, and these are {_DATA[ndim]}{cube}: use one of {fitting}"
        )
    return options
