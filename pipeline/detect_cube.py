"""One spectral-line cube to one catalogue, read from top to bottom: the image's path with one axis more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from threadpoolctl import threadpool_limits

from models.detections import Detections
from pipeline.cube_catalogue import build_cube_catalogue
from pipeline.cube_finders import CubeFinderSpec, make_cube_finder, suppress_lines
from pipeline.cube_infer import assemble_maps, find_cube_piece, measure_cube_piece, vet_cube_piece
from pipeline.cube_tiles import TILE_SIDES, TILE_VOXELS, negative_cube_tiles, plan_cube_tiles
from pipeline.default_models import DEFAULT_MODELS, resolve_model
from pipeline.engine_choice import EngineLog
from pipeline.gaussians import beam_area
from pipeline.ledger import Arrays, Ledger
from pipeline.link import link_lines
from pipeline.local_workers import Threads, local_workers
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
from pipeline.spectrum_finders import make_spectrum_finder
from pipeline.tasks import run_stage
from survey_io import InputError, OptionError, SkysiftError
from survey_io.cube import Cube, open_cube
from survey_io.cube_noise import CubeNoise, estimate_cube_noise
from survey_io.memory import keep_freed_memory

# Sources measured by one piece of work.
MEASURE_BATCH = 16
# Sources whose spectra are looked at by the network for spectra at once.
VET_BATCH = 64
# Without weights the false detections' odds are known only from the cube's own negative.
WEIGHTLESS = Calibration(noise_share=1.0, confusion=0.0, shift_width=2.0)


@dataclass(frozen=True)
class CubeAnalysis:
    """A cube's catalogue before it is written.

    Attributes
    ----------
    table : Table
    measured : dict of ndarray
        Measurements in px and channels, same rows.
    lines : dict of ndarray
        Places and extents that were measured, same rows.
    sky, position_velocity : ndarray
        Highest S/N over channels, (ny, nx), and over rows, (nchan, nx); for the picture.
    manifest : dict
        Still without timings and hashes.
    negative_logit : ndarray
        Detector's log odds of what was found in the searched part of the negated cube.
    """

    table: Table
    measured: dict[str, np.ndarray]
    lines: dict[str, np.ndarray]
    noise: CubeNoise
    sky: np.ndarray
    position_velocity: np.ndarray
    manifest: dict[str, Any]
    negative_logit: np.ndarray


def detect_cube(path: str | Path, options: DetectOptions, *, progress: Progress | None = None) -> DetectResult:
    """Find and measure the sources of one spectral-line cube and write its catalogue.

    Parameters
    ----------
    path : str or Path
        FITS cube.
    options : DetectOptions
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    InputError, OptionError, OutputError
        One line each: what was expected, what came, what to do.
    """
    from pipeline.cube_outputs import write_cube_outputs
    from pipeline.outputs import prepare_output

    path, clock = Path(path), Clock(progress)
    options = resolve_model(options, 3)
    if "sdc1" in options.formats:
        raise OptionError(f"{path}: format sdc1 is for images, this is a cube; use sdc2 or another")
    output = prepare_output(options.output)
    with contextlib.ExitStack() as stack:
        hasher = stack.enter_context(ThreadPoolExecutor(1))
        with clock.stage("open"):
            cube = open_cube(path, hdu=options.hdu, beam=options.beam, rest_frequency=options.rest_frequency)
            stack.callback(forget_scratch, cube)
            _require_beam(cube)
            digest = hasher.submit(file_hash, path)
        ledger = open_ledger(output, cube.path, cube.stem, options)
        stack.callback(ledger.close)
        result = analyse_cube(cube, options, ledger=ledger, clock=clock)
        files, manifest = write_cube_outputs(
            cube, result, output, options, ledger=ledger, clock=clock, digest=digest
        )
        ledger.close(delete=not ledger.missing)
    return DetectResult(result.table, files, manifest)


def analyse_cube(
    cube: Cube, options: DetectOptions, *, ledger: Ledger | None = None, clock: Clock | None = None
) -> CubeAnalysis:
    """Everything between an opened cube and its written catalogue."""
    keep_freed_memory()
    options = resolve_model(options, 3)
    ledger, clock = ledger or Ledger(None, ""), clock or Clock(None)
    channels, side = options.cube_tile or TILE_SIDES
    pieces = int(np.prod([-(-n // t) for n, t in zip(cube.shape, (channels, side, side), strict=True)]))
    with threadpool_limits(1, user_api="blas"), open_client(options, pieces) as (client, workers):
        with clock.stage("noise"):
            noise = estimate_cube_noise(cube.pixels, run=_noise_stage(ledger, client))
            _require_noise(cube, noise)
        beam = cube.plane.beam_pixels()
        with clock.stage("finder"):
            finder, card = make_cube_finder(
                options.model, cube.pixels, noise,
                engine=options.engine, precision=options.precision, threads=workers, beam=beam,
                passes=options.passes, device=options.device, client=client,
            )  # fmt: skip
        engines = EngineLog()
        tiles = plan_cube_tiles(cube.shape, finder, options.cube_tile, TILE_VOXELS // _at_once(client))
        found, maps = _find(cube, noise, finder, tiles, "detect", options, ledger, client, clock, engines)
        blocks, searched = negative_cube_tiles(cube.shape, finder)
        negative, _ = _find(cube, noise, finder, blocks, "negative", options, ledger, client, clock, engines)
        kept_calibration = card.get("calibration", {}).get("reliability")
        calibration = Calibration(**kept_calibration) if kept_calibration else WEIGHTLESS
        beams = float(np.prod(cube.shape)) / float(beam_area(beam[0], beam[1]))
        reliability = fit_shift(found.logit, negative.logit, searched, beams, calibration)
        p_real = calibration.probability(found.logit, reliability.shift)
        keep = p_real >= threshold_of(card, options)
        found, p_real = found[keep], p_real[keep]
        with clock.stage("link"):
            found.params["p_real"] = p_real.astype(np.float64)
            found = link_lines(cube.pixels, noise, found, finder.beam_px)
            p_real = found.params.pop("p_real")
        lines = _lines(found)
        measured, kept = _measure(cube, noise, lines, options, ledger, client, clock)
        found, p_real, lines = found[kept], p_real[kept], {name: value[kept] for name, value in lines.items()}
        measured["line_score"], vetted_by = _vet(cube, noise, lines, options, workers, ledger, client, clock)
    with clock.stage("catalogue"):
        table = build_cube_catalogue(
            cube, found, measured, p_real=p_real, cosmology=options.cosmology,
            error_factors=card.get("calibration", {}).get("error_factors"), primary_beam=options.primary_beam,
        )  # fmt: skip
    manifest = _manifest(cube, noise, finder, card, reliability, options, table)
    manifest["model"] |= {"line_score": vetted_by, **engines.summary(finder)}
    manifest |= missing_of(ledger)
    return CubeAnalysis(table, measured, lines, noise, *maps, manifest, negative.logit)


def _noise_stage(ledger: Ledger, client: Any) -> Callable[..., list[Arrays]]:
    """How `estimate_cube_noise` has its pieces done; all of them, since everything after it rests on the noise."""

    def run(stage: str, function: Callable[..., Arrays], shared: tuple, arguments: list[tuple]) -> list[Arrays]:
        run_stage(f"noise-{stage}", function, list(enumerate(arguments)), ledger, shared=shared, client=client)
        return [arrays for _, arrays in ledger.get(f"noise-{stage}")]

    return run


def _require_beam(cube: Cube) -> None:
    if cube.plane.beam is None:
        raise InputError(
            f"{cube.path}: expected a beam in the header (BMAJ above 0) or in a BEAMS table, found none; "
            "give it with --beam MAJ,MIN,PA in arcsec and degrees"
        )


def _require_noise(cube: Cube, noise: CubeNoise) -> None:
    if np.asarray(noise.flagged).all():
        raise InputError(
            f"{cube.path}: expected channels with noise, every one of the {cube.shape[0]} is blank or constant; "
            "choose another extension with --hdu"
        )


def _find(
    cube: Cube, noise: CubeNoise, finder: CubeFinderSpec, tiles: list[Any], stage: str, options: DetectOptions,
    ledger: Ledger, client: Any, clock: Clock, engines: EngineLog,
) -> tuple[Detections, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Candidates of some tiles, suppressed, and the maps of the highest S/N."""
    negative = stage == "negative"
    # The largest first: memory that was enough for one is used again by all that follow.
    order = sorted(range(len(tiles)), key=lambda i: -np.prod([s.stop - s.start for s in tiles[i].full], dtype=float))
    with clock.stage(stage, len(tiles)) as advance, _few_at_once(client) as few:
        run_stage(
            stage, find_cube_piece, [(i, (tiles[i], negative)) for i in order], ledger,
            shared=(cube.pixels, noise, finder), client=few, advance=advance, network=True,
            max_missing=options.max_missing, where=lambda tile, _: {"pixels": [pixel_ranges(tile.core, "zyx")]},
        )  # fmt: skip
    with clock.stage("merge"):
        # One piece at a time: of a large cube all their maps together are larger than memory.
        keys = ("centre", "size", "logit", "anchor")
        kept: list[dict[str, np.ndarray]] = []

        def parts() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
            for number, arrays in ledger.get(stage):
                engines.see(arrays)
                kept.append({n: a for n, a in arrays.items() if n in keys or n.startswith("param_")})
                yield number, arrays

        maps = assemble_maps(cube.shape, tiles, parts())
        found = suppress_lines(Detections.concatenate([Detections.from_arrays(p) for p in kept]), finder.beam_px)
    return found, maps


