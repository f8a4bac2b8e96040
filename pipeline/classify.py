"""Spectra to a table of classes, read from top to bottom."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from models.answers import AnswerCalibration
from models.engines.chain import ChainEngine
from models.engines.choose import Choice
from models.registry import get_model, list_models
from models.weights import exact_name, find_weights, load_weights, read_card
from pipeline.class_table import build_class_table, describe
from pipeline.classify_options import ClassifyOptions
from pipeline.engine_choice import load_choice, pick_engine
from pipeline.ledger import Ledger
from pipeline.local_workers import Threads, local_workers
from pipeline.outputs import prepare_output
from pipeline.place import place, told_windows
from pipeline.runs import Clock, Progress, version
from pipeline.tasks import run_stage
from survey_io.catalogue import write_catalogue
from survey_io.errors import InputError, OptionError, SkysiftError
from survey_io.spectra import find_spectra, open_spectra
from survey_io.spectral_grid import SpectralGrid
from survey_io.spectrum import Spectrum

ENDINGS = {"fits": ".fits", "votable": ".vot", "parquet": ".parquet", "ecsv": ".ecsv", "csv": ".csv"}
# Spectra given to the network at once, and files of one piece of work: what an interruption costs.
BATCH, FILES = 16, 64
# Batches that may wait for the network.
AHEAD = 2


@dataclass(frozen=True)
class ClassifyResult:
    """What came of one call.

    Attributes
    ----------
    table : Table
        One row a spectrum.
    files : dict of Path
        Written files by kind: the formats, "pictures" (their folder), "manifest".
    manifest : dict
        Inputs, options, versions, timings, counts.
    errors : tuple of str
        One line for every file or spectrum that could not be used.
    """

    table: Table
    files: dict[str, Path]
    manifest: dict[str, Any]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class ClassifierSpec:
    """What a worker needs to classify: small, hashable, picklable. The fields are those of `ClassifyOptions`."""

    model: str
    engine: str = "auto"
    precision: str = "f32"
    threads: int = 1
    hdu: int | str | None = None
    unit: str | None = None
    air: bool | None = None
    rest_frequency: float | None = None
    device: str = "auto"


def classify(paths: list[Path], options: ClassifyOptions, *, progress: Progress | None = None) -> ClassifyResult:
    """Classify all spectra, or with a model of photographs all pictures, of files and folders and write one table.

    Parameters
    ----------
    paths : list of Path
        Files in any form that `survey_io.spectra.open_spectra` reads, or folders of such.
    options : ClassifyOptions
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    ClassifyResult
        Its errors tell what was left out.

    Raises
    ------
    InputError
        When not one spectrum could be used: all reasons are in ``fields["errors"]``.
    OptionError, OutputError
    """
    clock = Clock(progress)
    options = options.with_changes(model=exact_name(options.model))
    card = read_card(_checked(options.model))
    if get_model(card.model).reads == "photograph":
        from pipeline.classify_pictures import classify_pictures

        return classify_pictures(paths, options, card, progress=progress)
    with clock.stage("find"):
        files, errors = _find(paths)
    output = prepare_output(options.output)
    name = card.model
    cores = options.workers or os.cpu_count() or 1
    workers = min(cores, max(len(files), 1))
    spec = ClassifierSpec(
        options.model, options.engine, options.precision, cores, options.hdu, options.unit, options.air,
        options.rest_frequency, options.device,
    )  # fmt: skip
    groups = [files[first : first + FILES] for first in range(0, len(files), FILES)]
    if len(groups) < workers and files:
        size = -(-len(files) // workers)
        groups = [files[first : first + size] for first in range(0, len(files), size)]
    ledger = _open_ledger(output, files, options, card.sha256, name)
    try:
        with clock.stage("classify", max(len(groups), 1)) as advance, local_workers(Threads, workers) as client:
            pieces = [(i, ([str(path) for path in group], spec)) for i, group in enumerate(groups)]
            run_stage("classify", classify_files, pieces, ledger, client=client, advance=advance)
            parts = [arrays for _, arrays in ledger.get("classify")]
        errors += [str(line) for part in parts for line in part["errors"]]
        parts = [part for part in parts if len(part["name"])]
        if not parts:
            raise InputError(errors[0] if errors else "no spectra were given", errors=tuple(errors))
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0] if key != "errors"}
        module, _, engine = load_classifier(spec)
        threshold = options.threshold if options.threshold is not None else card.threshold or 0.5
        table = build_class_table(columns, module.answers, module.grid, card.calibration, threshold)
        manifest = _manifest(table, columns, files, options, card, errors, module.grid)
        manifest["model"] |= engine_summary(engine, spec)
        written = write_table(table, name, output, options, manifest, files, clock)
        if options.pictures:
            with clock.stage("pictures"):
                written["pictures"] = _draw(table, spec, name, output, options)
        finish(manifest, written, output / f"{name}_run.json", clock)
        ledger.close(delete=True)
    finally:
        ledger.close()
    return ClassifyResult(table, written, manifest, tuple(errors))


def _checked(model: str) -> str:
    """The name of weights, after making sure that they are a classifier's."""
    name = read_card(find_weights(model)).model
    if get_model(name).kind != "classifier":
        raise OptionError(
            f"model {model!r} detects, it does not classify: use 'skysift detect', or one of "
            f"{', '.join(list_models(kind='classifier'))}"
        )
    return model


