"""``skysift detect``: images, cubes and spectra to catalogues."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

# Exit status of a run whose catalogues are written, but lack pieces that could not be done.
INCOMPLETE = 3

if TYPE_CHECKING:
    from flows.images import Outcome
    from pipeline.options import DetectOptions


def detect(
    images: list[Path] = typer.Argument(
        ..., metavar="IMAGE...", help="FITS images, spectral-line cubes, or spectra in any form.", show_default=False
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for the results [default: skysift_out]."
    ),
    model: str | None = typer.Option(
        None, help="Model name or weights file [default: light; light3d for cubes, lines for spectra]."
    ),
    engine: str | None = typer.Option(None, help="auto, torch, onnx, openvino or tensorrt [default: auto]."),
    precision: str | None = typer.Option(None, help="auto, f32, bf16, int8, fp16 or fp8 [default: auto]."),
    device: str | None = typer.Option(None, help="auto, cpu, cuda or a list such as cuda:0,cuda:1 [default: auto]."),
    passes: int | None = typer.Option(
        None, help="1, or 2: look at the reflected data as well, better and slower [default: the model's]."
    ),
    threshold: float | None = typer.Option(
        None, help="Keep rows with p_real of at least this [default: the model's]."
    ),
    tile: int | None = typer.Option(None, help="Side of a tile in pixels [default: 1536]."),
    cube_tile: str | None = typer.Option(
        None, metavar="CHANNELS,PIXELS", help="Sides of a cube's tile [default: as memory allows]."
    ),
    workers: int | None = typer.Option(
        None, help="Tiles worked on at the same time [default: one per core]."
    ),
    cluster: str | None = typer.Option(None, help="Dask cluster: name, YAML file or tcp://host:port."),
    resources: str | None = typer.Option(
        None, metavar="NAME=N", help="What a cluster's workers must offer to run the network, such as GPU=1."
    ),
    max_missing: float | None = typer.Option(
        None, help="Share of the tiles that may be missing before the run fails [default: 0.25]."
    ),
    formats: str | None = typer.Option(
        None, "--format", help="Comma list of fits, votable, parquet, ecsv, csv, sdc1, sdc2 [default: fits]."
    ),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options from this file."),
    flow: bool = typer.Option(
        False, "--flow", help="Run as a Prefect flow even when no server is configured."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Do not continue an interrupted run."),
    beam: str | None = typer.Option(None, metavar="MAJ[,MIN[,PA]]", help="Beam in arcsec FWHM and degrees."),
    primary_beam: Path | None = typer.Option(None, metavar="FILE", help="Primary beam response, FITS."),
    rest_frequency: float | None = typer.Option(
        None, metavar="HZ", help="Rest frequency of a cube's or spectrum's line [default: from the file]."
    ),
    cosmology: str | None = typer.Option(
        None, metavar="H0,OMEGA_M", help="Give HI masses with this flat cosmology, such as 70,0.3."
    ),
    products: str | None = typer.Option(
        None,
        metavar="all|N",
        help="Write cubelet, moment maps, spectrum and picture of all of a cube's sources, or of the N clearest.",
    ),
    hdu: str | None = typer.Option(
        None, help="Extension by number (from 0) or name [default: the first image]."
    ),
    catalogue: str | None = typer.Option(
        None, metavar="URL", envvar="SKYSIFT_CATALOGUE", show_envvar=False,
        help="Record finished runs in this survey's store as well: a folder, or postgresql://... "
        "[default: $SKYSIFT_CATALOGUE, else none].",
    ),
) -> int:
    """Find the sources of each IMAGE (or cube, or a spectrum's lines) and write catalogue, picture and manifest.

    Options may also stand in the file given with --config and in the environment, as
    SKYSIFT_DETECT_TILE=2048; the command line wins over the environment, and that over the file.

    The exit status is 3 when a catalogue lacks pieces that killed their workers: its manifest lists them.
    """
    from flows.server import configured_api_url, require_server
    from flows.settings import resolve_options
    from pipeline.options import DetectOptions

    given = {
        "output": output, "model": model, "engine": engine, "precision": precision, "device": device, "passes": passes,
        "threshold": threshold,
        "tile": tile, "cube_tile": cube_tile, "workers": workers, "cluster": cluster, "formats": formats,
        "resources": resources, "max_missing": max_missing,
        "fresh": fresh or None,
        "beam": beam, "primary_beam": primary_beam, "hdu": hdu,
        "rest_frequency": rest_frequency, "cosmology": cosmology, "products": products,
    }  # fmt: skip
    options = resolve_options(DetectOptions, given, config=config)
    if catalogue is not None:
        from flows.images import survey_store

        # Before any work: an address that cannot be used is said at once.
        survey_store(catalogue)
    url = configured_api_url()
    if flow or url:
        if url:
            require_server(url)
        from flows.detect import run_flow

        outcomes = run_flow(images, options, catalogue=catalogue)
        for outcome in outcomes:
            show_outcome(outcome)
    else:
        outcomes = _detect_plainly(images, options, catalogue)
    if any(outcome.defect for outcome in outcomes):
        return 1
    if any(outcome.error for outcome in outcomes):
        return 2
    return INCOMPLETE if any(outcome.missing for outcome in outcomes) else 0


def _detect_plainly(images: list[Path], options: DetectOptions, catalogue: str | None) -> list[Outcome]:
    from flows.images import detect_each, detect_one
    from flows.progress import progress_bar

    def run(path: Path, options: DetectOptions) -> Outcome:
        with progress_bar(path.name) as progress:
            return detect_one(path, options, progress, catalogue=catalogue)

    return detect_each(images, options, run=run, done=show_outcome)


def show_outcome(outcome: Outcome) -> None:
    """Print an image's summary on standard output, or what was wrong with it on standard error."""
    from survey_io.names import printable

    if outcome.error is not None or outcome.result is None:
        print(f"skysift: error: {printable(outcome.error or '')}", file=sys.stderr, flush=True)
        return
    result = outcome.result
    count = len(result.table)
    speed = pixels_per_second(outcome)
    ndim = len(result.manifest.get("input", {}).get("shape", ()))
    what, found = {1: ("Mchannel", "line"), 3: ("Mvoxel", "source")}.get(ndim, ("Mpix", "source"))
    rate = "" if speed is None else f", {speed / 1e6:.3g} {what}/s"
    name = printable(str(outcome.path))
    print(f"{name}: {count} {found}{'' if count == 1 else 's'} in {outcome.seconds:.1f} s{rate}")
    model = result.manifest.get("model", {})
    if model.get("precision", "f32") != "f32":
        from models.gates import gate_warning

        warning = gate_warning(model["name"], model["engine"], model["precision"])
        if warning:
            print(f"skysift: warning: {warning}", file=sys.stderr, flush=True)
    if ndim != 2:
        for note in result.manifest["input"].get("notes", ()):
            print(f"  note: {printable(note)}")
    for path in result.files.values():
        print(f"  {printable(str(path))}", flush=True)
    if outcome.run_id is not None:
        print(f"  run {outcome.run_id} of the survey", flush=True)
    if outcome.missing:
        print(f"skysift: {outcome.missing}", file=sys.stderr, flush=True)


def pixels_per_second(outcome: Outcome) -> float | None:
    """Return pixels (or voxels) over wall time, None when the manifest has no image shape."""
    manifest = outcome.result.manifest if outcome.result is not None else {}
    shape = manifest.get("input", {}).get("shape")
    if not shape or outcome.seconds <= 0:
        return None
    return math.prod(shape) / outcome.seconds
