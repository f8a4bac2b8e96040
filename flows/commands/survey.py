"""``skysift survey``: the survey's store, its state, its versions and its upkeep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pipeline.survey import SurveyStore

CATALOGUE = typer.Option(
    None, "--catalogue", metavar="URL", envvar="SKYSIFT_CATALOGUE", show_envvar=False,
    help="The survey's store: a folder, sqlite:///FILE or postgresql://USER@HOST/NAME "
    "[default: $SKYSIFT_CATALOGUE, else skysift_survey].",
)  # fmt: skip


def status(
    catalogue: str | None = CATALOGUE,
    check: bool = typer.Option(False, "--check", help="Look at every row: reads the whole store."),
) -> int:
    """Show what the store holds: observations, runs, sources, and the weights that made them."""
    from pipeline.survey import SurveyStore
    from pipeline.survey.migrations import LATEST

    store = SurveyStore(catalogue)
    store.require_place(create=False)
    version = store.schema_version()
    print(f"{store.place}: schema version {version}{'' if version == LATEST else f', this skysift has {LATEST}'}")
    if version != LATEST:
        print("  skysift survey migrate brings an older store to this version")
        return 2
    counts = store.counts()
    states = ", ".join(f"{count} {state}" for state, count in counts["observations"].items() if count)
    print(f"observations: {states or 'none'}")
    print(f"runs: {counts['runs']}, of which {counts['current_runs']} count")
    print(f"sources: {counts['sources']}, of which {counts['current_sources']} count")
    for row in store.weights():
        name = f"{row['model'] or '(no name)'} {row['weights_sha256'][:12]}".rstrip()
        print(f"  {name}: {row['runs']} runs, {row['current']} count with {row['sources']} sources, {row['first'][:10]}"
              f" to {row['last'][:10]}")  # fmt: skip
    problems = store.check()["problems"] if check else []
    for problem in problems:
        print(f"problem: {problem}")
    return 2 if problems else 0


def migrate(
    catalogue: str | None = CATALOGUE,
    to: int | None = typer.Option(None, "--to", metavar="VERSION", help="Version to go to [default: this skysift's]."),
    back: bool = typer.Option(False, "--back", help="Go one version back, for an older skysift."),
) -> int:
    """Bring the store's tables to another version, forward or back, in one transaction."""
    from pipeline.survey import SurveyStore
    from pipeline.survey.migrations import LATEST
    from survey_io.errors import OptionError

    if back and to is not None:
        raise OptionError("give --to or --back, not both")
    store = SurveyStore(catalogue)
    store.require_place(create=False)
    version = store.schema_version()
    passed = store.migrate(version - 1 if back else LATEST if to is None else to)
    print(f"{store.place}: schema version {passed[-1] if passed else version}, was {version}")
    return 0


def forget(
    catalogue: str | None = CATALOGUE,
    before: str = typer.Option(..., metavar="DATE", help="Superseded runs recorded before it, such as 2026-01-31."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be deleted."),
) -> int:
    """Delete superseded runs and their sources; what counts now always stays."""
    gone = _open(catalogue).forget(before=before, dry_run=dry_run)
    word = "would delete" if dry_run else "deleted"
    print(f"{word} {gone['runs']} superseded runs with {gone['sources']} sources")
    return 0


def use(
    run: int = typer.Argument(..., metavar="RUN", help="Number of a superseded run (skysift survey runs)."),
    catalogue: str | None = CATALOGUE,
) -> int:
    """Let a superseded run count again instead of the one that does now: takes a re-processing back."""
    store = _open(catalogue)
    count = store.make_current(run)
    print(f"run {run} of {store.run(run)['observation']} counts now, with {count} sources")
    return 0


def runs(
    catalogue: str | None = CATALOGUE,
    observation: int | None = typer.Option(None, metavar="ID", help="Only those of this observation."),
    weights: str | None = typer.Option(None, metavar="SHA256|MODEL", help="Only those with these weights."),
    superseded: bool = typer.Option(False, "--superseded", help="Only those that do not count any more."),
    limit: int = typer.Option(50, min=1, help="The newest so many."),
) -> int:
    """List runs, the newest first; a star marks those that count."""
    current = False if superseded else None
    found = _open(catalogue).runs(observation, current=current, weights=weights, limit=limit, newest=True)
    for row in found:
        name = f"{row['model'] or ''} {row['weights_sha256'][:12]}".strip()
        star = "*" if row["current"] else " "
        file = _shown(row["observation"])
        print(f"{row['id']:>6}{star} {row['recorded'][:19]} {row['rows']:>8} rows  {name:24} {file}")
    if not found:
        print("no runs")
    return 0


def add(
    manifests: list[Path] = typer.Argument(..., metavar="MANIFEST...", help="..._run.json of finished runs."),
    catalogue: str | None = CATALOGUE,
) -> int:
    """Record runs from the files that they wrote; those that are there already stay as they are."""
    import sys

    from pipeline.survey import open_store
    from pipeline.survey.files import read_run
    from survey_io.errors import InputError

    store, status = open_store(catalogue), 0
    for path in manifests:
        try:
            run = store.record(*read_run(path), output=path.parent)
        except InputError as error:
            print(f"skysift: error: {error}", file=sys.stderr, flush=True)
            status = 2
        else:
            print(f"{_shown(str(path))}: run {run} of the survey", flush=True)
    return status


def _open(catalogue: str | None) -> SurveyStore:
    from pipeline.survey import open_store

    return open_store(catalogue, create=False)


def _shown(name: str) -> str:
    """A name on one line, whatever it holds."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
