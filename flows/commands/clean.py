"""``skysift clean``: make room, and keep what the catalogue refers to."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def clean(
    older_than: str = typer.Option(..., metavar="AGE", help="Such as 90d, 12w or 36h, or a day: 2026-01-31."),
    catalogue: str = typer.Option(
        "skysift_survey", metavar="URL", help="The survey's catalogue, which tells what is current.",
        envvar="SKYSIFT_CATALOGUE",
    ),
    output: Path | None = typer.Option(
        None, "-o", "--output", metavar="DIR",
        help="Folder of the service [default: the catalogue's, else skysift_survey].",
    ),
    quarantine: Path | None = typer.Option(
        None, metavar="DIR", help="Folder of what was put aside [default: OUTPUT/quarantine]."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
) -> int:  # fmt: skip
    """Remove results of superseded runs, files put aside, previews and logs that are older than AGE.

    Nothing goes that a current run, or one that is under way, refers to. The catalogue's own rows are kept:
    see 'skysift survey forget'.
    """
    from pipeline.journal import printable
    from pipeline.retention import find_stale, parse_age, remove
    from pipeline.survey import open_store
    from survey_io.errors import OptionError

    before = parse_age(older_than)
    folder = Path("skysift_survey") if "://" in catalogue else Path(catalogue)
    if "://" not in catalogue and not folder.is_file() and not (folder / "survey.db").is_file():
        raise OptionError(f"{catalogue}: expected the survey's catalogue, found none there; name it with --catalogue")
    home = output or (folder if folder.is_dir() else folder.parent)
    with open_store(catalogue) as store:
        stale = list(find_stale(home, before, store=store, quarantine=quarantine))
        gone, errors = (stale, []) if dry_run else remove(stale, before)
    for one in gone:
        print(f"{one.kind:<10}  {one.bytes / 1e6:9.2f} MB  {printable(str(one.path))}")
    for line in errors:
        print(f"skysift: error: {printable(line)}", file=sys.stderr)
    print(f"{'would remove' if dry_run else 'removed'} {len(gone)}, {sum(one.bytes for one in gone) / 1e6:.2f} MB")
    return 2 if errors else 0
