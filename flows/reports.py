"""What a flow leaves in Prefect's interface."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import environment as environment  # before Prefect, which reads its settings at import
from .images import Outcome

# isort: split
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

if TYPE_CHECKING:
    from pipeline.service.serve import Tally

# Pictures of a run, and the longest side of each: they lie in Prefect's database.
PICTURES, PICTURE_SIDE = 3, 360


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
    report_pictures(
        "skysift-detect-pictures",
        [(one.path.name, one.result.files["quicklook"]) for one in outcomes
         if one.result is not None and "quicklook" in one.result.files],
    )  # fmt: skip


def report_tally(tally: Tally) -> None:
    """Keep a table of the observations of this run, with links to their pages, and some of their pictures."""
    site = os.environ.get("SKYSIFT_SITE", "").rstrip("/")
    rows = []
    for one in tally.outcomes:
        identity = one.observation["id"]
        page = {"page": f"{site}/observations/{identity}"} if site else {}
        rows.append(
            {
                "observation": identity, "file": one.observation["path"], "state": one.state, "rows": one.rows,
                "seconds": round(one.seconds, 2), "results": str(one.folder or ""), "error": one.error or "", **page,
            }
        )  # fmt: skip
    rows += [{"file": str(one.path), "state": "put aside", "error": one.reason} for one in tally.refusals]
    if not rows:
        return
    create_table_artifact(key="skysift-watch", table=rows, description=f"{tally.done} done, {tally.rows} rows.")
    if site:
        create_link_artifact(link=f"{site}/", link_text="The survey's pages", key="skysift-site")
    found = [(one, sorted(one.folder.glob("*_quicklook.png"))) for one in tally.outcomes if one.folder is not None]
    report_pictures(
        "skysift-watch-pictures", [(Path(one.observation["path"]).name, paths[0]) for one, paths in found if paths]
    )


def report_pictures(key: str, pictures: Sequence[tuple[str, Path]]) -> None:
    """Keep a few pictures, made small, each under its name."""
    if pictures:
        shown = [f"### {_plain(name)}\n\n![picture]({small_picture(path)})" for name, path in pictures[:PICTURES]]
        more = len(pictures) - len(shown)
        shown += [f"and {more} more" for _ in range(more > 0)]
        create_markdown_artifact("\n\n".join(shown), key=key, description="Pictures of this run.")


def small_picture(path: Path) -> str:
    """A picture as a data URL."""
    from matplotlib.image import imread, thumbnail

    buffer = io.BytesIO()
    scale = min(1.0, PICTURE_SIDE / max(imread(path).shape[:2]))
    thumbnail(str(path), buffer, scale=scale, interpolation="bilinear")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _plain(name: str) -> str:
    """A file's name as text that Markdown does not read: names come from others."""
    return "".join(one if one.isalnum() or one in " .-_" else "_" for one in name)


def report_training(report: Path, name: str) -> None:
    """Keep the report of a retraining; its pictures stay in the output folder."""
    text = report.read_text(encoding="utf-8")
    create_markdown_artifact(text, key="skysift-train", description=f"{name}: {report}")
