"""Prefect flow: spectra to a table of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.classify import ClassifyResult
from pipeline.classify import classify as classify_spectra
from pipeline.classify_options import ClassifyOptions
from survey_io.errors import SkysiftError

from . import environment as environment  # before Prefect, which reads its settings at import

# isort: split
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

classify_all = task(classify_spectra, name="classify spectra", cache_policy=NO_CACHE)


@flow(name="classify", log_prints=False)
def classify(paths: list[Path], options: ClassifyOptions | None = None) -> Any:
    """Classify spectra: the same work and the same table as a plain ``skysift classify``.

    Parameters
    ----------
    paths : list of Path
        Files and folders, reachable from where the flow runs.
    options : ClassifyOptions, optional
        Defaults when left out.

    Returns
    -------
    State
        Failed when a file or spectrum could not be used; its data are the `ClassifyResult`, or the error where there is
        none.
    """
    try:
        result = classify_all(paths, options or ClassifyOptions())
    except SkysiftError as error:
        return Failed(message=error.message, data=error)
    counts = result.manifest["counts"]
    what = "pictures" if "pictures" in counts else "spectra"
    create_table_artifact(
        key="skysift-classify",
        table=[{"class": name, what: count} for name, count in counts["classes"].items()],
        description=f"{counts[what]} {what} classified, {counts['failed']} failed.",
    )
    if result.errors:
        return Failed(message=f"{len(result.errors)} files or {what} could not be used", data=result)
    return Completed(message=f"{counts[what]} {what} done", data=result)


def run_flow(paths: list[Path], options: ClassifyOptions) -> ClassifyResult:
    """Run the flow here; a result with errors is returned, and what gave no result is raised."""
    result = classify(paths, options, return_state=True).result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result
