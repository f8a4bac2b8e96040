"""Spectra in FITS images: one along the only axis, or several in rows, with the axis in the header in any dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits

from .errors import InputError
from .spectra_headers import HeaderAxis, header_air, header_axis, iraf_words, named
from .spectra_multispec import multispec_axis
from .spectral import spectral_axis_number
from .spectral_units import axis_unit
from .spectrum import Spectrum
from .spectrum_build import Given, NotASpectrum, Opened, Place, build_spectrum, collect
from .spectrum_masks import mask_bits

__all__ = ["image_spectra"]

_SKY = ("RA", "DEC", "GLON", "GLAT", "ELON", "ELAT")
# Extensions that go with a flux, by name.
_COMPANIONS = {
    "error": ("ERR", "ERROR", "ERRS", "SIGMA", "STD", "STDEV", "STDDEV", "NOISE", "UNCERT", "FLUX_ERR", "STAT"),
    "weight": ("IVAR", "INVVAR", "FLUX_IVAR"),
    "variance": ("VAR", "VARIANCE"),
    "mask": ("MASK", "DQ", "QUAL", "ANDMASK", "FMASK", "PIXMASK"),
    "axis": ("WAVELENGTH", "WAVE", "LAMBDA", "LAM", "WAVELENGTHS", "LOGLAM", "FREQUENCY"),
}
# Surveys whose rows are the arrays of one spectrum: telescope to the rows' meaning.
_STACKS = {
    "LAMOST": {"flux": 0, "weight": 1, "axis": 2, "mask": 3},
    "SDSS": {"flux": 0, "error": 2, "mask": 3},
}


def image_spectra(hdus: fits.HDUList, index: int, meta: Mapping[str, Any], place: Place, given: Given) -> Opened:
    """All spectra of an image unit.

    Parameters
    ----------
    hdus : HDUList
    index : int
    meta : mapping
        Keywords of the unit and of the file.
    place : Place
    given : Given

    Raises
    ------
    NotASpectrum
        When it has no pixels, no axis of a spectrum, or is an image or a cube of the sky.
    InputError
        When its axis has a wrong unit, or its only spectrum cannot be used.
    """
    header = hdus[index].header
    lengths = [int(header[f"NAXIS{axis + 1}"]) for axis in range(int(header.get("NAXIS", 0)))]
    long = [axis + 1 for axis, length in enumerate(lengths) if length > 1]
    if not long:
        raise NotASpectrum("has no pixels" if 0 in lengths or not lengths else "has one pixel")
    sky = [axis for axis in long if str(header.get(f"CTYPE{axis}", "")).strip().upper().split("-")[0] in _SKY]
    spectral = spectral_axis_number(header)
    if len(sky) > 1 or (sky and len(long) > 1):
        what = "a cube of the sky" if len(long) > 2 else "an image of the sky"
        raise NotASpectrum(f"is {what}: `skysift detect` reads it", certain=True)
    number = spectral if spectral in long else long[0]
    if len(long) > 3 or (len(long) == 3 and "BANDID1" not in header):
        raise NotASpectrum("is a cube without celestial axes")
    place = named(place, meta)
    data = np.moveaxis(np.asarray(hdus[index].data), len(lengths) - number, -1)
    if _multispec(header):
        # Bands, orders, pixels.
        rows = data.reshape(-1, *data.shape[-2:]) if data.ndim > 2 else data.reshape(1, -1, data.shape[-1])
        return collect(_orders(header, rows, meta, place, given))
    bands, rows = _bands(header, data)
    telescope = str(meta.get("TELESCOP", "")).upper()
    stack = next((rule for name, rule in _STACKS.items() if telescope.startswith(name)), None)
    if stack is not None and len(rows) == 5:
        return collect([_stacked(header, rows, stack, meta, place, given)])
    beside = {kind: _companion(hdus, index, names, lengths, number) for kind, names in _COMPANIONS.items()}
    axes = _companion_axis(hdus, index, beside["axis"], rows.shape, given)
    axis = header_axis(header, number, rows.shape[1], meta, place, given) if axes is None else axes[0]
    if "error" in bands:
        beside["error"] = bands["error"]

    def spectra() -> Iterator[Spectrum | InputError]:
        for row, flux in enumerate(rows):
            where = place if len(rows) == 1 else Place(place.path, _row_name(header, row, place), row)
            here = axis if axes is None or len(axes) == 1 else axes[row]
            extra = {kind: None if array is None else array[row] for kind, array in beside.items() if kind != "axis"}
            yield _attempt(here, flux, extra, header, meta, where)

    return collect(spectra())


def _attempt(
    axis: HeaderAxis, flux: np.ndarray, beside: Mapping[str, np.ndarray | None], header: fits.Header,
    meta: Mapping[str, Any], place: Place,
) -> Spectrum | InputError:  # fmt: skip
    mask, bad = beside.get("mask"), None
    if mask is not None:
        bits = mask_bits(meta) if str(meta.get("TELESCOP", "")).upper().startswith(("SDSS", "LAMOST")) else None
        flags = np.nan_to_num(mask).astype(np.int64)
        bad = (flags != 0) if bits is None else (flags & bits != 0)
    try:
        return build_spectrum(
            place, axis.values, flux, unit=axis.unit, flux_text=header.get("BUNIT"), error=beside.get("error"),
            weight=beside.get("weight"), variance=beside.get("variance"), bad=bad, air=axis.air,
            convention=axis.convention, rest_frequency=axis.rest_frequency, notes=axis.notes,
        )  # fmt: skip
    except InputError as refusal:
        return refusal


def _stacked(
    header: fits.Header, rows: np.ndarray, stack: Mapping[str, int], meta: Mapping[str, Any], place: Place, given: Given
) -> Spectrum | InputError:
    beside = {kind: rows[row] for kind, row in stack.items() if kind not in ("flux", "axis")}
    bad = beside.get("error")
    if bad is not None:
        # No noise is how these files mark what was not observed.
        beside["mask"] = np.where(bad > 0, beside["mask"], -1)
    values = rows[stack["axis"]] if "axis" in stack else None
    if values is not None and (np.diff(values) > 0).all():
        axis = HeaderAxis(np.asarray(values, float), u.Angstrom, air=bool(given.air))
    else:
        axis = header_axis(header, 1, rows.shape[1], meta, place, given)
    return _attempt(axis, rows[stack["flux"]], beside, header, meta, place)


def _multispec(header: fits.Header) -> bool:
    ctype = str(header.get("CTYPE1", "")).strip().upper()
    return ctype.startswith("MULTISPE") or iraf_words(header, 0).get("system") == "multispec"


def _orders(
    header: fits.Header, bands: np.ndarray, meta: Mapping[str, Any], place: Place, given: Given
) -> Iterator[Spectrum | InputError]:
    """IRAF's multispec: a row and its axis after the other."""
    words = iraf_words(header, 2)
    unit = given.unit or axis_unit(iraf_words(header, 1).get("units"))[0] or u.Angstrom
    rows = bands[0]
    sigma = _sigma(header, len(bands))
    for row, flux in enumerate(rows):
        where = place if len(rows) == 1 else Place(place.path, _row_name(header, row, place), row)
        axis = HeaderAxis(multispec_axis(words, row), unit, air=header_air(header, 1, meta, given))
        used = slice(len(axis.values))
        beside = {} if sigma is None else {"error": bands[sigma][row][used]}
        yield _attempt(axis, flux[used], beside, header, meta, where)


