"""The Indo-US library of stellar spectra (Valdes et al. 2004, ApJS 152, 251): ``cflib.npz`` and ``labels.csv``."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from survey_io.errors import InputError
from survey_io.spectral import air_index

CLASSES = ("O", "B", "A", "F", "G", "K", "M")
# Shares of each class's stars that calibrate and that are reported on; the others are trained on.
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
# What labels.csv writes where the library gives no value.
_UNKNOWN = -1e6


@dataclass(frozen=True)
class StellarLibrary:
    """Spectra and labels of N stars.

    Attributes
    ----------
    name : ndarray of str, shape (N,)
    wavelength : ndarray, shape (L,)
        Angstrom, vacuum.
    flux : ndarray of float32, shape (N, L)
        Relative flux density, NaN where it was not observed.
    label : ndarray of int, shape (N,)
        Index into `CLASSES`.
    subtype : ndarray, shape (N,)
        Spectral type as a number: 0 at O0, 1 at B0, ..., 6.5 at M5.
    teff, logg, feh : ndarray, shape (N,)
        K, log10 of cm/s2, dex; NaN where the library has none.
    """

    name: np.ndarray
    wavelength: np.ndarray
    flux: np.ndarray
    label: np.ndarray
    subtype: np.ndarray
    teff: np.ndarray
    logg: np.ndarray
    feh: np.ndarray

    def __len__(self) -> int:
        return len(self.name)

    def __getitem__(self, rows: np.ndarray) -> StellarLibrary:
        columns = {key: value[rows] for key, value in vars(self).items() if key != "wavelength"}
        return StellarLibrary(wavelength=self.wavelength, **columns)


def read_stellar_spectra(folder: str | Path) -> StellarLibrary:
    """Read the packed library.

    Parameters
    ----------
    folder : path
        Holds ``cflib.npz`` (flux, fill_packed, wave in air) and ``labels.csv`` (objname, class, sptype, teff, logg, feh
        of the same rows).

    Raises
    ------
    InputError
        When a file is missing or its rows do not fit together.
    """
    folder = Path(folder)
    try:
        with np.load(folder / "cflib.npz", allow_pickle=False) as packed:
            arrays = {key: packed[key] for key in ("flux", "fill_packed", "wave")}
        with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder}: expected cflib.npz and labels.csv of the Indo-US stellar library, got: {error}"
        ) from error
    flux = arrays["flux"].astype(np.float32)
    if len(rows) != len(flux):
        raise InputError(f"{folder}: cflib.npz holds {len(flux)} spectra and labels.csv {len(rows)} rows: not one set")
    missing = np.unpackbits(arrays["fill_packed"], axis=1)[:, : flux.shape[1]].astype(bool)
    flux[missing] = np.nan
    numbers = {
        key: np.array([float(row[key]) if row[key] else np.nan for row in rows]) for key in ("teff", "logg", "feh")
    }
    wave = arrays["wave"].astype(np.float64)
    label = np.array([CLASSES.index(row["class"]) for row in rows])
    return StellarLibrary(
        name=np.array([row["objname"] for row in rows]),
        wavelength=wave * air_index(1e-10 * wave),
        flux=flux,
        label=label,
        subtype=np.array([spectral_subtype(row["sptype"], k) for row, k in zip(rows, label, strict=True)]),
        **{key: np.where(value < _UNKNOWN, np.nan, value) for key, value in numbers.items()},
    )


def spectral_subtype(text: str, label: int) -> float:
    """A spectral type as a number, its class's middle where no subclass is given: "G2V" is 4.2."""
    found = re.match(r"[OBAFGKM](\d(?:\.\d)?)", text.strip())
    return label + (float(found.group(1)) / 10 if found else 0.5)


def split_by_star(names: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Part of each star, "train", "validation" or "test": by the hash of its name, the same shares of every class.

    Parameters
    ----------
    names : ndarray of str, shape (N,)
        All spectra of one star go into one part.
    label : ndarray of int, shape (N,)

    Returns
    -------
    ndarray of str, shape (N,)
    """
    part = np.full(len(names), "train", dtype="<U10")
    order = np.array([hashlib.sha256(str(name).encode()).hexdigest() for name in names])
    for one in np.unique(label):
        rows = np.flatnonzero(label == one)
        place = np.unique(order[rows], return_inverse=True)[1]
        share = (place + 0.5) / (place.max() + 1)
        part[rows[share < TEST_SHARE + VALIDATION_SHARE]] = "validation"
        part[rows[share < TEST_SHARE]] = "test"
    return part
