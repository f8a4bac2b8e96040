"""``open_cube``: a spectral-line FITS cube as a ``Cube``: its pixels by window, its sky and its spectral axis."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits

from .cube_beams import PixelBeam, beam_range, beam_table
from .cube_source import CubeSource
from .errors import InputError, OutputError
from .geometry import anchor_pixel, celestial_frame
from .header_check import check_headers
from .headers import header_beam, header_frequency, header_unit, option_beam
from .image import (
    _celestial,
    _celestial_wcs,
    _check_length,
    _not_fits,
    _one_line,
    _readable,
    _scaling,
    _to_icrs_north,
    _units,
)
from .observation import Beam, Observation
from .pixels import to_float32
from .quiet import quiet
from .scratch import scratch_copy
from .spectral import SpectralAxis, read_spectral_axis, spectral_axis_number

__all__ = ["Cube", "is_cube", "open_cube"]


@dataclass(frozen=True, eq=False)
class Cube:
    """One opened cube. Nothing of its voxels is in memory until ``pixels.read`` is called.

    Attributes
    ----------
    pixels : CubeSource
    spectral : SpectralAxis
    plane : Observation
        Sky coordinates, unit, beam (the median one where each channel has its own; None when the file names none) and
        header; its pixels are those of the middle channel.
    beams : tuple of Beam or None
        One per channel, from a BEAMS table whose beams differ.
    """

    pixels: CubeSource
    spectral: SpectralAxis
    plane: Observation = field(repr=False)
    beams: tuple[Beam, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nchan, ny, nx)."""
        return self.pixels.shape

    @property
    def path(self) -> Path:
        """The file that the user named."""
        return self.plane.path

    @property
    def stem(self) -> str:
        """File name without its endings: the start of every output's name."""
        return self.plane.stem

    def pixel_beam(self) -> PixelBeam:
        """The beam in pixels, with the areas of the channels' own beams where there are such.

        Raises
        ------
        InputError
            When the cube has no beam.
        """
        major, minor, theta = self.plane.beam_pixels()
        if self.beams is None:
            return PixelBeam(major, minor, theta)
        middle = self.plane.beam
        shares = np.array([beam.major * beam.minor for beam in self.beams]) / (middle.major * middle.minor)
        return PixelBeam(major, minor, theta, np.pi / (4 * np.log(2)) * major * minor * shares)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the catalogue should know about how this cube was opened."""
        return self.plane.notes


def is_cube(path: str | os.PathLike[str], hdu: int | str | None = None) -> bool:
    """Whether the unit that would be opened has two sky axes and a spectral axis of several channels.

    Only headers are read; a file that cannot be read is no cube, and `open_image` says what is wrong with it.
    """
    try:
        check_headers(path)
        with quiet(), fits.open(path, mode="readonly", memmap=True, do_not_scale_image_data=True) as hdus:
            for _, unit in _units(Path(path), hdus, hdu):
                if not unit.is_image or not unit.header.get("NAXIS"):
                    continue
                axis = spectral_axis_number(unit.header)
                lengths = [int(unit.header[f"NAXIS{i + 1}"]) for i in range(unit.header["NAXIS"])]
                long = sum(n > 1 for n in lengths)
                # The first unit with pixels decides, as it does for images.
                return axis is not None and lengths[axis - 1] > 1 and long >= 3
    except (OSError, ValueError, TypeError, KeyError, IndexError, InputError, fits.VerifyError):
        return False
    return False


def open_cube(
    path: str | os.PathLike[str],
    *,
    hdu: int | str | None = None,
    beam: Beam | tuple[float, float, float] | None = None,
    rest_frequency: float | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> Cube:
    """Open a spectral-line cube without reading its voxels.

    Sky axes first, then the spectral axis, with axes of length 1 or polarisations (the first is taken) anywhere
    behind the sky; floats and scaled integers; compressed files are unpacked once to ``scratch``.

    Parameters
    ----------
    path : path-like
    hdu : int or str, optional
        Number (from 0) or EXTNAME of the unit to open. Default: the first with sky and spectral axes.
    beam : Beam or (major arcsec, minor arcsec, pa deg), optional
        Replaces what the file says.
    rest_frequency : float, optional
        Hz; replaces what the file says.
    scratch : path-like, optional
        Folder for unpacked copies.

    Returns
    -------
    Cube

    Raises
    ------
    InputError
        When the file is missing, not FITS, cut short, or no cube with sky coordinates and a spectral axis of at least
        two channels; or its velocity axis has no rest frequency.
    OutputError
        When the scratch folder cannot hold the unpacked copy.
    """
    path = Path(path)
    folder = None if scratch is None else Path(scratch)
    readable = _readable(path, folder)
    check_headers(readable, name=path)
    with quiet():
        try:
            hdus = fits.open(readable, mode="readonly", memmap=True, do_not_scale_image_data=True)
        except (OSError, ValueError, TypeError, KeyError, fits.VerifyError) as error:
            raise _not_fits(path, error) from error
        with hdus:
            index, wcs = _choose_cube(path, hdus, hdu)
            return _build(path, readable, hdus, index, wcs, option_beam(beam), rest_frequency, folder)


def _choose_cube(path: Path, hdus: fits.HDUList, wanted: int | str | None) -> tuple[int, Any]:
    refusals = []
    for index, unit in _units(path, hdus, wanted):
        wcs, refusal = _celestial_wcs(unit, hdus)
        if wcs is None:
            refusals.append(f"unit {index} {refusal}")
            continue
        axis = spectral_axis_number(unit.header)
        if axis is None:
            types = ", ".join(str(unit.header.get(f"CTYPE{i + 1}", "none")) for i in range(unit.header["NAXIS"]))
            refusals.append(f"unit {index} has the axes {types}")
        elif int(unit.header[f"NAXIS{axis}"]) < 2:
            refusals.append(f"unit {index} has one channel")
        else:
            return index, wcs
    raise InputError(
        f"{path}: expected a cube of two sky axes and a spectral axis (FREQ, VRAD, VOPT, VELO, WAVE) of at least 2 "
        f"channels, got {'; '.join(refusals)}; correct CTYPE, or choose the unit with --hdu",
        path=str(path),
    )


def _build(
    path: Path, readable: Path, hdus: fits.HDUList, index: int, wcs: Any, beam: Beam | None,
    rest_frequency: float | None, scratch: Path | None,
) -> Cube:  # fmt: skip
    unit = hdus[index]
    header = unit.header
    axis = spectral_axis_number(header)
    lengths = [int(header[f"NAXIS{i + 1}"]) for i in range(header["NAXIS"])]
    sky = sorted((wcs.wcs.lng, wcs.wcs.lat))
    if sky != [0, 1]:
        raise InputError(
            f"{path}[{index}]: expected the sky on the first two axes, the WCS has it on axes {sky[0] + 1} and "
            f"{sky[1] + 1}; reorder the axes of the cube",
            path=str(path),
        )
    notes = []
    others = [i for i, n in enumerate(lengths) if i > 1 and i != axis - 1 and n > 1]
    for i in others:
        name = str(header.get(f"CTYPE{i + 1}", f"axis {i + 1}")).strip()
        if not name.upper().startswith("STOKES") or float(header.get(f"CRVAL{i + 1}", 1)) not in (0.0, 1.0):
            raise InputError(
                f"{path}[{index}]: expected one spectral axis beside the sky, got also {name} of {lengths[i]}; "
                "cut one plane of it out",
                path=str(path),
            )
        notes.append(f"of {lengths[i]} polarisations the first (Stokes I) is read")
    shape = (lengths[axis - 1], lengths[1], lengths[0])
    step = int(np.prod(lengths[: axis - 1]))
    spectral, said = read_spectral_axis(header, axis, rest_frequency=rest_frequency, name=str(path))
    notes += said
    try:
        flat = _celestial(header, wcs, hdus)
        celestial_frame(flat)
        x, y = anchor_pixel(flat, shape[1:])
    except Exception as error:  # wcslib's errors share no base class
        raise InputError(
            f"{path}[{index}]: expected celestial coordinates over the cube, its WCS cannot be used "
            f"({_one_line(error)}); correct the header",
            path=str(path),
        ) from error
    if isinstance(unit, fits.CompImageHDU):
        pixels = _unpack_cube(path, readable, index, unit, shape, step, scratch)
    else:
        pixels = _raw_cube(path, readable, index, unit, shape, step, lengths)
    bunit, note = header_unit(header)
    notes.append(note)
    plane = Observation(
        pixels=pixels.plane(shape[0] // 2), wcs=flat, unit=bunit, beam=None, header=header.copy(), pixel_scale=1.0,
        path=path, frequency=header_frequency(header),
    )  # fmt: skip
    scale = float(np.sqrt(abs(np.linalg.det(plane.jacobian(x, y)))))
    beams = None
    if beam is None:
        beams = beam_table(hdus, shape[0])
        if beams:
            beams = tuple(_to_icrs_north(each, plane, scale, x, y) for each in beams)
            order = np.argsort([each.major * each.minor for each in beams])
            beam = beams[int(order[len(order) // 2])]
            notes.append(f"a beam for each channel, {beam_range(beams)}: the median one stands for all")
        else:
            beam, note = header_beam(header, hdus, largest=scale * max(shape[1:]))
            notes.append(note)
            if beam is not None:
                beam = _to_icrs_north(beam, plane, scale, x, y)
    frequency = float(spectral.frequency((shape[0] - 1) / 2))
    plane = replace(
        plane, pixel_scale=scale, beam=beam, frequency=frequency, notes=tuple(text for text in notes if text)
    )
    return Cube(pixels, spectral, plane, beams or None)


def _raw_cube(
    path: Path, readable: Path, index: int, unit: Any, shape: tuple[int, int, int], step: int, lengths: list[int]
) -> CubeSource:
    header = unit.header
    offset = int(unit.fileinfo()["datLoc"])
    dtype = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[header["BITPIX"]]
    _check_length(path, index, readable.stat().st_size, offset + int(np.prod(lengths)) * np.dtype(dtype).itemsize)
    return CubeSource(
        readable.resolve(), index, shape, dtype, offset, step, scratch=readable != path, **_scaling(header)
    )


def _unpack_cube(
    path: Path, readable: Path, index: int, unit: Any, shape: tuple[int, int, int], step: int, scratch: Path | None
) -> CubeSource:
    """Write a tile-compressed cube to the scratch folder as plain float32."""
    scaling = _scaling(unit.header)

    def fill(target: IO[bytes]) -> None:
        with fits.open(readable, memmap=True, do_not_scale_image_data=True) as hdus:
            packed = hdus[index]
            ndim = len(packed.shape)
            for channel in range(shape[0]):
                # Polarisations may lie before or behind the channels; the first one is kept.
                where: list[Any] = [0] * (ndim - 2) + [slice(None), slice(None)]
                where[ndim - spectral_axis_number(packed.header)] = channel
                target.write(to_float32(np.asarray(packed.section[tuple(where)]), **scaling).tobytes())

    try:
        copy = scratch_copy(path, f"{index}.cube.f32", fill, scratch)
    except (InputError, OutputError):
        raise
    except Exception as error:  # each codec has its own errors for damaged data
        raise InputError(
            f"{path}[{index}]: expected a complete tile-compressed cube, it cannot be decompressed "
            f"({_one_line(error)}); fetch it again",
            path=str(path),
        ) from error
    dtype = np.dtype(np.float32).str
    return CubeSource(copy.resolve(), index, shape, dtype, 0, shape[1] * shape[2], scratch=True)
