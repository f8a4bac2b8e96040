"""Spectra that specutils knows and the readers here do not: surveys with layouts of their own, curved multispec axes.

specutils takes a second to import, so it is imported when a file needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u

from .errors import InputError
from .quiet import quiet
from .spectral_units import axis_kind
from .spectrum import Spectrum
from .spectrum_build import Given, Opened, Place, build_spectrum, collect

__all__ = ["library_spectra"]

# What nddata calls a spread, to what we do.
_SPREADS = {"std": "error", "ivar": "weight", "var": "variance"}

# Formats that specutils gives to any table or any image: those have been refused here already, with a reason.
_ANY = {"tabular-fits", "wcs1d-fits", "ascii", "ecsv", "ipac", "generic cube"}


def library_spectra(path: Path, given: Given) -> Opened | None:
    """Spectra of a file in a format that specutils identifies.

    Returns
    -------
    Opened or None
        None where it knows no such format, or cannot read the file.

    Raises
    ------
    InputError
        When its only spectrum cannot be used.
    """
    with quiet():
        import specutils
        from astropy.io import registry

        for kind in (specutils.SpectrumList, specutils.Spectrum):
            with open(path, "rb") as file:
                try:
                    formats = registry.identify_format("read", kind, str(path), file, [], {})
                except Exception:  # each format's own test of the file may fail on it
                    continue
            for form in formats:
                if form.lower() in _ANY:
                    continue
                try:
                    read = kind.read(str(path), format=form)
                except Exception:  # readers of one survey meet whatever another wrote
                    continue
                found = [one for one in (read if isinstance(read, list) else [read]) if np.ndim(one.flux) <= 2]
                if found:
                    return collect(_converted(found, path, form, given))
    return None


def _converted(found: list[Any], path: Path, form: str, given: Given) -> Iterator[Spectrum | InputError]:
    stem = path.name.split(".")[0]
    rows = [(one, row) for one in found for row in np.ndindex(np.shape(one.flux)[:-1])]
    for number, (one, row) in enumerate(rows):
        several = len(rows) > 1
        place = Place(str(path), f"{stem} {number}" if several else stem, number if several else None)
        axis = one.spectral_axis
        unit = given.unit or u.Unit(axis.unit)
        told = one.uncertainty
        spread = {} if told is None else {_SPREADS.get(told.uncertainty_type): np.asarray(told.array)[row]}
        spread.pop(None, None)
        rest = getattr(axis, "doppler_rest", None)
        rest = float(rest.to_value(u.Hz, u.spectral())) if rest is not None else None
        try:
            yield build_spectrum(
                place, np.asarray(axis.value), np.asarray(one.flux.value)[row], unit=unit,
                flux_text=one.flux.unit.to_string(), **spread,
                bad=None if one.mask is None else np.broadcast_to(one.mask, one.flux.shape)[row].astype(bool),
                rest_frequency=given.rest_frequency or rest,
                # Most of its readers turn wavelengths of air into those of vacuum, or leave them without a word.
                air=given.air if axis_kind(unit) == "wavelength" else False,
                notes=(f"read by specutils as {form!r}",),
            )  # fmt: skip
        except InputError as refusal:
            yield refusal
