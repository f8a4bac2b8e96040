"""``skysift query``: what the survey has at a place, and where a row comes from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from .survey import CATALOGUE

# Rows that are printed when no number is asked for.
SHOWN = 100


def query(
    catalogue: str | None = CATALOGUE,
    cone: str | None = typer.Option(
        None, metavar="RA,DEC,RADIUS",
        help="Within a radius: degrees, hh:mm:ss,dd:mm:ss,5' or Jhhmmss.s+ddmmss,30arcsec.",
    ),
    box: str | None = typer.Option(
        None, metavar="RA1,RA2,DEC1,DEC2", help="From RA1 eastward to RA2, also across 0h, and between declinations."
    ),
    where: str | None = typer.Option(
        None, metavar="CONDITION", help='Rows for which this holds, such as "p_real > 0.9 and snr > 5".'
    ),
    columns: str | None = typer.Option(
        None, metavar="NAME,...", help="Columns to give; those of the runs' catalogues as well."
    ),
    all_versions: bool = typer.Option(False, "--all-versions", help="Superseded rows as well."),
    objects: bool = typer.Option(False, "--objects", help="Objects: sources associated over observations."),
    limit: int | None = typer.Option(None, help=f"No more rows than this [default: {SHOWN} when they are printed]."),
    output: Path | None = typer.Option(
        None, "-o", "--output", metavar="FILE", help="Write .fits, .vot, .parquet, .ecsv or .csv instead of printing."
    ),
    provenance: int | None = typer.Option(
        None, metavar="SOURCE_ID", help="Show file, weights, options and run that a source comes from."
    ),
) -> int:
    """Ask the survey's store for sources, or for the origin of one."""
    from pipeline.survey import open_store
    from pipeline.survey.places import parse_box, parse_cone
    from pipeline.survey.query import query_objects, query_sources
    from survey_io.catalogue import write_catalogue
    from survey_io.errors import OptionError

    given = {"cone": cone, "box": box, "where": where, "columns": columns}
    if provenance is not None and (objects or any(value is not None for value in given.values())):
        raise OptionError("--provenance: expected the number of one source alone; ask for places and rows separately")
    if objects and all_versions:
        raise OptionError("--all-versions: expected sources; objects are made of those that count now")
    asked = {
        "cone": None if cone is None else parse_cone(cone), "box": None if box is None else parse_box(box),
        "where": where, "columns": None if columns is None else [one.strip() for one in columns.split(",")],
    }  # fmt: skip
    store = open_store(catalogue, create=False)
    if provenance is not None:
        show_provenance(store.provenance(provenance))
        return 0
    most = limit if limit is not None or output is not None else SHOWN + 1
    if objects:
        table = query_objects(store, **asked, limit=most)
    else:
        table = query_sources(store, **asked, all_versions=all_versions, limit=most)
    if output is not None:
        told = {name: value for name, value in given.items() if value is not None}
        write_catalogue(table, output, parameters={"catalogue": store.place, **told})
        print(f"{output}: {len(table)} {'objects' if objects else 'sources'}")
        return 0
    more = limit is None and len(table) > SHOWN
    show_table(table[:SHOWN] if more else table)
    if more:
        print(f"skysift: the first {SHOWN} rows; --limit gives more, -o writes all", file=sys.stderr)
    return 0


def show_table(table: Any) -> None:
    """Print an astropy table with its units; nothing found is a result too."""
    if not len(table):
        print("no rows")
        return
    shown = table.copy()
    for name in shown.colnames:
        if shown[name].dtype.kind == "f":
            shown[name].info.format = ".7f" if name in ("ra", "dec", "distance") else ".6g"
        elif shown[name].dtype.kind == "U":
            # What a header or a file name held stays on its line.
            texts = shown[name].tolist()
            shown[name] = ["".join(c if c.isprintable() else "?" for c in text or "") for text in texts]
    print("\n".join(shown.pformat(max_lines=-1, max_width=-1, show_unit=True)))


def show_provenance(found: dict[str, Any]) -> None:
    """Print where a source comes from, one fact per line."""
    import json

    source, run = found["source"], found["run"]
    facts = {
        "source": f"{source['id']} {source['name'] or ''}, row {source['row']} of run {run['id']}",
        "position": "none" if source["ra"] is None else f"{source['ra']:.7f} {source['dec']:+.7f} deg",
        "object": source["object_id"],
        "counts": "yes" if source["current"] else f"no, superseded by run {found['superseded_by']}",
        "file": found["file"], "sha256": found["sha256"], "bytes": found["bytes"],
        "observation": found["observation_id"], "run": f"{run['uid']}, recorded {run['recorded']}",
        "model": found["model"], "weights": found["weights_sha256"] or "none",
        "engine": " in ".join(filter(None, (found["engine"], found["precision"]))),
        "options": json.dumps(found["options"], sort_keys=True),
        "versions": ", ".join(f"{name} {value}" for name, value in found["versions"].items()),
        "output": run["output"],
    }  # fmt: skip
    for conflict in found.get("unresolved", ()):
        facts[f"unresolved with {conflict['source_id']}"] = f"{conflict['reason']}, {conflict['distance']:.2f} sigma"
    width = max(map(len, facts))
    for name, value in facts.items():
        text = "" if value is None else str(value)
        print(f"{name:<{width}}  {''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)}")
