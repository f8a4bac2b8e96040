"""``skysift evaluate``: a catalogue against the truth."""

from __future__ import annotations

from pathlib import Path

import typer


def evaluate(
    catalogue: Path = typer.Argument(
        ...,
        metavar="CATALOGUE",
        help="Catalogue in any format of skysift, or an SDC1 or SDC2 list.",
        show_default=False,
    ),
    truth: Path = typer.Argument(..., metavar="TRUTH", help="Truth in the SDC1 or SDC2 columns.", show_default=False),
    scorer: str = typer.Option("match", help="match; sdc1: the same headed by the challenge's score; sdc2: for cubes."),
    frequency: float = typer.Option(560, help="SDC1 band in MHz: 560, 1400 or 9200."),
    mode: str = typer.Option("core", help="SDC1 positions: core or centroid."),
    beam: float | None = typer.Option(None, help="Beam FWHM in arcsec [default: from the catalogue]."),
    radius: float | None = typer.Option(
        None, help="Match radius in arcsec [default: half the source's size]."
    ),
    picture: Path | None = typer.Option(None, metavar="FILE.png", help="Write a picture of the comparison."),
    output: Path | None = typer.Option(
        None, "-o", "--output", metavar="FILE.json", help="Write the numbers."
    ),
    flow: bool = typer.Option(False, "--flow", help="Run as a Prefect flow, server or not."),
) -> int:
    """Print completeness, reliability, flux and size errors, and calibration of a catalogue."""
    from flows.server import configured_api_url, require_server

    url = configured_api_url()
    if url:
        require_server(url)
    if flow or url:
        from flows.evaluate import evaluate as run
    else:
        from pipeline.evaluate import evaluate as run
    report = run(
        catalogue,
        truth,
        scorer=scorer,
        frequency=frequency,
        mode=mode,
        beam=beam,
        radius=radius,
        picture=picture,
    )
    print(report)
    if output is not None:
        import json

        output.write_text(json.dumps(report.values, indent=1, default=float), encoding="utf-8")
    return 0
