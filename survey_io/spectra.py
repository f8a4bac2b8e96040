"""Opens spectra and light curves in the forms that people have."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from astropy import units as u
from astropy.io import fits

from .errors import InputError, OptionError
from .header_check import check_headers
from .quiet import quiet
from .scratch import decompressor
from .spectra_columns import from_hdu
from .spectra_headers import named
from .spectra_images import image_spectra
from .spectra_tables import table_spectra
from .spectra_text import text_spectra
from .spectral_units import AXIS_KINDS, axis_kind, axis_unit
from .spectrum_build import Given, NotASpectrum, Opened, Place

__all__ = ["SUFFIXES", "Opened", "find_spectra", "open_spectra"]

SUFFIXES = (".fits", ".fit", ".fts", ".ecsv", ".csv", ".tsv", ".txt", ".dat", ".asc", ".ascii", ".vot", ".votable",
            ".xml", ".tbl")  # fmt: skip
_PACKED = (".gz", ".bz2", ".xz")
# Packed spectra are unpacked in memory: a few kilobytes can be made to unpack to any size.
_MOST_UNPACKED = 2**30
# What the cube job (and SoFiA-2) writes beside a source's spectrum.
_BESIDE = re.compile(r"(.+)_(?:cube|mask|mom[012]|chan|snr)\.fits$|(.+)_spec\.txt$")

# Our own tables, which a folder of spectra may hold beside them.
_OURS = re.compile(r".+_(?:truth|classes|cat)\.(?:fits|vot|ecsv|csv|txt)$")


def open_spectra(
    path: str | os.PathLike[str],
    *,
    hdu: int | str | None = None,
    unit: str | u.UnitBase | None = None,
    rest_frequency: float | None = None,
    air: bool | None = None,
) -> Opened:
    """All spectra, or light curves, of a file.

    Read here, from the content of the file and not by its name: FITS images of one axis or of rows, with a linear or
    logarithmic axis (WCS, IRAF's keywords, its multispec but for splines, SDSS' and LAMOST's coefficients); FITS
    tables with a bin or a spectrum in each row (SDSS, LAMOST, HST, JWST, ESO, Kepler and TESS light curves, what the
    cube job extracts); VOTable, ECSV, IPAC and CDS tables, CSV and plain columns; all also packed with gzip, bzip2 or
    xz. Other FITS files that specutils knows by their keywords (APOGEE, 6dFGS, MUSCLES, PFS, DESI, multispec with
    axes that are no line ...) are left to it.

    Parameters
    ----------
    path : path-like
    hdu : int or str, optional
        Number (from 0) or EXTNAME of the FITS unit. Default: the first with spectra, and those of the same name.
    unit : str or astropy Unit, optional
        Of the axis, in place of what the file says; "log(Angstrom)" for logarithms to base 10.
    rest_frequency : float, optional
        Hz, in place of what the file says.
    air : bool, optional
        Whether wavelengths are of air, in place of what the file says.

    Returns
    -------
    Opened
        ``spectra``, and an error for each spectrum among several that cannot be used.

    Raises
    ------
    InputError
        When the file cannot be read, holds no spectrum, or its only one cannot be used.
    OptionError
        When ``unit`` is not that of an axis.
    """
    path = Path(path)
    given = Given(*_option_unit(unit), rest_frequency, air)
    place = Place(str(path), _stem(path))
    content, packed = _content(path, place)
    if content.startswith(b"SIMPLE  ="):
        return _open_fits(path, content if packed else None, hdu, place, given)
    if hdu is not None:
        raise place.error(f"expected FITS for the unit {hdu!r}, this is not FITS; leave out --hdu")
    content = content if packed or len(content) < _HEAD else path.read_bytes()
    try:
        return text_spectra(content, place, given)
    except NotASpectrum as reason:
        raise place.error(f"expected a spectrum, the table {reason}; name its columns wavelength and flux") from None


def find_spectra(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files to open: those named, and all of a known suffix in the folders named and below, sorted.

    Of what the cube job writes for a source, a folder gives the spectrum only, and once; our own catalogues and truth
    tables in it are passed over.

    Raises
    ------
    InputError
        When one does not exist, or a folder holds no such file.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file() and _is_known(one.relative_to(path)))
            chosen = [one for one in inside if not _is_beside(one)]
            if not chosen:
                raise InputError(
                    f"{path}: expected spectra in the folder, it has no file that ends in {', '.join(SUFFIXES)} (or "
                    "these and .gz); name the files",
                    path=str(path),
                )
            found.update(dict.fromkeys(chosen))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(
                f"{path}: expected a spectrum or a folder of spectra, there is no such file; check the path",
                path=str(path),
            )
    return list(found)


_HEAD = 1 << 16


def _option_unit(unit: str | u.UnitBase | None) -> tuple[u.UnitBase | None, bool]:
    if unit is None or isinstance(unit, u.UnitBase):
        found, log = unit, False
    else:
        found, log = axis_unit(unit)
    if unit is not None and (found is None or axis_kind(found) is None):
        raise OptionError(f"expected the unit of {AXIS_KINDS} (Angstrom, nm, GHz, km/s, d), got {str(unit)!r}")
    return found, log


def _content(path: Path, place: Place) -> tuple[bytes, bool]:
    """The first bytes of a file, or all of one that was packed, and whether it was."""
    if not path.exists():
        raise place.error("expected a spectrum, there is no such file; check the path")
    if not path.is_file():
        raise place.error("expected a spectrum, this is not a file; name the files")
    try:
        opener = decompressor(path)
        with open(path, "rb") if opener is None else opener(path, "rb") as file:
            content = file.read(_HEAD if opener is None else _MOST_UNPACKED + 1)
    except PermissionError as error:
        raise place.error(f"may not be read ({error.strerror}); change its permissions") from error
    except Exception as error:  # each packer has its own errors for damaged files
        if not isinstance(error, (OSError, EOFError, ValueError)) and type(error).__module__ not in ("zlib", "_lzma"):
            raise
        words = " ".join(str(error).split())[:120]
        raise place.error(
            f"expected a complete packed file, it cannot be unpacked ({words}); fetch it again"
        ) from error
    if not content:
        raise place.error("expected a spectrum, the file is empty; fetch it again")
    if len(content) > _MOST_UNPACKED:
        size = f"{_MOST_UNPACKED / 2**30:g} GiB"
        raise place.error(f"expected spectra, the file unpacks to more than {size}; unpack it first if it shall be so")
    return content, opener is not None


def _open_fits(path: Path, content: bytes | None, wanted: int | str | None, place: Place, given: Given) -> Opened:
    size = path.stat().st_size if content is None else len(content)
    check_headers(path if content is None else io.BytesIO(content), name=path)
    with quiet():
        try:
            # A file that is opened here is closed here, whatever astropy finds in it.
            with (
                open(path, "rb") if content is None else io.BytesIO(content) as file,
                fits.open(file, memmap=content is None) as hdus,
            ):
                return _units(hdus, size, wanted, place, given)
        except NotASpectrum as reason:
            if wanted is None and not reason.certain:
                opened = _through_specutils(path, given)
                if opened is not None:
                    return opened
            raise place.error(f"expected a spectrum, {reason}") from None
        except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, fits.VerifyError) as error:
            words = " ".join(str(error).split())[:120] or type(error).__name__
            raise place.error(f"expected a FITS file, it cannot be read ({words}); fetch it again") from error


def _units(hdus: fits.HDUList, size: int, wanted: int | str | None, place: Place, given: Given) -> Opened:
    """Spectra of the unit asked for, else of the first that has any and of those that bear its name."""
    if wanted is not None:
        name = int(wanted) if str(wanted).isdigit() else str(wanted)
        try:
            chosen = hdus.index_of(name)
            hdus[chosen]
        except (KeyError, IndexError):
            there = ", ".join(f"{i} ({hdu.name or 'no name'})" for i, hdu in enumerate(hdus))
            raise place.error(f"expected a unit {wanted!r}, the file has {there}") from None
        return _unit(hdus, chosen, size, place, given)
    refusals, parts, broken, first, certain = [], [], [], None, False
    for index, hdu in enumerate(hdus):
        if first is not None and (not first.name or hdu.name != first.name or type(hdu) is not type(first)):
            continue
        try:
            parts.append((index, _unit(hdus, index, size, place, given)))
            first = first or hdu
        except NotASpectrum as reason:
            refusals.append(f"unit {index} {reason}")
            certain |= reason.certain
        except InputError as error:
            # Another unit may hold what this one does not.
            (broken if first is None else parts).append((index, Opened((), (error,))))
    if not parts and broken:
        raise broken[0][1].errors[0]
    if not parts:
        raise NotASpectrum("; ".join(refusals) or "it has no units", certain=certain)
    if len(parts) == 1:
        return parts[0][1]
    return _joined(parts)


def _unit(hdus: fits.HDUList, index: int, size: int, place: Place, given: Given) -> Opened:
    hdu = hdus[index]
    meta: Mapping[str, Any] = {**_keywords(hdus[0].header), **_keywords(hdu.header)}
    if not (hdu.is_image or isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))):
        raise NotASpectrum("is neither a table nor an image")
    info = hdu.fileinfo()
    if info and not isinstance(hdu, fits.CompImageHDU):
        # The last block may lack its padding.
        expected = info["datLoc"] + _data_bytes(hdu.header)
        if size < expected:
            raise place.error(
                f"expected {expected} bytes by its headers, the file ends after {size}: it is cut short; fetch it again"
            )
    if hdu.is_image:
        return image_spectra(hdus, index, meta, place, given)
    return table_spectra(from_hdu(hdu, meta), named(place, meta), given)


def _data_bytes(header: fits.Header) -> int:
    lengths = [int(header[f"NAXIS{axis + 1}"]) for axis in range(int(header["NAXIS"]))]
    values = math.prod(lengths) if lengths else 0
    return abs(int(header["BITPIX"])) // 8 * (int(header.get("PCOUNT", 0)) + values) * int(header.get("GCOUNT", 1))


def _joined(parts: list[tuple[int, Opened]]) -> Opened:
    """Spectra of several units, told apart by the number of their unit."""
    spectra, errors = [], []
    for index, part in parts:
        errors += part.errors
        for one in part.spectra:
            name = f"{one.name} {index}" if len(part.spectra) == 1 else f"{one.name} ({index})"
            spectra.append(replace(one, name=name, row=index if one.row is None else one.row))
    return Opened(tuple(spectra), tuple(errors))


def _keywords(header: fits.Header) -> dict[str, Any]:
    return {key: value for key, value in header.items() if key not in ("COMMENT", "HISTORY", "")}


def _through_specutils(path: Path, given: Given) -> Opened | None:
    """What specutils reads of a file that it knows by its keywords; None where it knows none."""
    from .spectra_library import library_spectra

    return library_spectra(path, given)


def _stem(path: Path) -> str:
    name = path.name
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return name.rsplit(".", 1)[0] if "." in name.strip(".") else name


def _is_known(path: Path) -> bool:
    if any(part.startswith(".") for part in path.parts):
        return False
    name = path.name.lower()
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    return name.endswith(SUFFIXES)


def _is_beside(path: Path) -> bool:
    match = _BESIDE.match(path.name)
    if _OURS.match(path.name):
        return True
    return bool(match) and path.with_name(f"{match[1] or match[2]}_spec.fits").exists()
