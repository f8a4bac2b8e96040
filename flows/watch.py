"""Prefect flow: one look at the inbox, and the work that it found. Its schedule makes it a service."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.classify_options import ClassifyOptions
from pipeline.journal import LOGGERS, SharedFile, start_journal
from pipeline.options import DetectOptions
from pipeline.service.inbox import Arrived
from pipeline.service.options import ServeOptions
from pipeline.service.serve import Service, Tally
from pipeline.survey import open_store
from survey_io.errors import SkysiftError

from . import environment as environment  # before Prefect, which reads its settings at import
from .reports import report_tally
from .runners import scheduler_address

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.states import Completed, Failed

ARRIVED = "skysift.observation.arrived"


@flow(name="watch", log_prints=False)
def watch(
    options: ServeOptions | None = None,
    detection: DetectOptions | None = None,
    classification: ClassifyOptions | None = None,
) -> Any:
    """Look at the inbox once and work on what arrived, and on what is still queued: ``skysift serve --once``.

    Each new observation is an event, `ARRIVED`, for automations of other deployments; with ``workers: 0`` it is no
    more than that, and those do the work.

    Parameters
    ----------
    options : ServeOptions, optional
        Inbox and catalogue; ``once`` goes without saying.
    detection : DetectOptions, optional
    classification : ClassifyOptions, optional

    Returns
    -------
    State
        Its data are the `Tally`. Failed when an observation failed or was put aside: an error that holds it.
    """
    try:
        tally = look_once(
            (options or ServeOptions()).with_changes(once=True), detection or DetectOptions(),
            classification or ClassifyOptions(),
        )  # fmt: skip
    except SkysiftError as error:
        return Failed(message=error.message, data=error)
    report_tally(tally)
    bad = tally.failed + tally.quarantined + tally.refused
    if bad:
        # Of a state that failed Prefect wants an error as its data.
        error = SkysiftError(f"{bad} files failed or were put aside, {tally.done} done", tally=tally)
        return Failed(message=error.message, data=error)
    return Completed(message=f"{tally.arrived} arrived, {tally.done} done", data=tally)


@task(name="look at the inbox", cache_policy=NO_CACHE)
def look_once(options: ServeOptions, detection: DetectOptions, classification: ClassifyOptions) -> Tally:
    """The service, until nothing is left to do. It retries by itself, where that can help."""
    with (
        _journal(options.home / "logs"),
        open_store(options.catalogue) as store,
        scheduler_address(detection.cluster) as address,
    ):
        detection = detection.with_changes(cluster=address)
        return Service(options, store, detect=detection, classify=classification, arrived=announce).run()


def announce(identity: int, found: Arrived) -> None:
    """Tell Prefect of a new observation."""
    emit_event(
        event=ARRIVED,
        resource={"prefect.resource.id": f"skysift.observation.{identity}", "prefect.resource.name": found.path.name},
        payload={
            "observation": identity, "path": str(found.path), "kind": found.kind, "sha256": found.sha256,
            "bytes": found.mark.size,
        },
    )  # fmt: skip


@contextmanager
def _journal(folder: Path) -> Iterator[None]:
    """The journal beside the handlers that send log lines to Prefect."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = {logger: (list(logger.handlers), logger.level, logger.propagate) for logger in loggers}
    start_journal(folder, readable=False)
    for logger in loggers:
        logger.handlers = [*before[logger][0], *logger.handlers]
    try:
        yield
    finally:
        for logger in loggers:
            for handler in logger.handlers:
                if isinstance(handler, SharedFile):
                    handler.close()
            logger.handlers[:], logger.propagate = before[logger][0], before[logger][2]
            logger.setLevel(before[logger][1])
