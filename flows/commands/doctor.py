"""``skysift doctor``: is everything here that a run or a service needs, and if not, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pipeline.doctor import Finding


def doctor(
    catalogue: str | None = typer.Option(
        None, metavar="URL", help="The survey's catalogue: folder or URL [default: $SKYSIFT_CATALOGUE, if set]."
    ),
    inbox: Path | None = typer.Option(None, metavar="DIR", help="Folder that files arrive in."),
    output: list[Path] = typer.Option(
        [Path(".")], "-o", "--output", metavar="DIR", help="Folder for results; may be given several times."
    ),
    cluster: str | None = typer.Option(None, help="Dask cluster that shall be usable, by name or file."),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> int:
    """Check installation, engines, weights, GPU, disks, catalogue, server and clock, and say what to do.

    Nothing is changed by it. The exit status is 1 when a check failed; warnings leave it 0.
    """
    from pipeline.doctor import FAIL, worst

    findings = diagnose(catalogue=catalogue, inbox=inbox, output=output, cluster=cluster)
    if as_json:
        import json

        from pipeline.doctor.finding import as_json as plain

        print(json.dumps(plain(findings), indent=2))
    else:
        _show(findings)
    return 1 if worst(findings) == FAIL else 0


def diagnose(
    *, catalogue: str | None = None, inbox: Path | None = None, output: Sequence[Path] = (), cluster: str | None = None
) -> list[Finding]:
    """All findings of the doctor, in the order in which they are printed."""
    import os
    from functools import partial

    from flows.doctor import check_clusters, check_prefect
    from models.engines.graph_file import cache_folder
    from pipeline.doctor import Place, installation, machine, networks, run_checks
    from pipeline.doctor.survey import check_catalogue

    catalogue = catalogue or os.environ.get("SKYSIFT_CATALOGUE") or None
    places = [Place("output", path) for path in output]
    places.append(Place("cache", cache_folder()))
    if inbox is not None:
        places.append(Place("inbox", inbox))
    checks = {
        "installation": installation.check_versions,
        "torchvision": installation.check_torchvision,
        "encoding": installation.check_encoding,
        "user": installation.check_user,
        "processor": machine.check_processor,
        "memory": machine.check_memory,
        "shared memory": machine.check_shared_memory,
        "open files": machine.check_limits,
        "GPU": machine.check_gpu,
        "engines": networks.check_engines,
        "weights": networks.check_weights,
        "folders": partial(machine.check_places, places),
        "catalogue": partial(check_catalogue, catalogue),
        "clock": machine.check_clock,
        "Prefect": check_prefect,
        "clusters": partial(check_clusters, cluster),
    }
    return run_checks(checks)


def _show(findings: list[Finding]) -> None:
    from pipeline.journal import printable

    width = max(len(printable(one.check)) for one in findings)
    for one in findings:
        print(f"{one.status:<4}  {printable(one.check):<{width}}  {printable(one.found)}")
        if one.advice:
            print(f"{'':<{width + 6}}  -> {printable(one.advice)}")
    bad = [sum(one.status == status for one in findings) for status in ("fail", "warn")]
    print(f"{len(findings)} checks: {bad[0]} failed, {bad[1]} with a warning")
