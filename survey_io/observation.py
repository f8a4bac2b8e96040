"""The one object that later stages receive for an image: pixels, sky coordinates, unit and beam."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import (
    FK5,
    ICRS,
    BarycentricMeanEcliptic,
    Galactic,
    SkyCoord,
    Supergalactic,
    UnitSphericalRepresentation,
)
from astropy.io.fits import Header
from astropy.wcs import WCS

from .errors import InputError
from .geometry import (
    anchor_pixel,
    celestial_frame,
    ellipse_axes,
    inverse,
    shape_matrix,
    spherical,
    unit_vector,
)
from .pixels import PixelSource, Window

__all__ = ["Beam", "Observation", "PixelSource", "Window"]

ARCSEC_PER_RADIAN = 180 * 3600 / np.pi
BEAM_ORIGINS = ("header", "history", "table", "option", "estimated")


@dataclass(frozen=True)
class Beam:
    """The restoring beam, an elliptical Gaussian.

    Attributes
    ----------
    major, minor : float
        FWHM in arcsec, major >= minor > 0.
    pa : float
        Position angle of the major axis, degrees east of (ICRS) north, in [0, 180).
    origin : {"header", "history", "table", "option", "estimated"}
        Where the numbers came from.
    """

    major: float
    minor: float
    pa: float = 0.0
    origin: str = "header"

    def __post_init__(self) -> None:
        if not (np.isfinite([self.major, self.minor, self.pa]).all() and self.major > 0 and self.minor > 0):
            raise InputError(
                f"a beam needs two axes above 0 arcsec and an angle, got {self.major} x {self.minor} "
                f"arcsec at {self.pa} deg; give it as MAJOR,MINOR,PA",
            )
        if self.origin not in BEAM_ORIGINS:
            raise InputError(f"the origin of a beam is one of {', '.join(BEAM_ORIGINS)}, got {self.origin!r}")
        major, minor, pa = float(self.major), float(self.minor), float(self.pa)
        if minor > major:
            major, minor, pa = minor, major, pa + 90.0
        object.__setattr__(self, "major", major)
        object.__setattr__(self, "minor", minor)
        object.__setattr__(self, "pa", pa % 180.0 % 180.0)

    @property
    def solid_angle(self) -> float:
        """Solid angle of the Gaussian in arcsec^2."""
        return np.pi / (4 * np.log(2)) * self.major * self.minor


@dataclass(frozen=True, eq=False)
class Observation:
    """One opened image. Nothing of its pixels is in memory until ``pixels.read`` is called.

    Attributes
    ----------
    pixels : PixelSource
        Reads windows as float32 with NaN for blank.
    wcs : astropy.wcs.WCS
        Two celestial axes in the order of the image's (x, y).
    unit : astropy unit or None
        Unit of a pixel; None when the header names none, or one that is not understood.
    beam : Beam or None
        None when the file names none: estimate it or ask for it.
    frequency : float or None
        Hz.
    header : astropy.io.fits.Header
        Header of the image's unit.
    pixel_scale : float
        Square root of the area of the pixel at the image centre, arcsec.
    path : Path
        The file that the user named.
    notes : tuple of str
        What a reader of the catalogue should know about how this image was opened.
    """

    pixels: PixelSource
    wcs: WCS
    unit: u.UnitBase | None
    beam: Beam | None
    frequency: float | None
    header: Header = field(repr=False)
    pixel_scale: float
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.pixels.shape

    @property
    def stem(self) -> str:
        """File name without its FITS and compression endings: the start of every output's name."""
        stem = self.path.name
        for ending in (".gz", ".bz2", ".xz", ".fz", ".fits", ".fit", ".fts"):
            if stem.lower().endswith(ending) and len(stem) > len(ending):
                stem = stem[: -len(ending)]
        return stem

    def pixel_to_sky(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """ICRS position of pixel positions (counted from 0), in degrees, ra in [0, 360).

        NaN where the projection has no sky.
        """
        return spherical(self._direction(x, y))

    def sky_to_pixel(self, ra: Any, dec: Any) -> tuple[np.ndarray, np.ndarray]:
        """Pixel position (counted from 0) of ICRS positions in degrees; NaN where the projection has none."""
        ra, dec = np.broadcast_arrays(np.asarray(ra, dtype=float), np.asarray(dec, dtype=float))
        if self._rotation is not None:
            lon, lat = spherical(unit_vector(ra, dec) @ self._rotation)
        else:
            native = SkyCoord(ra * u.deg, dec * u.deg, frame="icrs").transform_to(self._frame).spherical
            lon, lat = native.lon.deg, native.lat.deg
        world = np.empty((ra.size, 2))
        world[:, self.wcs.wcs.lng] = lon.ravel()
        world[:, self.wcs.wcs.lat] = lat.ravel()
        if self.wcs.has_distortion:
            pixel = self.wcs.all_world2pix(world, 0, quiet=True)
        else:
            pixel = self.wcs.wcs_world2pix(world, 0)
        return pixel[:, 0].reshape(ra.shape), pixel[:, 1].reshape(ra.shape)

    def theta_to_pa(self, x: Any, y: Any, theta: Any) -> np.ndarray:
        """Position angle of a direction in the pixel grid, vectorised.

        Parameters
        ----------
        x, y : array_like
            Pixel positions, counted from 0.
        theta : array_like
            Radians, from +x towards +y.

        Returns
        -------
        ndarray
            Degrees east of ICRS north, in [0, 180).
        """
        jacobian = self.jacobian(x, y)
        theta = np.asarray(theta, dtype=float)
        direction = np.stack(np.broadcast_arrays(np.cos(theta), np.sin(theta)), axis=-1)
        east_north = np.einsum("...ij,...j->...i", jacobian, direction)
        return np.degrees(np.arctan2(east_north[..., 0], east_north[..., 1])) % 180.0 % 180.0

    def pa_to_theta(self, x: Any, y: Any, pa: Any) -> np.ndarray:
        """Direction in the pixel grid (radians in [0, pi)) of a position angle (degrees east of north)."""
        back = inverse(self.jacobian(x, y))
        pa = np.radians(np.asarray(pa, dtype=float))
        direction = np.stack(np.broadcast_arrays(np.sin(pa), np.cos(pa)), axis=-1)
        step = np.einsum("...ij,...j->...i", back, direction)
        return np.arctan2(step[..., 1], step[..., 0]) % np.pi % np.pi

    def ellipse_to_sky(self, x: Any, y: Any, major: Any, minor: Any, theta: Any) -> tuple[np.ndarray, ...]:
        """An ellipse of the pixel grid (pixels, radians) as (major, minor, pa) on the sky (arcsec, deg).

        Exact for pixels that are not square, where the axes of the ellipse change, not only their directions.
        """
        jacobian = self.jacobian(x, y)
        shape = jacobian @ shape_matrix(major, minor, theta) @ np.swapaxes(jacobian, -1, -2)
        big, small, angle = ellipse_axes(shape)
        return big, small, np.degrees(np.pi / 2 - angle) % 180.0 % 180.0

    def ellipse_to_pixel(self, x: Any, y: Any, major: Any, minor: Any, pa: Any) -> tuple[np.ndarray, ...]:
        """An ellipse on the sky (arcsec, deg) as (major, minor, theta) in the pixel grid (pixels, rad)."""
        back = inverse(self.jacobian(x, y))
        angle = np.pi / 2 - np.radians(np.asarray(pa, dtype=float))
        shape = back @ shape_matrix(major, minor, angle) @ np.swapaxes(back, -1, -2)
        big, small, theta = ellipse_axes(shape)
        return big, small, theta % np.pi % np.pi

    def beam_pixels(self) -> tuple[float, float, float]:
        """The beam in the pixel grid at the image centre: (major, minor, theta), FWHM in pixels and radians.

        Raises
        ------
        InputError
            When the image has no beam.
        """
        if self.beam is None:
            raise InputError(
                f"{self.path}: expected a beam (BMAJ, BMIN, BPA), the header has none; give --beam "
                f"MAJOR,MINOR,PA in arcsec and degrees, or let it be estimated",
                path=str(self.path),
            )
        x, y = self._anchor
        major, minor, theta = self.ellipse_to_pixel(x, y, self.beam.major, self.beam.minor, self.beam.pa)
        return float(major), float(minor), float(theta)

    def jacobian(self, x: Any, y: Any) -> np.ndarray:
        """Local change of sky position per pixel, shape (..., 2, 2), arcsec per pixel.

        Rows are (east, north) in ICRS, columns are (x, y).
        """
        x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        # Differences of unit vectors, not of angles: the same formula holds at the poles and across RA = 0.
        along_x = self._direction(x + 0.5, y) - self._direction(x - 0.5, y)
        along_y = self._direction(x, y + 0.5) - self._direction(x, y - 0.5)
        ra, dec = spherical(self._direction(x, y))
        ra, dec = np.radians(ra), np.radians(dec)
        zero = np.zeros_like(ra)
        east = np.stack([-np.sin(ra), np.cos(ra), zero], axis=-1)
        north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
        rows = [[np.sum(axis * step, axis=-1) for step in (along_x, along_y)] for axis in (east, north)]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2) * ARCSEC_PER_RADIAN

    def require_finite(self) -> None:
        """Check that the image has at least one pixel with a value; reads until the first is found.

        Raises
        ------
        InputError
            When every pixel is NaN or blank.
        """
        ny, nx = self.shape
        strip = max(1, min(ny, 2**22 // nx))
        starts = np.arange(0, ny, strip)
        # The middle first: borders are what is blank in mosaics.
        for start in starts[np.argsort(np.abs(starts - ny / 2), kind="stable")]:
            window = (slice(int(start), min(int(start) + strip, ny)), slice(0, nx))
            if np.isfinite(self.pixels.read(window)).any():
                return
        raise InputError(
            f"{self.path}: expected an image with values, all {ny} x {nx} pixels are NaN or blank; "
            f"choose another extension or file",
            path=str(self.path),
            shape=self.shape,
        )

    def jansky_per_beam(self) -> float:
        """What one unit of the image is in Jy/beam: the factor that makes fluxes come out in Jy.

        Raises
        ------
        InputError
            When the image's unit cannot be converted (counts, none, K without a frequency, no beam).
        """
        target = u.Jy / u.beam
        if self.unit is not None:
            if self.unit.is_equivalent(target):
                return float(self.unit.to(target))
            if self.beam is not None:
                area = self.beam.solid_angle * u.arcsec**2
                per_beam = {
                    u.Jy / u.sr: area,
                    u.Jy / u.pix: area / (self.pixel_scale * u.arcsec) ** 2 * u.pix,
                }
                for known, size in per_beam.items():
                    if self.unit.is_equivalent(known):
                        return float((1 * self.unit * size).to_value(u.Jy))
                if self.unit.is_equivalent(u.K) and self.frequency:
                    kelvin = u.brightness_temperature(self.frequency * u.Hz, beam_area=area)
                    return float((1 * self.unit).to_value(u.Jy, equivalencies=kelvin))
        raise InputError(
            f"{self.path}: expected a unit that converts to Jy/beam (Jy/beam, MJy/sr, Jy/pixel, K with a "
            f"frequency), got {'none' if self.unit is None else self.unit.to_string()} with "
            f"{'a' if self.beam else 'no'} beam; fluxes stay in image units, or correct BUNIT",
            path=str(self.path),
            unit=None if self.unit is None else self.unit.to_string(),
        )

    @cached_property
    def _frame(self) -> Any:
        return celestial_frame(self.wcs)

    @cached_property
    def _rotation(self) -> np.ndarray | None:
        # FK5, galactic and ecliptic frames differ from ICRS by a rotation, which costs 100 times less than
        # astropy's transformation graph; FK4 has aberration terms and takes the long way (None).
        if isinstance(self._frame, ICRS):
            return np.eye(3)
        if isinstance(self._frame, (FK5, Galactic, BarycentricMeanEcliptic, Supergalactic)):
            axes = UnitSphericalRepresentation(lon=[0, 90, 0] * u.deg, lat=[0, 0, 90] * u.deg)
            rotated = SkyCoord(self._frame.realize_frame(axes)).icrs.cartesian.xyz.value
            return rotated.reshape(3, 3)
        return None

    @cached_property
    def _anchor(self) -> tuple[float, float]:
        return anchor_pixel(self.wcs, self.shape)

    def _direction(self, x: Any, y: Any) -> np.ndarray:
        """Unit vectors (..., 3) in ICRS of pixel positions."""
        x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        world = self.wcs.all_pix2world(np.column_stack([x.ravel(), y.ravel()]), 0)
        lon = world[:, self.wcs.wcs.lng].reshape(x.shape)
        lat = world[:, self.wcs.wcs.lat].reshape(x.shape)
        if self._rotation is not None:
            return unit_vector(lon, lat) @ self._rotation.T
        native = self._frame.realize_frame(UnitSphericalRepresentation(lon=lon * u.deg, lat=lat * u.deg))
        icrs = SkyCoord(native).icrs
        return unit_vector(icrs.ra.deg, icrs.dec.deg)
