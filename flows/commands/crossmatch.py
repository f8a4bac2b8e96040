"""``skysift crossmatch``: the survey, or another file, beside somebody's catalogue."""

from __future__ import annotations

from pathlib import Path

import typer

from .survey import CATALOGUE


def crossmatch(
    file: Path = typer.Argument(
        ..., metavar="FILE", help="Catalogue in any format that astropy reads.", show_default=False
    ),
    catalogue: str | None = CATALOGUE,
    other: Path | None = typer.Option(
        None, "--with", metavar="FILE2", help="Match with this catalogue instead of the survey."
    ),
    radius: float = typer.Option(5.0, metavar="ARCSEC", help="Largest distance."),
    sigma: float | None = typer.Option(
        None, metavar="N", help="Largest distance in standard errors as well, where the catalogues have errors."
    ),
    find: str = typer.Option(
        "best", help="best: each row at most once; first: the closest for each row of FILE; all: every pair."
    ),
    join: str = typer.Option("inner", help="inner, left (all rows of FILE), right (all of the other) or outer (both)."),
    where: str | None = typer.Option(None, metavar="CONDITION", help="Only rows of the survey for which this holds."),
    columns: str | None = typer.Option(None, metavar="NAME,...", help="Columns of the survey to give."),
    objects: bool = typer.Option(False, "--objects", help="Match with the survey's objects instead of its sources."),
    ra: str | None = typer.Option(None, metavar="NAME", help="Column of FILE [default: by UCD or name]."),
    dec: str | None = typer.Option(None, metavar="NAME", help="Column of FILE [default: by UCD or name]."),
    output: Path | None = typer.Option(
        None, "-o", "--output", metavar="OUT", help="Write .fits, .vot, .parquet, .ecsv or .csv instead of printing."
    ),
) -> int:
    """Match a catalogue with the survey by position.

    Each pair has its distance (arcsec), the distance over its standard error and the chance that an unrelated row lies
    as near, from the density of rows around.
    """
    from pipeline.join_catalogues import FIND, JOINS, join_positions, join_tables
    from pipeline.survey import open_store
    from pipeline.survey.near import rows_near
    from survey_io.catalogue import write_catalogue
    from survey_io.errors import OptionError
    from survey_io.outside import find_positions, read_outside

    from .query import SHOWN, show_table

    if find not in FIND or join not in JOINS:
        raise OptionError(f"expected --find {', '.join(FIND)} and --join {', '.join(JOINS)}, got {find} and {join}")
    if other is not None and (where is not None or columns is not None or objects):
        raise OptionError("--where, --columns and --objects are for the survey, not for a file given --with")
    first = read_outside(file)
    mine = find_positions(first, ra=ra, dec=dec, path=str(file))
    if other is not None:
        second, name, known = read_outside(other), str(other), 180.0
    else:
        store = open_store(catalogue, create=False)
        second, known = rows_near(
            store, mine, radius, where=where, objects=objects, everything=join in ("right", "outer"),
            columns=None if columns is None else [one.strip() for one in columns.split(",")],
        )  # fmt: skip
        name = store.place
    theirs = find_positions(second, path=name)
    joined = join_positions(mine, theirs, radius=radius, sigma=sigma, find=find, known=known)
    table = join_tables(first, second, joined, join=join)
    print(f"{file}: {len(mine)} rows, positions in {', '.join(mine.columns)}")
    for note in (*mine.notes, *(theirs.notes if other is not None else ())):
        print(f"  note: {note}")
    pairs = f"{len(joined)} pair{'' if len(joined) == 1 else 's'}"
    print(f"  {pairs} with {name}, of which {joined.chance.sum():.2g} may be by chance")
    print(f"  {len(mine) - len(set(joined.first.tolist()))} rows of {file.name} without a partner")
    if other is not None or join in ("right", "outer"):
        print(f"  {len(theirs) - len(set(joined.second.tolist()))} rows of {name} without a partner")
    if output is not None:
        told = {"file": str(file), "with": name, "radius": radius, "sigma": sigma, "find": find, "join": join}
        write_catalogue(table, output, parameters=told, inputs=[file, *([other] if other is not None else [])])
        print(f"  {output}: {len(table)} rows")
        return 0
    show_table(table[:SHOWN])
    if len(table) > SHOWN:
        print(f"  the first {SHOWN} rows of {len(table)}; -o writes all")
    return 0

