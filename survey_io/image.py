"""``open_image``: any radio or optical FITS image as an ``Observation``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.wcs import (
    WCS,
    WCSSUB_CELESTIAL,
    InvalidSubimageSpecificationError,
    NonseparableSubimageCoordinateSystemError,
)

from .errors import InputError, OutputError
from .geometry import anchor_pixel, celestial_frame
from .header_check import check_headers
from .headers import header_beam, header_frequency, header_unit, option_beam
from .observation import Beam, Observation
from .pixels import PixelSource, to_float32
from .quiet import quiet
from .scratch import decompressor, scratch_copy, unpack_stream
from .spectral import with_spelled_units

__all__ = ["open_image"]

_STRIP_PIXELS = 2**24


def open_image(
    path: str | os.PathLike[str],
    *,
    hdu: int | str | None = None,
    beam: Beam | tuple[float, float, float] | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> Observation:
    """Open a FITS image without reading its pixels.

    Two axes, or more when the others have length 1, in any order; floats and scaled integers; whole-file
    compression (gzip, bzip2, xz) and tile compression (``.fz``), which are unpacked once to ``scratch``.

    Parameters
    ----------
    path : path-like
    hdu : int or str, optional
        Number (from 0) or EXTNAME of the unit to open. Default: the first image with celestial axes.
    beam : Beam or (major arcsec, minor arcsec, pa deg), optional
        Replaces what the file says.
    scratch : path-like, optional
        Folder for unpacked copies; default is one in the system's temporary folder. A copy is made again only
        when the file changes.

    Returns
    -------
    Observation
        ``beam`` is None, with a note, when the file names none or one of size zero.

    Raises
    ------
    InputError
        When the file is missing, not FITS, cut short, a cube, or has no image with celestial coordinates.
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
            return _observe(path, readable, hdus, hdu, option_beam(beam), folder)


def _readable(path: Path, scratch: Path | None) -> Path:
    """The uncompressed file to read: the path itself, or its unpacked copy."""
    if not path.exists():
        raise InputError(
            f"{path}: expected a FITS image, there is no such file; check the path", path=str(path)
        )
    if not path.is_file():
        raise InputError(f"{path}: expected a FITS image, this is not a file; name the files", path=str(path))
    try:
        opener = decompressor(path)
        readable = path if opener is None else unpack_stream(path, opener, scratch)
        with open(readable, "rb") as file:
            start = file.read(9)
    except PermissionError as error:
        raise InputError(
            f"{path}: may not be read ({error.strerror}); change its permissions", path=str(path)
        ) from error
    if not start:
        raise InputError(f"{path}: expected a FITS image, the file is empty; fetch it again", path=str(path))
    if start != b"SIMPLE  =":
        raise _not_fits(path, f"it begins with {start!r}")
    return readable


def _observe(
    path: Path,
    readable: Path,
    hdus: fits.HDUList,
    wanted: int | str | None,
    beam: Beam | None,
    scratch: Path | None,
) -> Observation:
    index, wcs = _choose(path, hdus, wanted)
    chosen = hdus[index]
    header = chosen.header
    notes = []
    shape, row_axis = _plane(path, index, header, wcs)
    try:
        flat = _celestial(header, wcs, hdus)
        celestial_frame(flat)
        x, y = anchor_pixel(flat, shape)
    except Exception as error:  # wcslib's errors share no base class
        raise InputError(
            f"{path}[{index}]: expected celestial coordinates over the image, its WCS cannot be used "
            f"({_one_line(error)}); correct the header",
            path=str(path),
        ) from error
    if isinstance(chosen, fits.CompImageHDU):
        pixels = _unpack_tiles(path, readable, index, chosen, shape, row_axis, scratch)
    else:
        pixels = _raw_pixels(path, readable, index, chosen, shape)
    unit, note = header_unit(header)
    notes.append(note)
    observation = Observation(
        pixels=pixels,
        wcs=flat,
        unit=unit,
        beam=None,
        frequency=header_frequency(header),
        header=header.copy(),
        pixel_scale=1.0,
        path=path,
    )
    scale = float(np.sqrt(abs(np.linalg.det(observation.jacobian(x, y)))))
    if beam is None:
        beam, note = header_beam(header, hdus, largest=scale * max(shape))
        notes.append(note)
        if beam is not None:
            beam = _to_icrs_north(beam, observation, scale, x, y)
    if beam is not None and beam.minor < 2 * scale:
        notes.append(f"the beam is {beam.minor / scale:.2g} pixels across: below 2 it is not sampled")
    return replace(observation, pixel_scale=scale, beam=beam, notes=tuple(text for text in notes if text))


