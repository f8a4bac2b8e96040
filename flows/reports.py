"""What a flow leaves in Prefect's interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import environment as environment  # before Prefect, which reads its settings at import
from .images import Outcome

# isort: split
from prefect.artifacts import create_markdown_artifact, create_table_artifact


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """Return one image's line: name, sources, seconds, catalogue or error."""
    result = outcome.result
    return {
        "image": str(outcome.path),
        "sources": None if result is None else len(result.table),
        "seconds": round(outcome.seconds, 2),
        "catalogue": "" if result is None else str(next(iter(result.files.values()), "")),
        "error": outcome.error or "",
    }


def report_detections(outcomes: Sequence[Outcome]) -> None:
    """Keep a table of the images of this flow run."""
    create_table_artifact(
        key="skysift-detect",
        table=[outcome_row(outcome) for outcome in outcomes],
        description="One line per image.",
    )


def report_training(report: Path, name: str) -> None:
    """Keep the report of a retraining; its pictures stay in the output folder."""
    text = report.read_text(encoding="utf-8")
    create_markdown_artifact(text, key="skysift-train", description=f"{name}: {report}")
