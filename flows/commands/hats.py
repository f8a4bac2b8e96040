"""``skysift survey export-hats``: the survey's sources as a partitioned Parquet set."""

from __future__ import annotations

from pathlib import Path

import typer

from .survey import CATALOGUE


def export_hats(
    catalogue: str | None = CATALOGUE,
    output: Path | None = typer.Option(
        None, "-o", "--output", metavar="FOLDER", help="Folder of the set [default: parquet beside the store]."
    ),
    max_rows: int = typer.Option(250_000, "--max-rows", help="Rows of a partition, at most."),
    margin: float = typer.Option(10.0, help="Width in arcsec of the margins, the largest radius of a crossmatch."),
    workers: int = typer.Option(1, help="Processes that write partitions."),
    share: str | None = typer.Option(
        None, metavar="K/N", help="Write only the K-th of N shares, as on one of N machines; publish without --share."
    ),
) -> int:
    """Bring the Parquet set (HEALPix partitions in the layout HATS, which LSDB opens) up to the store.

    Only partitions that changed are written. The set changes over in one step: stopped halfway it is as it was, and
    the same command goes on.
    """
    from pipeline.survey import open_store
    from pipeline.survey.hats import export_hats as export
    from survey_io.errors import OptionError

    store = open_store(catalogue, create=False)
    if output is None and store.folder is None:
        raise OptionError("expected a folder for the set with -o: a server's store has none beside it")
    parts = None
    if share is not None:
        numbers = share.split("/")
        if len(numbers) != 2 or not all(one.isdecimal() for one in numbers):
            raise OptionError(f"expected a share as K/N, such as 1/4, got {share!r}")
        parts = (int(numbers[0]), int(numbers[1]))
    folder = output if output is not None else store.folder / "parquet"
    done = export(store, folder, max_rows=max_rows, margin=margin, workers=workers, share=parts)
    print(f"{folder}: {done.rows} sources in {done.partitions} partitions, {done.written} of them written now")
    if done.published:
        print(f"  margins of {done.margins} partitions, {done.margins_written} written now; lsdb.open_catalog opens it")
    else:
        print("  not published yet: run the other shares, then the same command without --share")
    return 0
