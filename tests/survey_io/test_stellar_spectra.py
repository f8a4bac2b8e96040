"""The stellar library is read as it is packed, and split by star."""

import csv

import numpy as np
import pytest

from survey_io.datasets.stellar_spectra import CLASSES, read_stellar_spectra, spectral_subtype, split_by_star
from survey_io.errors import InputError

FIELDS = ("objname", "sptype", "class", "teff", "logg", "feh")


def write_library(folder, rows, flux, missing):
    with open(folder / "labels.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(FIELDS)
        writer.writerows(rows)
    np.savez(
        folder / "cflib.npz", flux=flux.astype(np.float32), fill_packed=np.packbits(missing, axis=1),
        wave=3465.6 + 1.6 * np.arange(flux.shape[1], dtype=np.float32), label=np.zeros(len(flux), np.int8),
    )  # fmt: skip


def test_library_is_read(tmp_path):
    flux = np.ones((2, 21))
    missing = np.zeros((2, 21), bool)
    missing[1, 3:5] = True
    rows = [("HD 1", "G2V", "G", "5777", "4.4", "0.0"), ("HD 2", "M", "M", "-2147483647", "-2147483647", "-0.5")]
    write_library(tmp_path, rows, flux, missing)
    library = read_stellar_spectra(tmp_path)
    assert len(library) == 2 and list(library.name) == ["HD 1", "HD 2"]
    assert [CLASSES[k] for k in library.label] == ["G", "M"]
    np.testing.assert_allclose(library.subtype, [4.2, 6.5])
    assert np.isnan(library.teff[1]) and np.isnan(library.logg[1]) and library.feh[1] == -0.5
    assert np.flatnonzero(np.isnan(library.flux[1])).tolist() == [3, 4]
    # The library's wavelengths are of air: 1.0 Angstrom longer in vacuum here.
    assert library.wavelength[0] - 3465.6 == pytest.approx(0.99, abs=0.02)
    assert list(library[np.array([False, True])].name) == ["HD 2"]


def test_what_is_missing_or_does_not_fit_is_said(tmp_path):
    with pytest.raises(InputError, match=r"expected cflib\.npz and labels\.csv"):
        read_stellar_spectra(tmp_path)
    write_library(tmp_path, [("HD 1", "G2V", "G", "", "", "")], np.ones((2, 8)), np.zeros((2, 8), bool))
    with pytest.raises(InputError, match=r"holds 2 spectra and labels\.csv 1 rows"):
        read_stellar_spectra(tmp_path)


@pytest.mark.parametrize(
    ("text", "number"), [("K0.5IIIb", 5.05), ("O9", 0.9), ("G", 4.5), ("B9.5Vn", 1.95), ("K:", 5.5)]
)
def test_subtypes(text, number):
    assert spectral_subtype(text, CLASSES.index(text[0])) == pytest.approx(number)


def test_split_is_fixed_by_name_and_the_same_for_every_class():
    rng = np.random.default_rng(0)
    names = np.array([f"HD {n}" for n in rng.permutation(4000)[:1000]])
    label = rng.integers(0, 3, 1000)
    part = split_by_star(names, label)
    again = rng.permutation(1000)
    assert (split_by_star(names[again], label[again]) == part[again]).all()
    for one in range(3):
        shares = [np.mean(part[label == one] == name) for name in ("train", "validation", "test")]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    doubled = split_by_star(np.r_[names, names], np.r_[label, label])
    assert (doubled[:1000] == doubled[1000:]).all()
