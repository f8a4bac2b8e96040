"""The beams of a cube: one for all channels, or one for each from a BEAMS table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from astropy import units as u
from astropy.io import fits

from .observation import Beam

__all__ = ["PixelBeam", "beam_range", "beam_table"]


class PixelBeam(NamedTuple):
    """A cube's beam in pixels.

    Attributes
    ----------
    major, minor : float
        FWHM, px.
    theta : float
        From +x towards +y, rad.
    areas : ndarray of shape (nchan,) or None
        Solid angle of each channel's own beam, px; None where all are alike.
    """

    major: float
    minor: float
    theta: float
    areas: np.ndarray | None = None

    def area(self, channels: slice) -> Any:
        """Solid angle in px: one number, or one for each of the channels."""
        if self.areas is None:
            return np.pi / (4 * np.log(2)) * self.major * self.minor
        return self.areas[channels]


def beam_range(beams: tuple[Beam, ...]) -> str:
    """Least and largest major axis, for a note."""
    major = [beam.major for beam in beams]
    return f"{min(major):.4g} to {max(major):.4g} arcsec"


def beam_table(hdus: fits.HDUList, channels: int) -> tuple[Beam, ...]:
    """Beams of a CASA BEAMS table, one per channel, where they differ; gaps take the nearest channel's."""
    try:
        table = next((h for h in hdus if h.name == "BEAMS" and isinstance(h, fits.BinTableHDU)), None)
    except (OSError, ValueError, fits.VerifyError):
        return ()
    if table is None or not {"BMAJ", "BMIN", "BPA"} <= {name.upper() for name in table.columns.names}:
        return ()
    columns = {column.name.upper(): column for column in table.columns}
    factor = {name: u.Unit(columns[name].unit or "arcsec").to(u.arcsec) for name in ("BMAJ", "BMIN")}
    angle = u.Unit(columns["BPA"].unit or "deg").to(u.deg)
    major, minor = (np.asarray(table.data[columns[n].name], float) * factor[n] for n in ("BMAJ", "BMIN"))
    pa = np.asarray(table.data[columns["BPA"].name], float) * angle
    number = np.arange(len(major))
    if "CHAN" in columns:
        number = np.asarray(table.data[columns["CHAN"].name], int)
    if "POL" in columns:
        first = np.asarray(table.data[columns["POL"].name], int)
        keep = first == first.min()
        major, minor, pa, number = major[keep], minor[keep], pa[keep], number[keep]
    good = np.isfinite(major * minor * pa) & (major > 0) & (minor > 0)
    if not good.any() or (np.allclose(major[good], major[good][0]) and np.allclose(minor[good], minor[good][0])):
        return ()
    major, minor, pa, number = major[good], minor[good], pa[good], number[good]
    nearest = np.abs(number[None] - np.arange(channels)[:, None]).argmin(axis=1)
    return tuple(Beam(major[i], minor[i], pa[i], "table") for i in nearest)