def _choose(path: Path, hdus: fits.HDUList, wanted: int | str | None) -> tuple[int, WCS]:
    """Index and full WCS of the unit to open: the one asked for, else the first with celestial axes."""
    refusals: list[str] = []
    for index, hdu in _units(path, hdus, wanted):
        wcs, refusal = _celestial_wcs(hdu, hdus)
        if wcs is not None:
            return index, wcs
        refusals.append(f"unit {index} {refusal}")
    raise InputError(
        f"{path}: expected an image with two celestial axes (RA, Dec or galactic), got {'; '.join(refusals)}"
        f"; give an image with a WCS, or choose the unit with --hdu",
        path=str(path),
    )


def _units(path: Path, hdus: fits.HDUList, wanted: int | str | None) -> Iterator[tuple[int, Any]]:
    if wanted is not None:
        name = int(wanted) if str(wanted).isdigit() else str(wanted)
        try:
            index = hdus.index_of(name)
            yield index, hdus[index]
        except (KeyError, IndexError) as error:
            there = ", ".join(f"{i} ({hdu.name or 'no name'})" for i, hdu in enumerate(hdus))
            raise InputError(
                f"{path}: expected a unit {wanted!r}, the file has {there}", path=str(path)
            ) from error
        return
    index = 0
    while True:
        try:
            hdu = hdus[index]  # headers are read one by one: the units behind the right one cost nothing
        except IndexError:
            return
        except (OSError, ValueError, fits.VerifyError) as error:
            raise _not_fits(path, error) from error
        yield index, hdu
        index += 1


def _celestial_wcs(hdu: Any, hdus: fits.HDUList) -> tuple[WCS | None, str]:
    """The WCS of a unit with two celestial axes, else None and what the unit is instead."""
    if not hdu.is_image:
        return None, "is a table"
    header = hdu.header
    naxis = int(header.get("NAXIS", 0))
    if naxis == 0 or min(hdu.shape, default=0) == 0:
        return None, "has no pixels"
    if not 2 <= naxis <= 4:
        return None, f"has {naxis} {'axis' if naxis == 1 else 'axes'}"
    try:
        wcs = WCS(with_spelled_units(header), fobj=hdus)
    except Exception as error:  # wcslib's errors share no base class
        return None, f"has a WCS that cannot be read ({_one_line(error)})"
    if min(wcs.wcs.lng, wcs.wcs.lat) < 0:
        types = ", ".join(
            str(header.get(f"CTYPE{axis + 1}", "none")).strip() or "none" for axis in range(naxis)
        )
        return None, f"has the axes {types}"
    return wcs, ""


def _plane(path: Path, index: int, header: fits.Header, wcs: WCS) -> tuple[tuple[int, int], int]:
    """(ny, nx) of the celestial plane and the numpy axis of its rows; every other axis must have length 1."""
    lengths = [int(header[f"NAXIS{axis + 1}"]) for axis in range(header["NAXIS"])]
    first, second = sorted((wcs.wcs.lng, wcs.wcs.lat))
    if second >= len(lengths):
        raise InputError(
            f"{path}[{index}]: expected celestial axes among the {len(lengths)} axes of the image, "
            f"the WCS puts them at {first + 1} and {second + 1}; correct the header",
            path=str(path),
        )
    extra = [axis for axis in range(len(lengths)) if axis not in (first, second) and lengths[axis] != 1]
    if extra:
        names = ", ".join(
            f"{str(header.get(f'CTYPE{a + 1}', '')).strip() or f'axis {a + 1}'} of {lengths[a]}"
            for a in extra
        )
        raise InputError(
            f"{path}[{index}]: expected an image of one plane, got a cube ({names}); cut one plane "
            f"out of it, or name its spectral axis in CTYPE (FREQ, VRAD, VOPT, VELO, WAVE)",
            path=str(path),
            shape=tuple(lengths[::-1]),
        )
    return (lengths[second], lengths[first]), len(lengths) - 1 - second


def _celestial(header: fits.Header, wcs: WCS, hdus: fits.HDUList) -> WCS:
    """The two celestial axes of a WCS, in the order of the image's axes."""
    try:
        return wcs.sub([WCSSUB_CELESTIAL])
    except (InvalidSubimageSpecificationError, NonseparableSubimageCoordinateSystemError):
        # A matrix mixes the sky with an axis of length 1 (seen after rotating cubes). At the one pixel of
        # that axis the mixing is a constant shift, which the reference pixel can hold.
        sky = sorted((wcs.wcs.lng, wcs.wcs.lat))
        other = [axis for axis in range(wcs.naxis) if axis not in sky]
        matrix = wcs.wcs.get_cdelt()[:, None] * wcs.wcs.get_pc()
        shift = matrix[np.ix_(sky, other)] @ (1.0 - wcs.wcs.crpix[other])
        reference = wcs.wcs.crpix[sky] - np.linalg.solve(matrix[np.ix_(sky, sky)], shift)
        separate = with_spelled_units(header).copy()
        for axis, value in zip(sky, reference, strict=True):
            separate[f"CRPIX{axis + 1}"] = value
        for key in list(separate):
            match = re.fullmatch(r"(?:PC|CD)0*(\d+)_0*(\d+)", key)
            if match and (int(match[1]) - 1 in sky) != (int(match[2]) - 1 in sky):
                del separate[key]
        return WCS(separate, fobj=hdus).sub([WCSSUB_CELESTIAL])


