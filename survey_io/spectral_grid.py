"""Grids that networks read spectra on, and the way onto them: flux is conserved, what is missing stays missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u


@dataclass(frozen=True)
class SpectralGrid:
    """Bins in ascending order.

    Attributes
    ----------
    start, step : float
        Centre of the first bin, and the distance of two, in ``unit``; of a logarithmic grid the first centre, and the
        distance in natural logs.
    count : int
        Number of bins.
    unit : str
        As astropy spells it: "Angstrom", "GHz", "km/s", "d".
    spacing : str
        "linear" or "log".
    """

    start: float
    step: float
    count: int
    unit: str
    spacing: str = "linear"

    def centres(self) -> np.ndarray:
        """Centres of the bins, shape (count,), float64."""
        return self._at(np.arange(self.count))

    def edges(self) -> np.ndarray:
        """Edges of the bins, shape (count + 1,), float64."""
        return self._at(np.arange(self.count + 1) - 0.5)

    def _at(self, place: np.ndarray) -> np.ndarray:
        if self.spacing == "log":
            return self.start * np.exp(self.step * place)
        return self.start + self.step * place

    @property
    def axis_unit(self) -> u.UnitBase:
        """The unit as astropy's object."""
        return u.Unit(self.unit)
