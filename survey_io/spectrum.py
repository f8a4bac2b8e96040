"""The one-dimensional observation that later stages receive: a spectrum, or a light curve, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from astropy import units as u


@dataclass(frozen=True)
class Spectrum:
    """One spectrum or one light curve, in memory.

    Attributes
    ----------
    name : str
        What its file calls it: the object's name, else the file's stem, with the row where a file holds several.
    path : str
        The file it came from.
    axis : ndarray of float64, shape (N,)
        Centres of its bins, strictly ascending; wavelengths are those of vacuum.
    unit : astropy Unit
        Of the axis: a wavelength, a frequency, a velocity or a time.
    flux : ndarray of float64, shape (N,)
        NaN where nothing was measured or a mask says that it must not be used.
    flux_unit : astropy Unit
        Dimensionless where the file tells none.
    error : ndarray of float64, shape (N,), optional
        Standard deviation of each bin, NaN where unknown; None where the file tells none.
    row : int, optional
        Row or extension of the file, counted from 0, where the file holds several.
    rest_frequency : float, optional
        Hz; what a velocity axis counts from.
    convention : str
        Of a velocity axis: "radio", "optical" or "relativistic".
    notes : tuple of str
        What was assumed or repaired while reading, one sentence each.
    """

    name: str
    path: str
    axis: np.ndarray
    unit: u.UnitBase
    flux: np.ndarray
    flux_unit: u.UnitBase = u.dimensionless_unscaled
    error: np.ndarray | None = None
    row: int | None = None
    rest_frequency: float | None = None
    convention: str = "radio"
    notes: tuple[str, ...] = field(default=())

    @property
    def is_series(self) -> bool:
        """Whether it runs over time: a light curve."""
        return self.unit.physical_type == "time"