def _raw_pixels(path: Path, readable: Path, index: int, hdu: Any, shape: tuple[int, int]) -> PixelSource:
    header = hdu.header
    offset = int(hdu.fileinfo()["datLoc"])
    dtype = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[header["BITPIX"]]
    expected = offset + shape[0] * shape[1] * np.dtype(dtype).itemsize
    _check_length(path, index, readable.stat().st_size, expected)
    return PixelSource(
        path=readable.resolve(),
        hdu=index,
        shape=shape,
        dtype=dtype,
        offset=offset,
        scratch=readable != path,
        **_scaling(header),
    )


def _unpack_tiles(
    path: Path,
    readable: Path,
    index: int,
    hdu: Any,
    shape: tuple[int, int],
    row_axis: int,
    scratch: Path | None,
) -> PixelSource:
    """Write a tile-compressed image to the scratch folder as plain float32.

    A window of 1152 x 1152 costs 68 ms from a file compressed row by row (its whole rows are decoded) against
    1 ms from the copy, and every pixel is read two or three times; the copy is made at 70 Mpix/s.
    """
    info = hdu.fileinfo()
    # The last block may lack its padding, as in plain images.
    _check_length(path, index, readable.stat().st_size, info["datLoc"] + info["datSpan"] - 2879)
    scaling = _scaling(hdu.header)

    def fill(target: IO[bytes]) -> None:
        with fits.open(readable, memmap=True, do_not_scale_image_data=True) as hdus:
            packed = hdus[index]
            ny, nx = shape
            tile_rows = max(int(packed.tile_shape[row_axis]), 1)
            rows = max(_STRIP_PIXELS // nx // tile_rows, 1) * tile_rows
            for start in range(0, ny, rows):
                strip = packed.section[(slice(None),) * row_axis + (slice(start, min(start + rows, ny)),)]
                target.write(to_float32(np.asarray(strip).reshape(-1, nx), **scaling).tobytes())

    try:
        copy = scratch_copy(path, f"{index}.f32", fill, scratch)
    except (InputError, OutputError):
        raise
    except Exception as error:  # each codec has its own errors for damaged data
        raise InputError(
            f"{path}[{index}]: expected a complete tile-compressed image, it cannot be decompressed "
            f"({_one_line(error)}); fetch it again",
            path=str(path),
        ) from error
    return PixelSource(
        path=copy.resolve(), hdu=index, shape=shape, dtype=np.dtype(np.float32).str, offset=0, scratch=True
    )


def _scaling(header: fits.Header) -> dict[str, Any]:
    integers = int(header["BITPIX"]) > 0
    return {
        "scale": float(header.get("BSCALE", 1.0)),
        "zero": float(header.get("BZERO", 0.0)),
        "blank": int(header["BLANK"]) if integers and "BLANK" in header else None,
    }


def _check_length(path: Path, index: int, got: int, expected: int) -> None:
    if got < expected:
        raise InputError(
            f"{path}[{index}]: expected {expected} bytes from its header, the file ends after {got}; "
            f"it is cut short, fetch it again",
            path=str(path),
            expected=expected,
            got=got,
        )


def _to_icrs_north(beam: Beam, observation: Observation, scale: float, x: float, y: float) -> Beam:
    """Turn a header's position angle, which counts from the north of the image's own frame, to ICRS north."""
    wcs = observation.wcs
    here = wcs.all_pix2world([[x, y]], 0)
    # Towards the equator of the frame: a step past a pole would come back on the other side.
    sign = -1.0 if here[0, wcs.wcs.lat] > 0 else 1.0
    there = here.copy()
    there[0, wcs.wcs.lat] += sign * scale / 3600
    step = (wcs.all_world2pix(there, 0, quiet=True)[0] - (x, y)) * sign
    east, north = observation.jacobian(x, y) @ step
    turn = float(np.degrees(np.arctan2(east, north)))
    # FK5 and ICRS differ by milliarcseconds: the header's number is kept then.
    if not np.isfinite(turn) or abs(turn) < 0.01:
        return beam
    return Beam(beam.major, beam.minor, beam.pa + turn, beam.origin)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _not_fits(path: Path, reason: object) -> InputError:
    return InputError(
        f"{path}: expected a FITS image, this is not one ({' '.join(str(reason).split())[:120]}); "
        f"convert it to FITS or fetch it again",
        path=str(path),
    )
