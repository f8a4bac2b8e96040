"""Prefect flow: from a recipe to weights in use, a task for each stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.train_options import TrainOptions
from pipeline.retrain import STAGES
from pipeline.retrain_options import RetrainOptions
from pipeline.retrain_run import Retraining
from survey_io.errors import SkysiftError

from . import environment as environment  # before Prefect, which reads its settings at import
from .reports import report_training

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed


@task(name="stage", task_run_name="{name}", cache_policy=NO_CACHE)
def run_stage(name: str, run: Retraining) -> Any:
    """One stage; what is wrong with data or options fails it without a traceback."""
    try:
        return STAGES[name](run)
    except SkysiftError as error:
        return Failed(message=error.message, data=error)


@flow(name="train", log_prints=True)
def train(options: TrainOptions, retrain: RetrainOptions | None = None) -> Any:
    """Retrain as ``skysift train`` does.

    Parameters
    ----------
    options : TrainOptions
        With ``resume`` a run that was killed goes on where it was.
    retrain : RetrainOptions, optional
        How weights are judged, kept and put to use.

    Returns
    -------
    State
        Its data is the weights file in the output folder; of a failed run the error.
    """
    try:
        run = Retraining(options, retrain)
    except SkysiftError as error:
        return Failed(message=error.message, data=error)
    with run:
        for name in STAGES:
            state = run_stage(name, run, return_state=True)
            if state.is_failed():
                return Failed(message=state.message, data=state.result(raise_on_failure=False))
        report_training(run.folder / "report.md", run.name)
        return Completed(message=run.result("promote")["line"], data=run.weights)


def run_flow(options: TrainOptions, retrain: RetrainOptions) -> Path:
    """Run the flow here; returns the weights file."""
    result = train(options, retrain, return_state=True).result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result
