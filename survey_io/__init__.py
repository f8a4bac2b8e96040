"""What the sky files hold: images, spectra, beams, coordinates and catalogues.

Names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "InputError": "errors",
    "OptionError": "errors",
    "OutputError": "errors",
    "SkysiftError": "errors",
    "Beam": "observation",
    "Observation": "observation",
    "PixelSource": "observation",
    "Window": "observation",
    "open_image": "image",
    "SpectralGrid": "spectral_grid",
    "resample": "spectral_grid",
    "Spectrum": "spectrum",
    "find_spectra": "spectra",
    "open_spectra": "spectra",
    "Column": "columns",
    "Flag": "columns",
    "IMAGE_COLUMNS": "columns",
    "annotate": "columns",
    "flags_text": "columns",
    "image_columns": "columns",
    "make_table": "columns",
    "iau_name": "catalogue",
    "read_catalogue": "catalogue",
    "read_sdc1": "catalogue",
    "write_catalogue": "catalogue",
    "write_regions": "catalogue",
    "write_sdc1": "catalogue",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
