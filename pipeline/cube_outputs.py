"""The files of one cube's run: catalogue, regions, picture, manifest."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cube_products import write_products
from pipeline.cube_quicklook import write_cube_quicklook
from pipeline.ledger import Ledger
from pipeline.options import DetectOptions
from pipeline.outputs import ENDINGS, finish_run
from survey_io.catalogue import write_catalogue, write_regions
from survey_io.cube import Cube
from survey_io.names import printable
from survey_io.sdc2 import write_sdc2

if TYPE_CHECKING:
    from pipeline.detect_cube import CubeAnalysis


def write_cube_outputs(
    cube: Cube, result: CubeAnalysis, output: Path, options: DetectOptions, *, ledger: Ledger, clock: Any,
    digest: Future[str],
) -> tuple[dict[str, Path], dict[str, Any]]:  # fmt: skip
    """Write everything that was asked for; returns the files by kind and the completed manifest."""
    stem, files, table, manifest = cube.stem, {}, result.table, result.manifest
    inputs = [cube.path, *([options.primary_beam] if options.primary_beam else [])]
    parameters = {
        "CUBE": printable(cube.path.name), "MODEL": options.model, "MODELSHA": manifest["model"]["sha256"][:16],
        "PTHRESH": manifest["model"]["threshold"], "SKYSIFT": manifest["versions"]["skysift"],
    }  # fmt: skip
    with clock.stage("write"):
        for name in options.formats:
            target = output / f"{stem}{ENDINGS[name]}"
            if name == "sdc2":
                files[name] = write_sdc2(table, target, inputs=inputs)
            else:
                files[name] = write_catalogue(table, target, format=name, parameters=parameters, inputs=inputs)
        files["regions"] = write_regions(table, output / f"{stem}.reg", inputs=inputs)
    with clock.stage("picture"):
        picture = output / f"{stem}_quicklook.png"
        files["quicklook"] = write_cube_quicklook(cube, table, result.sky, result.position_velocity, picture)
    if options.products:
        files["products"], manifest["counts"]["products"] = write_products(
            cube, result.noise, table, result.measured, result.lines, options.products, output / f"{stem}_products",
            ledger=ledger, clock=clock,
        )  # fmt: skip
    return finish_run(files, manifest, output / f"{stem}_run.json", pixels=cube.shape, clock=clock, digest=digest)
