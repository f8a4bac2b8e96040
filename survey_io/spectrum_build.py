"""From the arrays of a file to a `Spectrum`, whatever form they came in: order, air, missing bins, refusals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from astropy import units as u

from .errors import InputError
from .spectral import air_index
from .spectral_units import AXIS_KINDS, axis_kind, flux_unit
from .spectrum import Spectrum

__all__ = ["Given", "NotASpectrum", "Opened", "Place", "build_spectrum", "collect"]

# Wavelengths without a unit are taken for Angstrom between these, where stars are observed: nm and um lie below.
PLAUSIBLE_ANGSTROM = (900.0, 3e5)
# Where wavelengths of air are in use.
_AIR = (2000.0, 25000.0)


class NotASpectrum(Exception):
    """What a part of a file is instead; another part may be one.

    Parameters
    ----------
    reason : str
    certain : bool
        Whether no other reader could make a spectrum of it.
    """

    def __init__(self, reason: str, *, certain: bool = False) -> None:
        super().__init__(reason)
        self.certain = certain


@dataclass(frozen=True)
class Opened:
    """What a file holds.

    Attributes
    ----------
    spectra : tuple of Spectrum
    errors : tuple of InputError
        One for each of its spectra that cannot be used.
    """

    spectra: tuple[Spectrum, ...]
    errors: tuple[InputError, ...] = ()


@dataclass(frozen=True)
class Given:
    """What the caller tells, in place of what a file says.

    Attributes
    ----------
    unit : astropy Unit, optional
        Of the axis.
    log : bool
        Whether its values are logarithms to base 10.
    rest_frequency : float, optional
        Hz.
    air : bool, optional
        Whether wavelengths are those of air (True) or of vacuum (False).
    """

    unit: u.UnitBase | None = None
    log: bool = False
    rest_frequency: float | None = None
    air: bool | None = None


@dataclass(frozen=True)
class Place:
    """Where a spectrum was found.

    Attributes
    ----------
    path : str
    name : str
        Of the spectrum.
    row : int, optional
        Where its file holds several.
    """

    path: str
    name: str
    row: int | None = None

    def error(self, text: str) -> InputError:
        """An error that says where."""
        which = self.path if self.row is None else f"{self.path}, spectrum {self.row}"
        return InputError(f"{which}: {text}", path=self.path, row=self.row)


def build_spectrum(
    place: Place,
    axis: np.ndarray,
    flux: np.ndarray,
    *,
    unit: u.UnitBase,
    flux_text: object = "",
    error: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    variance: np.ndarray | None = None,
    bad: np.ndarray | None = None,
    convention: str = "radio",
    rest_frequency: float | None = None,
    air: bool | None = None,
    notes: Iterable[str] = (),
) -> Spectrum:
    """Put arrays in order and check them.

    Parameters
    ----------
    place : Place
    axis, flux : array_like, shape (N,)
        In any order; bins without a place on the axis are left out.
    unit : astropy Unit
        Of the axis.
    flux_text : str
        Unit of the flux, as the file spells it.
    error, weight, variance : array_like, optional
        Standard deviations, inverse variances (0 is how surveys mark what was not observed: those fluxes become NaN),
        or variances; the first of weight, variance and error that is given counts.
    bad : array_like of bool, optional
        Bins whose flux must not be used.
    convention, rest_frequency
        As in `Spectrum`.
    air : bool, optional
        Whether wavelengths are of air; they become those of vacuum. None where nothing tells it: taken as vacuum, with
        a note where it makes a difference.
    notes : iterable of str

    Raises
    ------
    InputError
        For an axis of another kind, lengths that differ, fewer than two bins, or no flux that can be used.
    """
    notes = list(notes)
    kind = axis_kind(unit)
    if kind is None:
        raise place.error(
            f"expected {AXIS_KINDS} along the axis, its unit is {unit}; correct it, or give it with --unit"
        )
    axis, flux = (np.asarray(array, np.float64) for array in (axis, flux))
    error, weight, variance = (
        None if array is None else np.asarray(array, np.float64) for array in (error, weight, variance)
    )
    lengths = {len(array) for array in (axis, flux, error, weight, variance, bad) if array is not None}
    if len(lengths) > 1 or axis.ndim != 1 or flux.ndim != 1:
        raise place.error(
            f"expected as many fluxes as bins of the axis, got {flux.size} and {axis.size}; correct the file"
        )
    value_unit = flux_unit(flux_text)
    if value_unit is None and str(flux_text or "").strip():
        notes.append(f"the unit of the flux, {str(flux_text).strip()!r}, is not one that is known: taken as relative")
    usable = np.isfinite(flux)
    if bad is not None:
        usable &= ~bad
    with np.errstate(divide="ignore", invalid="ignore"):
        if weight is not None:
            usable &= weight > 0
            error = 1 / np.sqrt(weight)
        elif variance is not None:
            error = np.sqrt(variance)
    flux = np.where(usable, flux, np.nan)
    if error is not None:
        error = np.where((error > 0) & np.isfinite(error), error, np.nan)
    placed = np.isfinite(axis)
    if kind not in ("velocity", "time"):
        placed &= axis > 0
    if not placed.all():
        notes.append(f"{np.count_nonzero(~placed)} of {len(axis)} bins have no {kind} and were left out")
        axis, flux, error = axis[placed], flux[placed], None if error is None else error[placed]
    if len(axis) < 2:
        raise place.error(f"expected at least 2 bins with a {kind}, got {len(axis)}; give the whole spectrum")
    axis, flux, error, note = _ascending(axis, flux, error, kind)
    notes.append(note)
    if len(axis) < 2:
        raise place.error(f"expected at least 2 different places along the axis, all are at {axis[0]:g} {unit}")
    if not np.isfinite(flux).any():
        raise place.error(f"expected a flux, all {len(axis)} bins are missing, masked or of no weight; leave it out")
    if kind == "wavelength":
        axis, note = _vacuum(axis, unit, air)
        notes.append(note)
    return Spectrum(
        place.name, place.path, axis, unit, flux, value_unit or u.dimensionless_unscaled, error, place.row,
        rest_frequency, convention, tuple(note for note in notes if note),
    )  # fmt: skip


def collect(attempts: Iterable[Spectrum | InputError]) -> Opened:
    """Sort what came of each spectrum of a file; the error of a lone one is raised."""
    attempts = list(attempts)
    if len(attempts) == 1 and isinstance(attempts[0], InputError):
        raise attempts[0]
    return Opened(
        tuple(one for one in attempts if isinstance(one, Spectrum)),
        tuple(one for one in attempts if isinstance(one, InputError)),
    )


def _ascending(
    axis: np.ndarray, flux: np.ndarray, error: np.ndarray | None, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    step = np.diff(axis)
    if (step > 0).all():
        return axis, flux, error, ""
    if (step < 0).all():
        return axis[::-1], flux[::-1], None if error is None else error[::-1], ""
    order = np.argsort(axis, kind="stable")
    note = ""
    if not ((step >= 0).all() or (step <= 0).all()):
        note = f"the {kind}s are not in order: sorted"
    axis, flux, error = axis[order], flux[order], None if error is None else error[order]
    first = np.flatnonzero(np.diff(axis, prepend=axis[0] - 1) > 0)
    if len(first) == len(axis):
        return axis, flux, error, note
    note = "; ".join(filter(None, (note, f"{len(axis) - len(first)} bins repeat a {kind}: averaged")))
    good = np.isfinite(flux)
    count = np.add.reduceat(good.astype(float), first)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(np.where(good, flux, 0.0), first) / count
        if error is not None:
            # A NaN among them makes the error of the mean unknown.
            error = np.sqrt(np.add.reduceat(np.where(good, error, 0.0) ** 2, first)) / count
    return axis[first], mean, error, note


def _vacuum(axis: np.ndarray, unit: u.UnitBase, air: bool | None) -> tuple[np.ndarray, str]:
    scale = unit.to(u.Angstrom)
    optical = axis[-1] * scale > _AIR[0] and axis[0] * scale < _AIR[1]
    if air:
        # Below 2000 Angstrom wavelengths are those of vacuum by convention.
        index = np.where(axis * scale >= _AIR[0], air_index(axis * unit.to(u.m)), 1.0)
        return axis * index, "wavelengths of air were turned into those of vacuum"
    if air is None and optical:
        return axis, "nothing says whether wavelengths are of air or vacuum: taken as vacuum"
    return axis, ""
