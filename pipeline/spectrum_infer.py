"""The pieces of work of a file of spectra, each a plain function of small arguments: what Dask workers are sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.detections import Detections
from pipeline.ledger import Arrays
from pipeline.spectrum_lines import Prepared, prepare_spectrum, search_spectra
from survey_io.channels import lay_out_channels
from survey_io.spectrum import Spectrum

# Spectra of one piece of work: full batches for the network, and some pieces for each worker.
SPECTRA = 32


def find_spectra_piece(finder: Any, tile: int, least: int, spectra: list[Spectrum]) -> Arrays:
    """Continuum, noise and lines of some spectra; those with less than so many channels with noise are not searched."""
    prepared = [prepare_spectrum(one) for one in spectra]
    usable = [int(np.isfinite(one.snr).sum()) for one in prepared]
    searched = [one for one, count in zip(prepared, usable, strict=True) if count >= least]
    found = list(search_spectra(searched, finder, tile=tile))
    return {
        "level": np.concatenate([one.level for one in prepared]),
        "rms": np.concatenate([one.rms for one in prepared]),
        "usable": np.array(usable),
        "lines": np.array([len(lines) for lines in found], int),
        **(Detections.concatenate(found) if found else Detections.empty(1)).to_arrays(),
        **(finder.told() if searched else {}),
    }


def unpack_spectra(
    spectra: list[Spectrum], least: int, arrays: Arrays
) -> list[tuple[Prepared, Detections | None, int]]:
    """From a piece's arrays each spectrum prepared, its lines (None where not searched), its usable channels."""
    lines = Detections.from_arrays({n: a for n, a in arrays.items() if n not in ("level", "rms", "usable", "lines")})
    counts, at, first, unpacked = iter(arrays["lines"]), 0, 0, []
    for spectrum, usable in zip(spectra, arrays["usable"], strict=True):
        channels = lay_out_channels(spectrum)
        part = slice(at, at + channels.count)
        prepared = Prepared(channels, channels.fill(spectrum.flux), arrays["level"][part], arrays["rms"][part])
        at = part.stop
        own = None
        if usable >= least:
            count = int(next(counts))
            own, first = lines[np.arange(first, first + count)], first + count
        unpacked.append((prepared, own, int(usable)))
    return unpacked