def _bands(header: fits.Header, data: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of fluxes, and IRAF's band of errors where there is one."""
    if "BANDID1" not in header or data.ndim < 3:
        return {}, data.reshape(-1, data.shape[-1])
    bands = data.reshape(data.shape[0], -1, data.shape[-1])
    sigma = _sigma(header, len(bands))
    return ({} if sigma is None else {"error": bands[sigma]}), bands[0]


def _sigma(header: fits.Header, bands: int) -> int | None:
    return next((band for band in range(bands) if "sigma" in str(header.get(f"BANDID{band + 1}", ""))), None)


def _row_name(header: fits.Header, row: int, place: Place) -> str:
    title = str(header.get(f"APID{row + 1}", "")).strip()
    return title or f"{place.name} {row}"


def _companion(
    hdus: fits.HDUList, index: int, names: tuple[str, ...], lengths: list[int], number: int
) -> np.ndarray | None:
    """Rows of the extension that goes with a flux, by its name; None where there is none of its shape."""
    for other, hdu in enumerate(hdus):
        if other == index or not hdu.is_image or hdu.name.upper() not in names or hdu.ver != hdus[index].ver:
            continue
        shape = [int(hdu.header[f"NAXIS{axis + 1}"]) for axis in range(int(hdu.header.get("NAXIS", 0)))]
        if shape == lengths:
            return np.moveaxis(np.asarray(hdu.data), len(lengths) - number, -1).reshape(-1, lengths[number - 1])
        if names is _COMPANIONS["axis"] and shape == [lengths[number - 1]]:
            return np.asarray(hdu.data)[None]
    return None


def _companion_axis(
    hdus: fits.HDUList, index: int, values: np.ndarray | None, shape: tuple[int, ...], given: Given
) -> list[HeaderAxis] | None:
    if values is None:
        return None
    hdu = next(hdu for hdu in hdus if hdu.is_image and hdu.name.upper() in _COMPANIONS["axis"])
    unit, log = axis_unit(hdu.header.get("BUNIT"))
    log = log or hdu.name.upper().startswith("LOG")
    notes = ()
    if given.unit is None and unit is None:
        if hdu.name.upper() == "FREQUENCY":
            return None
        notes = (f"no unit of the extension {hdu.name}: taken as Angstrom",)
    air = header_air(hdu.header, 1, hdu.header, given)
    return [
        HeaderAxis(10.0 ** np.asarray(row, float) if log else np.asarray(row, float), given.unit or unit or u.Angstrom,
              rest_frequency=given.rest_frequency, air=air, notes=notes)
        for row in values
    ]  # fmt: skip


