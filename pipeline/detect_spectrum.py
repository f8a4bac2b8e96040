"""One file of spectra to one catalogue of lines, read from top to bottom: the image's path with one axis less."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from threadpoolctl import threadpool_limits

from models.detections import Detections
from pipeline.default_models import resolve_model
from pipeline.engine_choice import EngineLog
from pipeline.ledger import Ledger
from pipeline.options import DetectOptions
from pipeline.reliability import Calibration
from pipeline.runs import (
    Clock,
    DetectResult,
    Progress,
    file_hash,
    missing_of,
    open_client,
    open_ledger,
    threshold_of,
    version,
)
from pipeline.spectrum_finders import SpectrumFinderSpec, make_spectrum_finder
from pipeline.spectrum_infer import SPECTRA, find_spectra_piece, unpack_spectra
from pipeline.spectrum_lines import Prepared, catalogue_lines
from pipeline.tasks import run_stage
from survey_io import InputError, OptionError
from survey_io.memory import keep_freed_memory
from survey_io.names import file_stem
from survey_io.spectra import Opened, open_spectra
from survey_io.spectrum import Spectrum

# Fewer channels with noise than this are no spectrum to find lines in.
LEAST_CHANNELS = 32
# Log odds of the weightless detector are a chi-square's; of so many places some always stand out.
WEIGHTLESS = Calibration()


@dataclass(frozen=True)
class SpectrumAnalysis:
    """A catalogue of lines before it is written.

    Attributes
    ----------
    table : Table
    prepared : list of Prepared
        The spectra that were searched.
    found : list of Detections
        All candidates of each, also those below the threshold.
    manifest : dict
        Still without timings and hashes.
    """

    table: Table
    prepared: list[Prepared]
    found: list[Detections]
    manifest: dict[str, Any]


def detect_spectrum(path: str | Path, options: DetectOptions, *, progress: Progress | None = None) -> DetectResult:
    """Find and measure the lines of the spectra of one file and write their catalogue.

    Parameters
    ----------
    path : str or Path
        Anything that `survey_io.spectra.open_spectra` reads.
    options : DetectOptions
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    InputError, OptionError, OutputError
        One line each: what was expected, what came, what to do.
    """
    from pipeline.outputs import prepare_output
    from pipeline.spectrum_outputs import write_spectrum_outputs

    path, clock = Path(path), Clock(progress)
    options = resolve_model(options, 1)
    for name in ("sdc1", "sdc2"):
        if name in options.formats:
            what = "images" if name == "sdc1" else "cubes"
            raise OptionError(f"{path}: format {name} is for {what}, this is a spectrum; use fits, votable or another")
    output = prepare_output(options.output)
    with contextlib.ExitStack() as stack:
        hasher = stack.enter_context(ThreadPoolExecutor(1))
        with clock.stage("open"):
            opened = open_spectra(path, hdu=options.hdu, rest_frequency=options.rest_frequency)
            digest = hasher.submit(file_hash, path)
        ledger = open_ledger(output, path, file_stem(path), options)
        stack.callback(ledger.close)
        result = analyse_spectra(opened, path, options, ledger=ledger, clock=clock)
        files, manifest = write_spectrum_outputs(path, result, output, options, clock=clock, digest=digest)
        ledger.close(delete=not ledger.missing)
    return DetectResult(result.table, files, manifest)


def analyse_spectra(
    opened: Opened, path: Path, options: DetectOptions, *, ledger: Ledger | None = None, clock: Clock | None = None
) -> SpectrumAnalysis:
    """Everything between opened spectra and their written catalogue."""
    keep_freed_memory()
    options = resolve_model(options, 1)
    ledger, clock = ledger or Ledger(None, ""), clock or Clock(None)
    chosen, notes = _choose(opened, path)
    # Many small calls of numpy fight for Python's lock: one thread does all pieces, all cores serve its network.
    with threadpool_limits(1, user_api="blas"), open_client(options, 1) as (client, workers):
        with clock.stage("finder"):
            finder, card = make_spectrum_finder(
                options.model, engine=options.engine, precision=options.precision, threads=workers,
                passes=options.passes, device=options.device, client=client,
            )  # fmt: skip
        engines = EngineLog()
        prepared, found = _find(chosen, finder, options, ledger, client, clock, notes, engines)
        if not prepared:
            raise InputError(f"{path}: no spectrum to search for lines: {notes[0]}")
        kept_calibration = card.get("calibration", {}).get("reliability")
        calibration = Calibration(**kept_calibration) if kept_calibration else WEIGHTLESS
        with clock.stage("measure"):
            table = catalogue_lines(
                prepared, found, calibration, threshold_of(card, options), has_network=bool(card)
            )
    manifest = _manifest(path, prepared, finder, card, options, table, notes) | missing_of(ledger)
    manifest["model"] |= engines.summary(finder)
    return SpectrumAnalysis(table, prepared, found, manifest)


def _choose(opened: Opened, path: Path) -> tuple[list[Spectrum], list[str]]:
    """Those of a file's spectra that may be searched, and what is wrong with the others."""
    chosen: list[Spectrum] = []
    notes = [f"left out: {error}" for error in opened.errors]
    for spectrum in opened.spectra:
        problem = _problem(spectrum)
        if problem is None:
            chosen.append(spectrum)
        else:
            notes.append(f"{spectrum.name}: left out: {problem}")
    if not chosen:
        raise InputError(f"{path}: no spectrum to search for lines: {notes[0] if notes else 'the file holds none'}")
    return chosen, notes


