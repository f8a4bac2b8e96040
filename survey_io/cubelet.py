"""A box of a cube around one source: its header, moment maps and spectrum, and the files that hold them.

Names and contents of the files are those of SoFiA-2's cubelets, so that what reads those reads these. The header is
made anew from what the readers understood: whatever spelling, order or unit the cube's own axes have, the box has the
standard ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from .errors import InputError, OutputError
from .quiet import quiet

if TYPE_CHECKING:
    from .cube import Cube, Window3

__all__ = ["Cubelet", "Moments", "cut_cubelet", "moment_maps", "write_cubelet"]

# Moments 1 and 2 are those of voxels above this many times the rms: noise far from the line has a long lever.
MOMENT_SIGMA = 1.5
_UNITS = {"FREQ": "Hz", "VRAD": "m/s", "VOPT": "m/s", "VELO": "m/s", "WAVE": "m", "AWAV": "m"}
# What of the cube's header goes with a box.
_CARRIED = ("TELESCOP", "INSTRUME", "OBSERVER", "DATE-OBS", "SPECSYS", "SSYSOBS", "VELOSYS", "EQUINOX")


@dataclass(frozen=True)
class Cubelet:
    """One source's box.

    Attributes
    ----------
    cube : Cube
    window : (slice, slice, slice)
        Where the box lies in the cube.
    voxels : ndarray of float32, shape (nchan, ny, nx)
        In the cube's unit, NaN where blank.
    mask : ndarray of bool
        Voxels of the source.
    rms : ndarray of float32
        Noise of each voxel, NaN where flagged.
    header : Header
        Of the box, three axes.
    """

    cube: Cube
    window: Window3
    voxels: np.ndarray
    mask: np.ndarray
    rms: np.ndarray
    header: fits.Header

    @property
    def wcs(self) -> WCS:
        """Sky coordinates of the box, (x, y)."""
        return _celestial_part(self.header)

    @property
    def channels(self) -> np.ndarray:
        """Channels of the whole cube, counted from 0."""
        return np.arange(self.window[0].start, self.window[0].stop)


@dataclass(frozen=True)
class Moments:
    """Moment maps of one source, shape (ny, nx), NaN outside it.

    Attributes
    ----------
    flux : ndarray
        Integral along the line, in ``flux_unit``.
    velocity, dispersion : ndarray
        Mean and standard deviation along the line, in ``unit``: optical velocity in km/s, or frequency in Hz where the
        line's rest frequency is not known.
    flux_unit, unit : astropy unit
    """

    flux: np.ndarray
    velocity: np.ndarray
    dispersion: np.ndarray
    flux_unit: u.UnitBase
    unit: u.UnitBase


def cut_cubelet(
    cube: Cube, window: Window3, voxels: np.ndarray, mask: np.ndarray, rms: np.ndarray, *, name: str = ""
) -> Cubelet:
    """A box of a cube with the header that belongs to it.

    Parameters
    ----------
    cube : Cube
    window : (slice, slice, slice)
        Channels, rows and columns within the cube.
    voxels, mask, rms : ndarray
        Of the window.
    name : str
        OBJECT of the header.
    """
    plane, spectral = cube.plane, cube.spectral
    with quiet():
        header = plane.wcs.to_header(relax=True)
    for axis, span in ((1, window[2]), (2, window[1])):
        header[f"CRPIX{axis}"] = header.get(f"CRPIX{axis}", 0.0) - span.start
    header["WCSAXES"] = 3
    header["CTYPE3"], header["CUNIT3"] = spectral.kind, _UNITS[spectral.kind]
    header["CRPIX3"], header["CDELT3"] = 1.0, spectral.step
    header["CRVAL3"] = spectral.start + spectral.step * window[0].start
    if spectral.rest_frequency is not None:
        header["RESTFRQ"] = (spectral.rest_frequency, "[Hz]")
    for key in _CARRIED:
        if key in plane.header and key not in header:
            header[key] = plane.header[key]
    if name:
        header["OBJECT"] = name
    if plane.unit is not None:
        header["BUNIT"] = _fits_unit(plane.unit)
    if plane.beam is not None:
        # The position angle is relative to ICRS north, as it is in the catalogue.
        beam = plane.beam
        header["BMAJ"], header["BMIN"], header["BPA"] = beam.major / 3600, beam.minor / 3600, beam.pa
    first = tuple(span.start + 1 for span in reversed(window))
    header["HISTORY"] = f"skysift: box of {cube.path.name} that begins at pixel {first} (counted from 1)"
    return Cubelet(cube, window, voxels, mask, rms, header)


def moment_maps(cubelet: Cubelet, z: float) -> Moments:
    """Moments of a source over its mask.

    Parameters
    ----------
    cubelet : Cubelet
    z : float
        The line's channel in the whole cube: there channel widths become km/s, as they do in the catalogue.

    Returns
    -------
    Moments
        ``flux`` sums every voxel of the mask; ``velocity`` and ``dispersion`` those above `MOMENT_SIGMA` times the rms.
    """
    spectral, plane = cubelet.cube.spectral, cubelet.cube.plane
    finite = np.isfinite(cubelet.voxels)
    source = cubelet.mask & finite
    with np.errstate(invalid="ignore"):
        clear = source & (cubelet.voxels > MOMENT_SIGMA * cubelet.rms)
    unit = plane.unit or u.dimensionless_unscaled
    scale = 1.0
    if unit.is_equivalent(u.Jy / u.beam):
        unit, scale = u.Jy / u.beam, float(unit.to(u.Jy / u.beam))
    with quiet(), np.errstate(divide="ignore", invalid="ignore"):
        flux = np.asarray(_spectral_cube(cubelet, source).moment(order=0).value, float)
        lines = _spectral_cube(cubelet, clear)
        mean = np.asarray(lines.moment(order=1).value, float)
        spread = np.sqrt(np.asarray(lines.moment(order=2).value, float))
    empty = ~source.any(axis=0)
    count = clear.sum(axis=0)
    flux[empty], mean[count < 1], spread[count < 2] = np.nan, np.nan, np.nan
    # spectral-cube works in what is linear along the axis; the spectral axis turns that into Hz and km/s.
    step, width = abs(spectral.step), float(spectral.width(z))
    flux = flux * (scale / step * width)
    channel = (mean - spectral.start) / spectral.step
    sigma = spread / step * width
    if spectral.rest_frequency is None:
        return Moments(flux, spectral.frequency(channel), sigma, unit * u.Hz, u.Hz)
    per_hz = float(spectral.velocity_width(z, 1.0))
    velocity = spectral.velocity_optical(channel)
    return Moments(flux * per_hz, velocity, sigma * per_hz, unit * u.km / u.s, u.km / u.s)


def write_cubelet(cubelet: Cubelet, moments: Moments, spectrum: Table, start: str) -> list[Path]:
    """Write a source's files.

    Parameters
    ----------
    cubelet : Cubelet
    moments : Moments
    spectrum : Table
        Written as FITS table and as text.
    start : str
        What the files' names begin with, folder included.

    Returns
    -------
    list of Path
        ``_cube``, ``_mask``, ``_mom0``, ``_mom1``, ``_mom2``, ``_spec`` (.fits) and ``_spec.txt``.

    Raises
    ------
    OutputError
        When they cannot be written.
    """
    header = cubelet.header
    flat = _flat_header(header)
    mask_header = header.copy()
    mask_header.remove("BUNIT", ignore_missing=True)
    maps = {
        "mom0": (moments.flux, moments.flux_unit, "flux density integrated along the line"),
        "mom1": (moments.velocity, moments.unit, "mean along the line; velocities are optical, c z"),
        "mom2": (moments.dispersion, moments.unit, "standard deviation along the line"),
    }
    units: dict[str, fits.HDUList] = {
        "cube": fits.HDUList([fits.PrimaryHDU(cubelet.voxels, header), *_beam_table_of(cubelet)]),
        "mask": fits.HDUList([fits.PrimaryHDU(cubelet.mask.astype(np.uint8), mask_header)]),
    }
    for kind, (data, unit, meaning) in maps.items():
        own = flat.copy()
        own["BUNIT"] = _fits_unit(unit)
        own["COMMENT"] = meaning
        units[kind] = fits.HDUList([fits.PrimaryHDU(data.astype(np.float32), own)])
    table = fits.table_to_hdu(spectrum)
    table.name = "SPECTRUM"
    units["spec"] = fits.HDUList([fits.PrimaryHDU(), table])
    paths = []
    try:
        for kind, hdus in units.items():
            paths.append(Path(f"{start}_{kind}.fits"))
            hdus.writeto(paths[-1], overwrite=True)
        paths.append(Path(f"{start}_spec.txt"))
        lines = [f"# {name} [{spectrum[name].unit or '1'}]" for name in spectrum.colnames]
        rows = [" ".join(f"{value:.9g}" for value in row) for row in spectrum.as_array().tolist()]
        paths[-1].write_text("\n".join([*lines, *rows]) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{paths[-1]}: expected to write a source's products there, got {error.strerror or error}; "
            "make room, or choose another folder with -o"
        ) from error
    return paths


@lru_cache(maxsize=1)
def _library() -> Any:
    """spectral-cube, at first use: it takes a second or two to import and warns about its own dependencies."""
    with quiet():
        import spectral_cube
    return spectral_cube


def _spectral_cube(cubelet: Cubelet, mask: np.ndarray) -> Any:
    """The box with a mask as a `spectral_cube.SpectralCube`, in double precision: an axis in Hz needs its digits."""
    library = _library()
    header = cubelet.header.copy()
    # Beams play no part in moments, and units are put back by the caller: what is left out cannot be refused.
    for key in ("BMAJ", "BMIN", "BPA", "BUNIT", "HISTORY"):
        header.remove(key, ignore_missing=True, remove_all=True)
    wcs = WCS(header)
    data = np.where(mask, cubelet.voxels, 0).astype(np.float64)
    return library.SpectralCube(data * u.dimensionless_unscaled, wcs, mask=library.BooleanArrayMask(mask, wcs))


def _celestial_part(header: fits.Header) -> WCS:
    with quiet():
        return WCS(header).celestial


def _flat_header(header: fits.Header) -> fits.Header:
    flat = header.copy()
    for key in ("CTYPE3", "CUNIT3", "CRPIX3", "CRVAL3", "CDELT3"):
        flat.remove(key, ignore_missing=True)
    flat["WCSAXES"] = 2
    return flat


def _beam_table_of(cubelet: Cubelet) -> list[fits.BinTableHDU]:
    beams = cubelet.cube.beams
    if beams is None:
        return []
    own = beams[cubelet.window[0]]
    columns = [
        fits.Column(name, "1E", unit=unit, array=np.array([getattr(beam, field) for beam in own]))
        for name, unit, field in (("BMAJ", "arcsec", "major"), ("BMIN", "arcsec", "minor"), ("BPA", "deg", "pa"))
    ]
    columns.append(fits.Column("CHAN", "1J", array=np.arange(len(own))))
    columns.append(fits.Column("POL", "1J", array=np.zeros(len(own), int)))
    table = fits.BinTableHDU.from_columns(columns, name="BEAMS")
    table.header["NCHAN"], table.header["NPOL"] = len(own), 1
    return [table]


def _fits_unit(unit: u.UnitBase) -> str:
    try:
        return unit.to_string("fits")
    except (ValueError, u.UnitScaleError) as error:
        raise InputError(f"unit {unit}: expected one that FITS can spell ({error}); correct BUNIT") from error
