"""Prefect flow: images to catalogues."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.options import DetectOptions

from . import environment as environment  # before Prefect, which reads its settings at import
from .images import Outcome, detect_each, detect_one
from .reports import report_detections

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed


@task(name="detect image", task_run_name="{path.name}", cache_policy=NO_CACHE)
def detect_image(path: Path, options: DetectOptions) -> Any:
    """Detect in one image; a bad image fails its task without a traceback."""
    # The store's address may hold a password, and Prefect keeps parameters: it comes from the environment.
    outcome = detect_one(path, options, catalogue=os.environ.get("SKYSIFT_CATALOGUE") or None)
    problem = outcome.error or outcome.missing
    return outcome if problem is None else Failed(message=problem, data=outcome)


def _run(path: Path, options: DetectOptions) -> Outcome:
    return detect_image(path, options, return_state=True).result(raise_on_failure=False)


@flow(name="detect", log_prints=False)
def detect(paths: list[Path], options: DetectOptions | None = None) -> Any:
    """Detect in every image: the same work and the same catalogues as a plain ``skysift detect``.

    Finished runs are recorded in the survey's store that the environment variable SKYSIFT_CATALOGUE names.

    Parameters
    ----------
    paths : list of Path
        Images, reachable from where the flow runs.
    options : DetectOptions, optional
        Defaults when left out.

    Returns
    -------
    State
        Failed when an image failed or lacks pieces; its data are the list of `Outcome`, one per image.
    """
    outcomes = detect_each(paths, options or DetectOptions(), run=_run)
    report_detections(outcomes)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if failed:
        return Failed(message=f"{failed} of {len(outcomes)} images failed", data=outcomes)
    lacking = sum(outcome.missing is not None for outcome in outcomes)
    if lacking:
        return Failed(message=f"{lacking} of {len(outcomes)} images lack pieces", data=outcomes)
    return Completed(message=f"{len(outcomes)} images done", data=outcomes)


def run_flow(paths: list[Path], options: DetectOptions, *, catalogue: str | None = None) -> list[Outcome]:
    """Run the flow here and return one `Outcome` per image, failed ones included.

    Parameters
    ----------
    paths : list of Path
    options : DetectOptions
    catalogue : str, optional
        The survey's store to record in; default: the environment variable SKYSIFT_CATALOGUE, else none.
    """
    if catalogue is not None:
        os.environ["SKYSIFT_CATALOGUE"] = catalogue
    state = detect(paths, options, return_state=True)
    outcomes = state.result(raise_on_failure=False)
    if isinstance(outcomes, BaseException):
        raise outcomes
    return outcomes
