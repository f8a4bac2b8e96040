"""Ways to write a spectrum as a FITS image, and to read what must be one spectrum or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from survey_io.errors import InputError
from survey_io.spectra import open_spectra
from survey_io.spectrum import Spectrum


@pytest.fixture
def only() -> Callable[..., Spectrum]:
    """``only(path, **options)``: the one spectrum of a file, in order."""

    def read(path: Path, **options: Any) -> Spectrum:
        opened = open_spectra(path, **options)
        assert len(opened.spectra) == 1 and opened.errors == ()
        spectrum = opened.spectra[0]
        assert (np.diff(spectrum.axis) > 0).all()
        assert spectrum.axis.dtype == spectrum.flux.dtype == np.float64
        return spectrum

    return read


@pytest.fixture
def image() -> Callable[..., Path]:
    """``image(path, data, **keywords)``: write a FITS image; two underscores stand for a hyphen."""

    def write(path: Path, data: np.ndarray, **keywords: Any) -> Path:
        header = fits.Header()
        for key, value in keywords.items():
            header[key.replace("__", "-")] = value
        fits.PrimaryHDU(data, header).writeto(path)
        return path

    return write


@pytest.fixture
def refusal() -> Callable[..., str]:
    """``refusal(path, **options)``: the line in which a file is refused."""

    def read(path: Path, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            open_spectra(path, **options)
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
        return caught.value.message

    return read
