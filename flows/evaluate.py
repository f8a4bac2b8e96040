"""Prefect flow: a catalogue against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pipeline import evaluate as scoring

from . import environment as environment  # before Prefect, which reads its settings at import

# isort: split
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

score_catalogue = task(scoring.evaluate, name="score catalogue", cache_policy=NO_CACHE)


@flow(name="evaluate")
def evaluate(
    catalogue: Path,
    truth: Path,
    scorer: Literal["match", "sdc1", "sdc2"] = "match",
    frequency: float = 560,
    mode: Literal["core", "centroid"] = "core",
    beam: float | None = None,
    radius: float | None = None,
    picture: Path | None = None,
) -> Any:
    """Score as ``skysift evaluate`` does, and keep the report's text in Prefect's interface."""
    report = score_catalogue(
        catalogue,
        truth,
        scorer=scorer,
        frequency=frequency,
        mode=mode,
        beam=beam,
        radius=radius,
        picture=picture,
    )
    create_markdown_artifact(f"```\n{report}\n```", key="skysift-evaluate", description=f"{catalogue}")
    return report
