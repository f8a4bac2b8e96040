"""The files of one run: catalogue, regions, picture and manifest."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from astropy.table import Table

from pipeline.options import DetectOptions
from survey_io import Observation, OutputError
from survey_io.catalogue import write_catalogue, write_regions, write_sdc1
from survey_io.names import printable

ENDINGS = {
    "fits": "_cat.fits", "votable": "_cat.vot", "parquet": "_cat.parquet", "ecsv": "_cat.ecsv", "csv": "_cat.csv",
    "sdc1": "_sdc1.txt", "sdc2": "_sdc2.txt",
}  # fmt: skip


def prepare_output(folder: Path) -> Path:
    """Make the output folder and check that it can be written.

    Raises
    ------
    OutputError
        When it cannot.
    """
    probe = folder / ".skysift_probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: expected a folder that can be written, got: {error.strerror}; give another with -o"
        ) from None
    return folder


def write_outputs(
    observation: Observation,
    table: Table,
    output: Path,
    options: DetectOptions,
    manifest: dict[str, Any],
    *,
    clock: Any,
    digest: Future[str],
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write everything that was asked for; returns the files by kind and the completed manifest."""
    from pipeline.quicklook import write_quicklook

    stem, files = observation.stem, {}
    inputs = [observation.path, *([options.primary_beam] if options.primary_beam else [])]
    parameters = {
        "IMAGE": printable(observation.path.name), "MODEL": options.model, "MODELSHA": manifest["model"]["sha256"][:16],
        "PTHRESH": manifest["model"]["threshold"], "SKYSIFT": manifest["versions"]["skysift"],
    }  # fmt: skip
    with clock.stage("write"):
        for name in options.formats:
            target = output / f"{stem}{ENDINGS[name]}"
            if name == "sdc1":
                files[name] = write_sdc1(table, target, inputs=inputs)
            else:
                files[name] = write_catalogue(table, target, format=name, parameters=parameters, inputs=inputs)
        files["regions"] = write_regions(table, output / f"{stem}.reg", inputs=inputs)
    with clock.stage("picture"):
        files["quicklook"] = write_quicklook(observation, table, output / f"{stem}_quicklook.png")
    target = output / f"{stem}_run.json"
    return finish_run(files, manifest, target, pixels=observation.shape, clock=clock, digest=digest)


def finish_run(
    files: dict[str, Path], manifest: dict[str, Any], target: Path, *, pixels: tuple[int, ...], clock: Any,
    digest: Future[str],
) -> tuple[dict[str, Path], dict[str, Any]]:  # fmt: skip
    """Complete the manifest with hash, timings and speed, and write it; returns all files and the manifest."""
    with clock.stage("hash"):
        manifest["input"]["sha256"] = digest.result()
    total = sum(clock.seconds.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest["timings"] = {name: round(value, 4) for name, value in clock.seconds.items()}
    manifest["total_seconds"] = round(total, 4)
    manifest["mpix_per_s"] = round(math.prod(pixels) / 1e6 / total, 3)
    # Kilobytes on Linux, bytes on macOS.
    manifest["peak_memory_mib"] = round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)
    manifest["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest["files"] = {kind: path.name for kind, path in files.items()}
    files["manifest"] = target
    temporary = files["manifest"].with_suffix(".json.part")
    temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    temporary.replace(files["manifest"])
    return files, manifest
