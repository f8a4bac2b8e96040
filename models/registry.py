"""Every model by name: who builds it, what it looks at, whether it has weights."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from survey_io.errors import OptionError

# A model announces itself when its file is imported, which the package's MODULES names; packages that a checkout lacks
# are skipped.
PACKAGES = ("models.detectors", "models.classifiers")
_KINDS = ("detector", "classifier")
_READS = ("sky", "spectrum", "photograph")
_entries: dict[str, ModelEntry] = {}
_loaded = False


@dataclass(frozen=True)
class ModelEntry:
    """One registered model.

    Attributes
    ----------
    name : str
        The name that ``--model`` and the recipes use.
    kind : str
        ``"detector"`` or ``"classifier"``.
    ndim : int
        Dimensions of the data it reads: 1 (spectrum), 2 (image) or 3 (cube).
    reads : str
        ``"sky"`` (S/N maps with their beam), ``"spectrum"`` or ``"photograph"`` (colour images, whose detectors answer
        with classes of things instead of sources).
    has_weights : bool
        False for a classical method, which is neither trained nor run through an engine.
    build : callable
        Makes the model; keyword arguments are its architecture options.
    """

    name: str
    kind: str
    ndim: int
    has_weights: bool
    build: Callable[..., Any]
    reads: str = "sky"

    @property
    def summary(self) -> str:
        """First line of the builder's docstring, for listings."""
        text = (self.build.__doc__ or "").strip()
        return text.splitlines()[0] if text else ""

    @property
    def module(self) -> str:
        """Name of the Python module that registered the model."""
        return self.build.__module__

    def __call__(self, **options: Any) -> Any:
        """Build the model: ``get_model("sdc1")()`` equals ``get_model("sdc1").build()``."""
        return self.build(**options)


def register_model(
    name: str, *, kind: str = "detector", ndim: int = 2, has_weights: bool = True, reads: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated builder function under a name.

    Parameters
    ----------
    name : str
        Unique, lower case.
    kind : str
        ``"detector"`` or ``"classifier"``.
    ndim : int
        1, 2 or 3.
    has_weights : bool
        False for methods without trained weights.
    reads : str or None
        See `ModelEntry`; None: "spectrum" for one dimension, else "sky".

    Raises
    ------
    ValueError
        When the name is taken by another builder, or kind or ndim is not one of the above:
        a programmer's mistake, found at import.
    """
    if kind not in _KINDS or ndim not in (1, 2, 3):
        raise ValueError(
            f"model {name!r}: kind must be one of {_KINDS} and ndim 1, 2 or 3; got {kind!r}, {ndim!r}"
        )
    reads = reads or ("spectrum" if ndim == 1 else "sky")
    if reads not in _READS:
        raise ValueError(f"model {name!r}: reads must be one of {_READS}; got {reads!r}")

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        entry = ModelEntry(name, kind, ndim, has_weights, build, reads)
        known = _entries.get(name)
        same = known is None or (known.module, known.build.__qualname__) == (entry.module, build.__qualname__)
        if not same:
            raise ValueError(
                f"model name {name!r} is already used by {known.module}; choose another in {entry.module}"
            )
        _entries[name] = entry
        return build

    return register


def get_model(name: str) -> ModelEntry:
    """Find a model by name.

    Parameters
    ----------
    name : str
        A name of `list_models`.

    Returns
    -------
    ModelEntry

    Raises
    ------
    OptionError
        For an unknown name; the message lists the known ones and the nearest.
    """
    if name not in _entries:
        _load(name)
    if name not in _entries:
        raise OptionError(unknown_name("model", name, list(_entries)))
    return _entries[name]


def list_models(*, kind: str | None = None, ndim: int | None = None, reads: str | None = None) -> list[str]:
    """Names of all registered models, sorted, optionally of one kind, dimension or kind of data only."""
    _load()
    return sorted(
        entry.name
        for entry in _entries.values()
        if kind in (None, entry.kind) and ndim in (None, entry.ndim) and reads in (None, entry.reads)
    )


def unknown_name(what: str, name: str, known: list[str]) -> str:
    """One line that answers an unknown name with the known ones and the nearest of them."""
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {str(name)!r}: expected one of {', '.join(sorted(known)) or '(none)'}{hint}"


def _load(name: str | None = None) -> None:
    """Import what registers models, once: the file called like a model where there is one, else all."""
    global _loaded
    if _loaded:
        return
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            continue
        files = importlib.import_module(package).MODULES
        # Most files import torch, which takes a second: what has no network should not wait for it.
        stem = None if name is None else str(name).replace("-", "_")
        if stem in files:
            importlib.import_module(f"{package}.{stem}")
            if name in _entries:
                return
        for file in files:
            importlib.import_module(f"{package}.{file}")
    _loaded = True
