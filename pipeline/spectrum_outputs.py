"""The files of one run on spectra: catalogue of lines, picture, manifest."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.options import DetectOptions
from pipeline.outputs import ENDINGS, finish_run
from pipeline.spectrum_quicklook import write_spectrum_quicklook
from survey_io.catalogue import write_catalogue
from survey_io.names import file_stem, printable

if TYPE_CHECKING:
    from pipeline.detect_spectrum import SpectrumAnalysis


def write_spectrum_outputs(
    path: Path, result: SpectrumAnalysis, output: Path, options: DetectOptions, *, clock: Any, digest: Future[str]
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write everything that was asked for; returns the files by kind and the completed manifest."""
    stem, files, table, manifest = file_stem(path), {}, result.table, result.manifest
    parameters = {
        "SPECTRUM": printable(path.name), "MODEL": options.model, "MODELSHA": manifest["model"]["sha256"][:16],
        "PTHRESH": manifest["model"]["threshold"], "SKYSIFT": manifest["versions"]["skysift"],
    }  # fmt: skip
    with clock.stage("write"):
        for name in options.formats:
            target = output / f"{stem}{ENDINGS[name]}"
            files[name] = write_catalogue(table, target, format=name, parameters=parameters, inputs=[path])
    with clock.stage("picture"):
        picture = output / f"{stem}_quicklook.png"
        files["quicklook"] = write_spectrum_quicklook(result.prepared, table, picture, title=path.name)
    shape = tuple(manifest["input"]["shape"])
    return finish_run(files, manifest, output / f"{stem}_run.json", pixels=shape, clock=clock, digest=digest)