def _find(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """All files, and a line for each path that leads to none."""
    files: dict[Path, None] = {}
    errors = []
    for path in paths:
        try:
            files.update(dict.fromkeys(find_spectra([path])))
        except SkysiftError as error:
            errors.append(error.message)
    return list(files), errors


def _open_ledger(output: Path, files: list[Path], options: ClassifyOptions, weights: str, name: str) -> Ledger:
    """The ledger of this call, keyed by all that decides its answers."""
    chosen = options.model_dump(mode="json", exclude={"output", "device", "formats", "pictures", "fresh", "threshold"})
    state = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    key = json.dumps([chosen, state, weights, version("skysift")], sort_keys=True)
    target = output / f".{name}_classify.ledger"
    if options.fresh:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
    return Ledger(target, hashlib.sha256(key.encode()).hexdigest())


def load_classifier(spec: ClassifierSpec) -> tuple[Any, Any, Any]:
    """Network, card and engine of a spec, loaded once in a process, by whichever thread comes first."""
    with _loading:
        return _load(spec)


@lru_cache(maxsize=4)
def _load(spec: ClassifierSpec) -> tuple[Any, Any, Any]:
    module, card = load_weights(spec.model)
    return module, card, load_choice(spec.model, _choice(spec), spec.threads)


@lru_cache(maxsize=4)
def _choice(spec: ClassifierSpec) -> Choice:
    return pick_engine(spec.model, engine=spec.engine, precision=spec.precision, device=spec.device)


def engine_summary(engine: ChainEngine, spec: ClassifierSpec) -> dict[str, Any]:
    """For the manifest: what computed, why, and what failed."""
    return {
        "engine": engine.name, "precision": engine.precision, "device": engine.way.device, "why": _choice(spec).line,
        "engine_notes": engine.take_notes(),
    }  # fmt: skip


_loading = threading.Lock()


def classify_files(paths: list[str], spec: ClassifierSpec) -> dict[str, np.ndarray]:
    """Raw answers for all spectra of some files, and what is told of each: one piece of work.

    Of a light curve with several windows they are those of one, see `pipeline.place`.

    Returns
    -------
    dict of ndarray
        ``raw`` (N, outputs), ``name``, ``path``, ``row``, ``seen``, ``low``, ``high``, ``snr``, ``peak_snr``,
        ``flags``, ``notes`` of shape (N,); ``errors``, one line for every file or spectrum that could not be used.
    """
    module, card, engine = load_classifier(spec)
    owner: list[int] = []
    rows: list[dict[str, Any]] = []
    errors: list[str] = []
    answers: list[np.ndarray] = []
    under_way: deque[Future[np.ndarray]] = deque()
    batch: list[tuple[np.ndarray, np.ndarray]] = []

    def run(batch: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        flux, seen = (np.stack(part) for part in zip(*batch, strict=True))
        return engine(module.prepare(flux, seen))

    # While the network answers for a batch the next one is read.
    with ThreadPoolExecutor(1) as beside:
        for number, spectrum in enumerate(_spectra(paths, spec, errors)):
            try:
                windows = place(spectrum, module.grid)
            except SkysiftError as error:
                errors.append(_with_name(error.message, spectrum))
                continue
            for one in windows:
                told = describe(
                    one.spectrum, one.flux, one.seen, module.grid, start=one.start, windows=len(windows)
                )
                rows.append(told)
                owner.append(number)
                batch.append((one.flux, one.seen))
                if len(batch) == BATCH:
                    under_way.append(beside.submit(run, batch))
                    batch = []
                    if len(under_way) > AHEAD:
                        answers.append(under_way.popleft().result())
        if batch:
            under_way.append(beside.submit(run, batch))
        answers += [future.result() for future in under_way]
    raw = np.concatenate(answers) if answers else np.empty((0, module.answers.outputs))
    fitted = AnswerCalibration.from_card(card.calibration)
    chosen = told_windows(raw, owner, module.answers, fitted, getattr(module, "background", None))
    rows = [rows[one] for one in chosen]
    texts, numbers = ("name", "path", "notes"), ("row", "seen", "low", "high", "snr", "peak_snr", "flags")
    found = {key: np.array([row[key] for row in rows], dtype=np.str_) for key in texts}
    found |= {key: np.array([row[key] for row in rows], dtype=np.float64) for key in numbers}
    return {"raw": raw[chosen], **found, "errors": np.array(errors, dtype=np.str_)}


def _spectra(paths: list[str], spec: ClassifierSpec, errors: list[str]) -> Iterator[Spectrum]:
    for path in paths:
        try:
            opened = open_spectra(
                path, hdu=spec.hdu, unit=spec.unit, air=spec.air, rest_frequency=spec.rest_frequency
            )
        except OptionError:
            raise
        except (SkysiftError, OSError) as error:
            text = error.message if isinstance(error, SkysiftError) else f"{path}: {error.strerror or error}"
            errors.append(text)
            continue
        errors += [error.message for error in opened.errors]
        yield from opened.spectra


def _with_name(message: str, spectrum: Spectrum) -> str:
    return message if spectrum.path in message else f"{spectrum.path}: {message}"


def _manifest(
    table: Table, columns: dict[str, np.ndarray], files: list[Path], options: ClassifyOptions, card: Any,
    errors: list[str], grid: SpectralGrid,
) -> dict[str, Any]:  # fmt: skip
    noted = {
        f"{file}" + (f" row {int(row)}" if row >= 0 else ""): text
        for file, row, text in zip(columns["path"], columns["row"], columns["notes"], strict=True) if text
    }  # fmt: skip
    return {
        "input": {"files": [str(path) for path in files], "notes": noted, "errors": errors},
        "model": {
            "name": card.model, "weights": options.model, "sha256": card.sha256, "grid": vars(grid),
            "calibration": card.calibration,
        },
        "options": options.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("skysift", "numpy", "astropy", "torch", "openvino")},
        "counts": {
            "spectra": len(table), "failed": len(errors), "flagged": int(np.count_nonzero(table["flags"])),
            "classes": dict(Counter(name for one in table["class"] for name in str(one).split(",")).most_common()),
        },
    }  # fmt: skip


def write_table(
    table: Table, name: str, output: Path, options: ClassifyOptions, manifest: dict[str, Any], files: list[Path],
    clock: Clock,
) -> dict[str, Path]:  # fmt: skip
    """Write the table in all formats asked for; gives the files by format."""
    parameters = {
        "MODEL": options.model, "MODELSHA": manifest["model"]["sha256"][:16],
        "SKYSIFT": manifest["versions"]["skysift"],
    }  # fmt: skip
    with clock.stage("write"):
        return {
            kind: write_catalogue(
                table, output / f"{name}_classes{ENDINGS[kind]}", format=kind, parameters=parameters, inputs=files
            )
            for kind in options.formats
        }


def _draw(table: Table, spec: ClassifierSpec, name: str, output: Path, options: ClassifyOptions) -> Path:
    """Pictures of the spectra that were asked for, in a folder of their own."""
    from pipeline.class_picture import draw_spectrum

    module, _, _ = load_classifier(spec)
    folder = prepare_output(output / f"{name}_pictures")
    count = len(table) if options.pictures == "all" else min(int(options.pictures), len(table))
    rows = {(str(row["file"]), int(row["row"])): row for row in table[:count]}
    for path in dict.fromkeys(file for file, _ in rows):
        for spectrum in _spectra([path], spec, []):
            row = rows.get((path, -1 if spectrum.row is None else spectrum.row))
            if row is not None:
                windows = place(spectrum, module.grid)
                # The window that the table tells of is that which begins where it says.
                begin = float(row["coverage_low"])
                told = min(windows, key=lambda one: abs(one.start + module.grid.start - begin))
                draw_spectrum(spectrum, told, module, row, folder)
    return folder


def finish(manifest: dict[str, Any], files: dict[str, Path], target: Path, clock: Clock) -> None:
    """Complete the manifest with times and memory, and write it beside the table."""
    total = sum(clock.seconds.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest["timings"] = {name: round(value, 4) for name, value in clock.seconds.items()}
    if "spectra" in manifest["counts"]:
        manifest["spectra_per_s"] = round(manifest["counts"]["spectra"] / total, 2)
    # Kilobytes on Linux, bytes on macOS.
    manifest["peak_memory_mib"] = round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)
    manifest["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest["files"] = {kind: path.name for kind, path in files.items()}
    files["manifest"] = target
    temporary = target.with_suffix(".json.part")
    temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    temporary.replace(target)
