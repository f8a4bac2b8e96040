"""One image to one catalogue, read from top to bottom."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from threadpoolctl import threadpool_limits

from models.detections import Detections
from pipeline.default_models import resolve_model
from pipeline.engine_choice import EngineLog
from pipeline.finders import FinderSpec, make_finder
from pipeline.gaussians import beam_area, convolve
from pipeline.infer import (
    background_piece,
    find_piece,
    group_tiles,
    measure_piece,
    measure_pieces,
    negative_tiles,
)
from pipeline.ledger import Ledger
from pipeline.local_workers import Processes, local_workers
from pipeline.measure import reach
from pipeline.merge import suppress
from pipeline.options import DetectOptions
from pipeline.reliability import Calibration, ImageReliability, fit_shift
from pipeline.runs import (
    Clock,
    DetectResult,
    Progress,
    file_hash,
    forget_scratch,
    missing_of,
    open_client,
    open_ledger,
    pixel_ranges,
    threshold_of,
    version,
)
from pipeline.tasks import run_stage
from survey_io import Beam, InputError, Observation, OptionError, open_image
from survey_io.background import BackgroundMap, choose_mesh, finish_background
from survey_io.binned import BinnedPixels
from survey_io.cube import is_cube
from survey_io.memory import keep_freed_memory
from survey_io.spectra_files import holds_spectra
from survey_io.tiles import plan_tiles

# Networks are trained on beams of 2.1 to 8.8 px; a wider beam is brought to 4 px or a little more by binning.
WIDEST_BEAM, BINNED_BEAM = 8.8, 4.0
# Pixels of one piece of the background estimate.
BACKGROUND_PIXELS = 4_000_000
# Sources of a window of the measurement and limits of its side: many, since the cost is per call as much as per source
# (windows of 2048 instead of 4096 took 1.5 times as long for 1,000 sources each).
MEASURE_SOURCES, MEASURE_SIDES = 4000, (1024, 4096)


@dataclass(frozen=True)
class Analysis:
    """A catalogue before it is written, with what calibration needs beside it.

    Attributes
    ----------
    observation : Observation
        With its beam, estimated where the file has none.
    table : Table
    manifest : dict
        Still without timings and hashes.
    negative_logit : ndarray, shape (m,)
        Detector's log odds of what was found in the searched part of the negated image.
    """

    observation: Observation
    table: Table
    manifest: dict[str, Any]
    negative_logit: np.ndarray


def detect(path: str | Path, options: DetectOptions, *, progress: Progress | None = None) -> DetectResult:
    """Find and measure the sources of one image or spectral-line cube, or a spectrum's lines; write their catalogue.

    Parameters
    ----------
    path : str or Path
        FITS image; a file whose axes are those of a cube takes the path of `pipeline.detect_cube`, one that holds
        spectra that of `pipeline.detect_spectrum`.
    options : DetectOptions
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Returns
    -------
    DetectResult

    Raises
    ------
    InputError, OptionError, OutputError
        One line each: what was expected, what came, what to do.
    """
    from pipeline.outputs import prepare_output, write_outputs

    path, clock = Path(path), Clock(progress)
    if is_cube(path, hdu=options.hdu):
        from pipeline.detect_cube import detect_cube

        return detect_cube(path, options, progress=progress)
    if holds_spectra(path, hdu=options.hdu):
        from pipeline.detect_spectrum import detect_spectrum

        return detect_spectrum(path, options, progress=progress)
    try:
        options = resolve_model(options, 2)
    except OptionError:
        # A file that is no cube only because something is wrong with it gets that said.
        open_image(path, hdu=options.hdu)
        raise
    if "sdc2" in options.formats:
        raise OptionError(f"{path}: format sdc2 is for cubes, this is an image; use sdc1 or another")
    output = prepare_output(options.output)
    with contextlib.ExitStack() as stack:
        hasher = stack.enter_context(ThreadPoolExecutor(1))
        with clock.stage("open"):
            observation = open_image(path, hdu=options.hdu, beam=options.beam)
            stack.callback(forget_scratch, observation)
            digest = hasher.submit(file_hash, path)
            observation.require_finite()
            if "sdc1" in options.formats and observation.beam is not None:
                observation.jansky_per_beam()
        ledger = open_ledger(output, observation.path, observation.stem, options)
        stack.callback(ledger.close)
        result = analyse(observation, options, ledger=ledger, clock=clock)
        files, manifest = write_outputs(
            result.observation, result.table, output, options, result.manifest, clock=clock, digest=digest
        )
        ledger.close(delete=not ledger.missing)
    return DetectResult(result.table, files, manifest)


def analyse(
    observation: Observation, options: DetectOptions, *, ledger: Ledger | None = None, clock: Clock | None = None
) -> Analysis:
    """Everything between an opened image and its written catalogue.

    Parameters
    ----------
    observation : Observation
    options : DetectOptions
        ``output`` and ``formats`` are not used.
    ledger : Ledger, optional
        Where finished pieces are kept; in memory by default.
    clock : Clock, optional
    """
    keep_freed_memory()
    options = resolve_model(options, 2)
    ledger, clock = ledger or Ledger(None, ""), clock or Clock(None)
    pieces = int(np.prod([-(-n // options.tile) for n in observation.shape]))
    # One thread of linear algebra per worker: its idle threads spin, and took a third of the engine's time.
    with threadpool_limits(1, user_api="blas"), open_client(options, pieces) as (client, workers):
        with clock.stage("background"):
            observation, background, factor = _background(observation, ledger, client)
        pixels = observation.pixels if factor == 1 else BinnedPixels(observation.pixels, factor)
        major, minor, theta = observation.beam_pixels()
        beam = (major / factor, minor / factor, theta)
        finder, card = make_finder(
            options.model, engine=options.engine, precision=options.precision, threads=workers, beam=beam,
            passes=options.passes, device=options.device, client=client,
        )
        engines = EngineLog()
        found, negative, searched = _find(pixels, background, finder, factor, options, ledger, client, clock, engines)
        calibration = Calibration(**card.get("calibration", {}).get("reliability", {}))
        beams = float(np.prod(pixels.shape)) / float(beam_area(beam[0], beam[1]))
        reliability = fit_shift(found.logit, negative.logit, searched, beams, calibration)
        p_real = calibration.probability(found.logit, reliability.shift)
        keep = p_real >= threshold_of(card, options)
        found, p_real = found[keep], p_real[keep]
        measured, kept = _measure(pixels, background, found, beam, factor, options, ledger, client, clock)
        found, p_real = found[kept], p_real[kept]
    with clock.stage("catalogue"):
        table = _catalogue(observation, found, measured, factor, background, p_real, card, options)
    manifest = _manifest(observation, factor, background, finder, card, reliability, options, table)
    manifest["model"] |= engines.summary(finder)
    return Analysis(observation, table, manifest | missing_of(ledger), negative.logit)


def _background(
    observation: Observation, ledger: Ledger, client: Any
) -> tuple[Observation, BackgroundMap, int]:
    """Background map, with a beam estimated and the pixels binned where that is needed."""
    if observation.beam is None:
        from pipeline.beam import estimate_beam

        rough = _background_map(observation.pixels, "background-rough", 128, ledger, client)
        _require_noise(observation, rough)
        fwhm = estimate_beam(observation.pixels, rough) * observation.pixel_scale
        observation = replace(
            observation,
            beam=Beam(fwhm, fwhm, 0.0, "estimated"),
            notes=(*observation.notes, f"no beam in the header: estimated {fwhm:.4g} arcsec from the image"),
        )
    major, minor, _ = observation.beam_pixels()
    fwhm = float(np.sqrt(major * minor))
    factor = max(1, int(fwhm / BINNED_BEAM)) if fwhm > WIDEST_BEAM else 1
    pixels = observation.pixels if factor == 1 else BinnedPixels(observation.pixels, factor)
    background = _background_map(pixels, "background", choose_mesh(pixels.shape, fwhm / factor), ledger, client)
    _require_noise(observation, background)
    return observation, background, factor


def _background_map(pixels: Any, stage: str, mesh: int, ledger: Ledger, client: Any) -> BackgroundMap:
    rows = -(-pixels.shape[0] // mesh)
    step = max(1, BACKGROUND_PIXELS // (mesh * pixels.shape[1]))
    pieces = [(first, (first, min(first + step, rows), mesh, 2)) for first in range(0, rows, step)]
    # No share may be missing: everything after it rests on the background.
    run_stage(stage, background_piece, pieces, ledger, shared=(pixels,), client=client)
    parts = [arrays for _, arrays in ledger.get(stage)]
    return finish_background(
        [row for part in parts for row in part["background"]], [row for part in parts for row in part["rms"]], mesh=mesh
    )


def _require_noise(observation: Observation, background: BackgroundMap) -> None:
    if not np.isfinite(background.rms).any():
        raise InputError(
            f"{observation.path}: expected an image with noise, its pixels are constant in every {background.mesh} px "
            "cell (filled with zeros?); choose another extension, or blank what is empty with NaN"
        )


def _find(
    pixels: Any, background: BackgroundMap, finder: FinderSpec, factor: int, options: DetectOptions,
    ledger: Ledger, client: Any, clock: Clock, engines: EngineLog,
) -> tuple[Detections, Detections, float]:  # fmt: skip
    """Candidates of the image and of blocks of its negative, suppressed, and the share of area of those blocks."""
    blocks, searched = negative_tiles(pixels.shape, finder)
    tiles = plan_tiles(pixels.shape, tile=options.tile, halo=finder.halo, stride=finder.stride, even=True)
    beam_px = float(np.sqrt(finder.beam[0] * finder.beam[1]))
    found = []
    for stage, plan, negative in (("detect", tiles, False), ("negative", blocks, True)):
        groups = group_tiles(plan, options.batch)
        with clock.stage(stage, len(groups)) as advance:
            run_stage(
                stage, find_piece, [(i, (group, negative)) for i, group in enumerate(groups)], ledger,
                shared=(pixels, background, finder), client=client, advance=advance, network=True,
                max_missing=options.max_missing,
                where=lambda tiles, _: {"pixels": [pixel_ranges(tile.core, "yx", factor) for tile in tiles]},
            )  # fmt: skip
        with clock.stage("merge"):
            parts = [Detections.from_arrays(engines.see(arrays)) for _, arrays in ledger.get(stage)]
            found.append(suppress(Detections.concatenate(parts), beam_px))
    return found[0], found[1], searched


def _grid(values: np.ndarray) -> np.ndarray:
    """Values rounded to 1/1024."""
    return np.rint(np.asarray(values, float) * 1024) / 1024


def _measure(
    pixels: Any, background: BackgroundMap, found: Detections, beam: tuple[float, float, float], factor: int,
    options: DetectOptions, ledger: Ledger, client: Any, clock: Clock,
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """Measurements of the detections, in their order, and which they are: all, but for pieces that are missing."""
    y, x = found.centre.T if len(found) else np.empty((2, 0))
    p = found.params
    if len(found):
        apparent = convolve((p["major"], p["minor"], p["theta"]), beam)
        rms = background.at(_grid(y), _grid(x))[1]
        # Engines and tilings differ in the last digits; a fit that starts from rounded numbers starts from the same.
        sources = {"x": _grid(x), "y": _grid(y), "flux": np.exp(_grid(np.log(p["flux_snr"]))) * rms}
        sources |= {name: np.exp(_grid(np.log(a))) for name, a in zip(("major", "minor"), apparent, strict=False)}
        sources["theta"] = _grid(apparent[2])
    else:
        sources = {name: np.empty(0) for name in ("x", "y", "flux", "major", "minor", "theta")}
    side = np.clip(np.sqrt(np.prod(pixels.shape) * MEASURE_SOURCES / max(len(found), 1)), *MEASURE_SIDES)
    windows = measure_pieces(pixels.shape, sources, tile=int(side), margin=reach(beam))
    with clock.stage("measure", max(len(windows), 1)) as advance:
        pieces = [(i, (window, part, beam, pixels.shape)) for i, (window, part) in enumerate(windows)]
        ledger.rest_on("measure", sources)
        # Many small numpy calls fight for Python's lock: two threads measure no faster than one, so that these are
        # processes; one starts in the time that 4,000 sources take.
        helpers = min(options.workers or os.cpu_count() or 1, len(windows), 1 + len(found) // 8000)
        with local_workers(Processes, 1 if options.cluster else helpers) as local:
            client = client if options.cluster else local
            run_stage(
                "measure", measure_piece, pieces, ledger, shared=(pixels, background), client=client, advance=advance,
                max_missing=options.max_missing,
                where=lambda window, part, *_: {
                    "pixels": [pixel_ranges(window, "yx", factor)], "sources": int(np.count_nonzero(part["owned"])),
                },
            )  # fmt: skip
        parts = [arrays for _, arrays in ledger.get("measure")]
        if not parts:
            none = {name: value[:0] for name, value in sources.items()}
            empty = {"index": np.empty(0, int), "owned": np.empty(0, bool), **none}
            parts = [measure_piece(pixels, background, (slice(0, 8), slice(0, 8)), empty, beam, pixels.shape)]
    index = np.concatenate([part["index"] for part in parts])
    order = np.argsort(index)
    return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}, index[order]


def _catalogue(
    observation: Observation, found: Detections, measured: dict, factor: int, background: BackgroundMap,
    p_real: np.ndarray, card: dict, options: DetectOptions,
) -> Table:  # fmt: skip
    from pipeline.catalogue import build_catalogue
    from survey_io.primary_beam import primary_beam_gain

    gain = None
    if options.primary_beam is not None:
        # A fit may end just outside of the image, where a response of the same size ends.
        sides = dict(zip(("y", "x"), observation.shape, strict=True))
        at = [np.clip((measured[axis] + 0.5) * factor - 0.5, 0, sides[axis] - 1) for axis in ("x", "y")]
        gain = primary_beam_gain(options.primary_beam, *observation.pixel_to_sky(*at))
    return build_catalogue(
        observation,
        found,
        measured,
        factor=factor,
        background=background.at(measured["y"], measured["x"])[0],
        p_real=p_real,
        gain=gain,
        has_network=bool(card),
        calibration=card.get("calibration"),
    )


def _manifest(
    observation: Observation, factor: int, background: BackgroundMap, finder: FinderSpec, card: dict,
    reliability: ImageReliability, options: DetectOptions, table: Table,
) -> dict[str, Any]:  # fmt: skip
    beam = observation.beam
    return {
        "input": {
            "path": str(observation.path),
            "shape": list(observation.shape),
            "unit": None if observation.unit is None else observation.unit.to_string(),
            "frequency_hz": observation.frequency,
            "pixel_scale_arcsec": observation.pixel_scale,
            "beam": {"major": beam.major, "minor": beam.minor, "pa": beam.pa, "origin": beam.origin},
            "notes": list(observation.notes),
        },
        "model": {
            "name": options.model, "engine": finder.engine, "precision": finder.precision, "passes": finder.passes,
            "sha256": card.get("sha256", ""), "threshold": threshold_of(card, options), "binning": factor,
        },
        "background": {"mesh_px": background.mesh, "median_rms": background.typical_rms},
        "reliability": reliability.summary(),
        "options": options.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("skysift", "numpy", "astropy", "torch", "dask", "openvino")},
        "counts": {"sources": len(table), "flagged": int(np.count_nonzero(table["flags"]))},
    }  # fmt: skip