@contextlib.contextmanager
def _few_at_once(client: Any) -> Iterator[Any]:
    """The client, or threads for as many tiles as are worked on at once: the network takes them in turn and has all
    the cores."""
    if not isinstance(client, Threads):
        yield client
        return
    with local_workers(Threads, _at_once(client)) as few:
        yield few


def _at_once(client: Any) -> int:
    """Tiles in the memory of one machine: one on one or two cores, two on more.

    While the network is at one the next is read, for which two cores have no time to spare. What the workers of a
    cluster share is not known; two then.
    """
    return 1 if isinstance(client, Threads) and client.workers <= 2 else 2


def _lines(found: Detections) -> dict[str, np.ndarray]:
    """Places and extents from which detections are measured."""
    # Engines and tilings differ in the last digits; what starts from rounded numbers starts from the same.
    centre, size = (np.rint(np.asarray(a, float) * 1024) / 1024 for a in (found.centre, found.size))
    sources = {f"{axis}": centre[:, i] for i, axis in enumerate("zyx")}
    sources |= {f"size_{axis}": size[:, i] for i, axis in enumerate("zyx")}
    return sources | {"n_linked": found.params["n_linked"]}


def _measure(
    cube: Cube, noise: CubeNoise, sources: dict[str, np.ndarray], options: DetectOptions, ledger: Ledger, client: Any,
    clock: Clock,
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """Measurements of the detections, in their order, and which they are: all, but for pieces that are missing."""
    beam = cube.pixel_beam()
    count = len(sources["z"])
    batches = [np.arange(i, min(i + MEASURE_BATCH, count)) for i in range(0, max(count, 1), MEASURE_BATCH)]
    with clock.stage("measure", len(batches)) as advance:
        ledger.rest_on("measure", sources)
        run_stage(
            "measure", measure_cube_piece, [(i, (batch,)) for i, batch in enumerate(batches)], ledger,
            shared=(cube.pixels, noise, cube.spectral, beam, cube.plane.pixel_scale, sources), client=client,
            advance=advance, max_missing=options.max_missing, where=lambda batch: _places(sources, batch),
        )  # fmt: skip
        parts = dict(ledger.get("measure"))
        if not parts:
            raise SkysiftError(f"{cube.path}: none of the {count} sources could be measured: give workers more memory")
        kept = np.concatenate([batches[number] for number in parts])
        first = next(iter(parts.values()))
        return {name: np.concatenate([part[name] for part in parts.values()]) for name in first}, kept


def _places(sources: dict[str, np.ndarray], batch: np.ndarray) -> dict[str, Any]:
    """Of sources that could not be measured, for the manifest."""
    return {"sources": len(batch), "centres_zyx": [[round(float(sources[n][i]), 1) for n in "zyx"] for i in batch]}


def _vet(
    cube: Cube, noise: CubeNoise, sources: dict[str, np.ndarray], options: DetectOptions, workers: int, ledger: Ledger,
    client: Any, clock: Clock,
) -> tuple[np.ndarray, dict[str, str]]:  # fmt: skip
    """What the network for spectra says of every detection, in their order; and which network it was."""
    from models.weights import exact_name

    finder, card = make_spectrum_finder(exact_name(DEFAULT_MODELS[1]), engine=options.engine, threads=workers,
                                          device=options.device, client=client)  # fmt: skip
    calibration = card["calibration"].get("reliability", {})
    count = len(sources["z"])
    batches = [np.arange(i, min(i + VET_BATCH, count)) for i in range(0, max(count, 1), VET_BATCH)]
    with clock.stage("vet", len(batches)) as advance:
        ledger.rest_on("vet", sources)
        run_stage(
            "vet", vet_cube_piece, [(i, (batch,)) for i, batch in enumerate(batches)], ledger,
            shared=(cube.pixels, noise, cube.pixel_beam(), finder, calibration, sources), client=client,
            advance=advance, network=True, max_missing=options.max_missing,
            where=lambda batch: _places(sources, batch),
        )  # fmt: skip
        scores = np.full(count, np.nan)
        for number, arrays in ledger.get("vet"):
            scores[batches[number]] = arrays["line_score"]
    return scores, {"name": finder.model, "sha256": card["sha256"]}


def _manifest(
    cube: Cube, noise: CubeNoise, finder: CubeFinderSpec, card: dict, reliability: ImageReliability,
    options: DetectOptions, table: Table,
) -> dict[str, Any]:  # fmt: skip
    beam, spectral = cube.plane.beam, cube.spectral
    return {
        "input": {
            "path": str(cube.path),
            "shape": list(cube.shape),
            "unit": None if cube.plane.unit is None else cube.plane.unit.to_string(),
            "spectral_axis": spectral.kind,
            "rest_frequency_hz": spectral.rest_frequency,
            "frequency_hz": [float(spectral.frequency(0)), float(spectral.frequency(cube.shape[0] - 1))],
            "pixel_scale_arcsec": cube.plane.pixel_scale,
            "beam": {"major": beam.major, "minor": beam.minor, "pa": beam.pa, "origin": beam.origin},
            "beams_per_channel": cube.beams is not None,
            "notes": list(cube.notes),
        },
        "model": {
            "name": options.model, "engine": finder.engine, "precision": finder.precision, "passes": finder.passes,
            "sha256": card.get("sha256", ""), "threshold": threshold_of(card, options),
        },
        "noise": noise.summary(),
        "reliability": reliability.summary(),
        "options": options.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("skysift", "numpy", "astropy", "torch", "dask", "openvino")},
        "counts": {"sources": len(table), "flagged": int(np.count_nonzero(table["flags"]))},
    }  # fmt: skip
