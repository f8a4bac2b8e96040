"""Prefect flows: from a recipe to weights in use, a task for each stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.train_options import TrainOptions
from pipeline.retrain import STAGES
from pipeline.retrain_options import RetrainOptions
from pipeline.retrain_run import Retraining
from survey_io.errors import SkysiftError

from . import environment as environment  # before Prefect, which reads its settings at import
from .recipe_files import resolve_recipe
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


@flow(name="retrain", log_prints=True)
def train_recipe(
    recipe: str,
    data: Path | None = None,
    output: Path | None = None,
    changes: list[str] | None = None,
    resume: bool = False,
    devices: int | None = None,
) -> Any:
    """Retrain by the name of a recipe: `train` for deployments, whose parameters are as short as a command line.

    Parameters
    ----------
    recipe : str
        A recipe by name or as a file where the worker is, or a model.
    data, output : Path, optional
        As the recipe says when left out.
    changes : list of str, optional
        What ``--set`` takes, such as ``learning_rate=1e-3``.
    resume : bool
        Go on with the run in ``output``.
    devices : int, optional
        Processes, each with a GPU of its own.

    Returns
    -------
    State
        As that of `train`.
    """
    given = {"data": data, "output": output, "resume": resume or None, "devices": devices}
    try:
        options, retrain = resolve_recipe(recipe, sets=changes or (), given=given)
    except SkysiftError as error:
        return Failed(message=error.message, data=error)
    # The stages are tasks of this run: a flow within the flow would say nothing more.
    return train.fn(options, retrain)


def run_flow(options: TrainOptions, retrain: RetrainOptions) -> Path:
    """Run the flow here; returns the weights file."""
    result = train(options, retrain, return_state=True).result(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result
