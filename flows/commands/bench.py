"""``skysift bench``: what this machine makes of the networks."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import typer

from survey_io.errors import OutputError


def bench(
    model: str | None = typer.Option(None, help="Comma list of models or weights files [default: light]."),
    engine: str | None = typer.Option(None, help="Comma list of engines [default: all that run here]."),
    precision: str | None = typer.Option(None, help="Comma list of precisions [default: all]."),
    device: str | None = typer.Option(None, help="cpu or cuda:0 [default: the first GPU and the processor]."),
    size: int | None = typer.Option(None, help="Side of a window [default: 512 px, 64 voxels, 8192 channels]."),
    batch: int | None = typer.Option(None, help="Windows of a call [default: 1; 16 of classifiers]."),
    threads: int | None = typer.Option(None, help="Cores of the processor [default: all]."),
    seconds: float | None = typer.Option(None, help="Time for each model, beside loading [default: 8]."),
    compiled: bool = typer.Option(False, "--compile", help="Also time torch's networks compiled."),
    alone: bool = typer.Option(False, "--alone", help="Only the networks, not the way from a file to detections."),
    trace: Path | None = typer.Option(
        None, metavar="FILE.json", help="Write a timeline of the stages on a device, for ui.perfetto.dev."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON with machine and versions in place of the table."),
    output: Path | None = typer.Option(None, "-o", "--output", metavar="FILE.json", help="Write that JSON here too."),
) -> int:
    """Time networks alone and from a file to detections, beside the peak that is measured in the same minutes.

    Engines take turns, and the best call of each counts. MAC/unit: multiply-accumulates of a pixel, voxel, channel or
    item. "of peak": share of what square matrix products reach in that precision. "of copy": share of a copy's
    bandwidth, if every layer reads and writes its maps once.
    """
    from flows.settings import resolve_options
    from pipeline.bench import BenchOptions, run_bench

    given = {
        "model": model, "engine": engine, "precision": precision, "device": device, "size": size, "batch": batch,
        "threads": threads, "seconds": seconds, "whole": False if alone else None, "compiled": compiled or None,
        "trace": trace,
    }  # fmt: skip
    options = resolve_options(BenchOptions, given)
    # Every engine is taken because it was asked for.
    logging.getLogger("skysift.engine").setLevel(logging.WARNING)
    result = run_bench(options, say=_say if sys.stderr.isatty() else lambda _: None)
    text = json.dumps(result, indent=2)
    if output is not None:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{output}: cannot write the measurements: {error.strerror}") from None
    print(text if as_json else "\n".join(table_lines(result)))
    return 0


def _say(what: str) -> None:
    print(f"skysift: bench: {what}", file=sys.stderr, flush=True)


def table_lines(result: dict[str, Any]) -> list[str]:
    """The measurements as lines of text."""
    machine = result["machine"]
    cards = "".join(f"; {card['name']}, {card['memory_gib']} GiB" for card in machine["gpus"])
    lines = [
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['memory_gib']} GiB{cards}"
        f"; load {machine['load']}",
        ", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    ]
    for device, peak in result["peaks"].items():
        flops = ", ".join(f"{_si(value)}FLOP/s in {name}" for name, value in peak["flops"].items())
        lines.append(f"{device}: matrix products {flops or 'not measured'}; copies {_si(peak['copy'])}B/s")
    heads = (
        "model", "engine", "prec.", "device", "network alone", "MAC/unit", "FLOP/s", "of peak", "B/s", "of copy",
        "latency ms (95%)", "whole", "found", "J per unit",
    )  # fmt: skip
    rows = [heads, *(_cells(row) for row in result["rows"])]
    widths = [max(len(row[i]) for row in rows if len(row) == len(heads)) for i in range(len(heads))]
    lines += ["", *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
                    for row in rows)]  # fmt: skip
    lines += ["", f"energy: {result['energy']}"]
    if "lanes" in result:
        shares = ", ".join(f"{lane} {share:.0%}" for lane, share in result["lanes"].items())
        lines.append(f"timeline, share of the time at work: {shares}")
    return lines


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    first = (Path(row["model"]).stem, row["engine"], row["precision"], row["device"])
    if "refused" in row:
        return (*first, f"refused: {row['refused']}")
    unit = row["unit"]
    whole = f"{_number(row['whole_rate'])} {unit}" if "whole_rate" in row else "-"
    latency = f"{_number(row['latency_ms'])} ({_number(row['latency_95_ms'])})"
    energy = "-" if row["joules_per_unit"] is None else f"{row['joules_per_unit']:.2g}"
    found = str(row.get("detections", "-"))
    alone = f"{_number(row['rate'])} {unit}"
    return (
        *first, alone, _si(row["macs_per_item"]), _si(row["flops"]), _share(row["peak_share"]),
        _si(row["bytes_per_second"]), _share(row["copy_share"]), latency, whole, found, energy,
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _si(value: float) -> str:
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {prefix}"
    return f"{value:.3g} "
