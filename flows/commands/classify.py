"""``skysift classify``: spectra or pictures to a table of classes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer


def classify(
    spectra: list[Path] = typer.Argument(
        ..., metavar="SPECTRA...", help="Files of spectra, light curves or pictures, or folders of them.",
        show_default=False,
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for the results [default: skysift_out]."
    ),
    model: str | None = typer.Option(
        None, help="Classifier or weights file; see 'skysift models' [default: stellar]."
    ),
    engine: str | None = typer.Option(None, help="auto, torch, onnx, openvino or tensorrt [default: auto]."),
    precision: str | None = typer.Option(None, help="auto, f32, bf16, int8, fp16 or fp8 [default: auto]."),
    device: str | None = typer.Option(None, help="auto, cpu, cuda or cuda:0 [default: auto]."),
    threshold: float | None = typer.Option(
        None, help="Of classes that may hold together, name those of at least this probability [default: the model's]."
    ),
    workers: int | None = typer.Option(
        None, help="Files worked on at the same time [default: one per core]."
    ),
    formats: str | None = typer.Option(
        None, "--format", help="Comma list of fits, votable, parquet, ecsv, csv [default: fits]."
    ),
    pictures: str | None = typer.Option(
        None, metavar="all|N", help="Draw all spectra, or so many of the first."
    ),
    hdu: str | None = typer.Option(None, help="FITS extension by number (from 0) or name."),
    unit: str | None = typer.Option(None, help="Unit of the axis, in place of what the files say: Angstrom, GHz, d."),
    air: bool | None = typer.Option(
        None, "--air/--vacuum", help="Wavelengths are of air, or of vacuum, in place of what the files say."
    ),
    rest_frequency: float | None = typer.Option(
        None, metavar="HZ", help="Rest frequency, for axes in velocity [default: from the file]."
    ),
    central: float | None = typer.Option(
        None, help="Of pictures, the central share of the side that shows as much sky as the model's [default: 1]."
    ),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options from this file."),
    flow: bool = typer.Option(
        False, "--flow", help="Run as a Prefect flow even when no server is configured."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Do not continue an interrupted run."),
) -> int:
    """Classify SPECTRA, or pictures, and write one table, with a calibrated probability for every class.

    Options may also stand in the file given with --config and in the environment, as
    SKYSIFT_CLASSIFY_MODEL=molecules; the command line wins over the environment, and that over the file.
    """
    from flows.server import configured_api_url, require_server
    from flows.settings import resolve_options
    from pipeline.classify_options import ClassifyOptions
    from survey_io.errors import InputError

    given = {
        "output": output, "model": model, "engine": engine, "precision": precision, "device": device,
        "threshold": threshold,
        "workers": workers, "formats": formats, "pictures": pictures, "hdu": hdu, "unit": unit, "air": air,
        "rest_frequency": rest_frequency, "fresh": fresh or None, "central": central,
    }  # fmt: skip
    options = resolve_options(ClassifyOptions, given, config=config)
    url = configured_api_url()
    began = time.perf_counter()
    try:
        if flow or url:
            if url:
                require_server(url)
            from flows.classify import run_flow

            result = run_flow(spectra, options)
        else:
            from flows.progress import progress_bar
            from pipeline.classify import classify as run

            with progress_bar("classify") as progress:
                result = run(spectra, options, progress=progress)
    except InputError as error:
        lines = error.fields.get("errors") or (error.message,)
        _complain(lines)
        return 2
    from survey_io.names import printable

    _complain(result.errors)
    counts = result.manifest["counts"]
    shares = ", ".join(f"{count} {name or '(none)'}" for name, count in list(counts["classes"].items())[:12])
    number = counts.get("spectra", counts.get("pictures"))
    what = ("picture", "pictures") if "pictures" in counts else ("spectrum", "spectra")
    print(f"{number} {what[number != 1]} in {time.perf_counter() - began:.1f} s: {shares}")
    for path in result.files.values():
        print(f"  {printable(str(path))}", flush=True)
    return 2 if result.errors else 0


def _complain(lines: tuple[str, ...]) -> None:
    from survey_io.names import printable

    for line in lines:
        print(f"skysift: error: {printable(line)}", file=sys.stderr, flush=True)