def _find(
    chosen: list[Spectrum], finder: SpectrumFinderSpec, options: DetectOptions, ledger: Ledger, client: Any,
    clock: Clock, notes: list[str], engines: EngineLog,
) -> tuple[list[Prepared], list[Detections]]:  # fmt: skip
    """Spectra that could be searched and the lines of each; what is to be said of the others goes to the notes."""
    groups = [chosen[first : first + SPECTRA] for first in range(0, len(chosen), SPECTRA)]
    with clock.stage("detect", len(groups)) as advance:
        run_stage(
            "spectra", find_spectra_piece, [(i, (group,)) for i, group in enumerate(groups)], ledger,
            shared=(finder, options.tile, LEAST_CHANNELS), client=client, advance=advance, network=True,
            max_missing=options.max_missing, where=lambda group: {"spectra": [one.name for one in group]},
        )  # fmt: skip
    prepared, found = [], []
    for number, arrays in ledger.get("spectra"):
        for one, lines, usable in unpack_spectra(groups[number], LEAST_CHANNELS, engines.see(arrays)):
            spectrum = one.channels.spectrum
            if lines is None:
                problem = f"expected at least {LEAST_CHANNELS} channels with noise, got {usable}"
                notes.append(f"{spectrum.name}: left out: {problem}")
                continue
            notes += [f"{spectrum.name}: {note}" for note in spectrum.notes]
            prepared.append(one)
            found.append(lines)
    return prepared, found


def _problem(spectrum: Spectrum) -> str | None:
    if spectrum.is_series:
        return "expected a spectrum, got a light curve (its axis is time); use skysift classify"
    if not np.isfinite(spectrum.flux).any():
        return "expected flux, every channel is blank"
    return None


def _manifest(
    path: Path, prepared: list[Prepared], finder: SpectrumFinderSpec, card: dict, options: DetectOptions, table: Table,
    notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    first = prepared[0].channels.spectrum
    return {
        "input": {
            "path": str(path),
            "shape": [sum(one.channels.count for one in prepared)],
            "spectra": len(prepared),
            "unit": first.flux_unit.to_string(),
            "axis_unit": first.unit.to_string(),
            "rest_frequency_hz": first.rest_frequency,
            "notes": notes,
        },
        "model": {
            "name": options.model, "engine": finder.engine, "precision": finder.precision, "passes": finder.passes,
            "sha256": card.get("sha256", ""), "threshold": threshold_of(card, options),
        },
        "noise": {"median_rms": float(np.nanmedian([np.nanmedian(one.rms) for one in prepared]))},
        "options": options.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("skysift", "numpy", "astropy", "torch", "openvino")},
        "counts": {"lines": len(table), "flagged": int(np.count_nonzero(table["flags"]))},
    }  # fmt: skip
