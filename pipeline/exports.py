"""A network exported as an engine, and what its catalogue makes of that: parity, speed, and the card that tells."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from models.export_engine import Exported, export_engine
from models.gates import EXACT, Gate, keep_gate
from models.quantised import QUANTISED, keep_graph, tried_graph
from pipeline.parity import NoSky, measure_gates
from survey_io.errors import OptionError, OutputError, SkysiftError


def export_checked(
    model: str,
    output: Path,
    *,
    engine: str = "tensorrt",
    precision: str = "fp16",
    targets: Sequence[str] = (),
    batch: tuple[int, int, int] | None = None,
    tile: tuple[int, int, int] | None = None,
    layers: Sequence[int] | None = None,
    sky: float = 1.0,
    force: bool = False,
    data: Path | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Export an engine as `models.export_engine.export_engine` does, after its catalogue was compared with float32's.

    The numbers go into the card and into this machine's records (`models.gates`), a quantised graph to where
    ``--precision int8`` finds it. TensorRT's are those of the graph that the engine is built from, run on the
    processor, so that they can be had where there is no GPU.

    Parameters
    ----------
    model : str
        Name of weights, or a safetensors file.
    output : Path
        Folder of the files.
    engine, precision, targets, batch, tile, layers, data
        As `export_engine` takes them.
    sky : float
        Share of the held-out sky to look at: thousands of rows at 1, which take some minutes; 0 for none.
    force : bool
        Keep an engine whose catalogue differs by more than `models.gates.LIMIT` of rows or score.
    report : callable
        Receives a line per sky.

    Returns
    -------
    Path
        The engine.

    Raises
    ------
    OptionError, InputError, OutputError
        As `export_engine`; also for a share beyond 0 to 1.
    SkysiftError
        When the catalogue differs too much, with the numbers; nothing is left of the export then.
    """
    if not 0 <= sky <= 1:
        raise OptionError(f"sky: expected a share from 0 to 1 of the held-out sky, got {sky:g}")
    folder = Path(output)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Moved when all is well: what an earlier export left stays until then.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
            made = export_engine(
                model, scratch, engine=engine, precision=precision, targets=targets, batch=batch, tile=tile,
                layers=layers, data=data,
            )  # fmt: skip
            gate, said = _gate(model, engine, precision, made, sky, data, report)
            if gate is not None and not gate.passed:
                if not force:
                    raise SkysiftError(f"{model} in {precision} {gate.fault}, or --force")
                report(f"kept by --force, though {model} in {precision} changes {gate.line}")
            if precision in QUANTISED:
                keep_graph(model, engine, precision, made.graph, made.told)
            if gate is not None:
                keep_gate(model, gate)
            card = json.loads(made.card.read_text(encoding="utf-8"))
            card["catalogue"] = (
                {"compared": False, "reason": said} if gate is None
                else {"compared": True, **gate.told(), "forced": not gate.passed}
            )  # fmt: skip
            made.card.write_text(json.dumps(card, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            for file in sorted(Path(scratch).iterdir(), key=lambda file: file == made.path):
                os.replace(file, folder / file.name)
        return folder / made.path.name
    except OSError as error:
        what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        raise OutputError(f"{folder}: cannot write the export: {what}") from error
    finally:
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _gate(
    model: str, engine: str, precision: str, made: Exported, sky: float, data: Path | None,
    report: Callable[[str], None],
) -> tuple[Gate | None, str]:  # fmt: skip
    """The gate, or None and why the catalogues were not compared."""
    if precision == EXACT:
        return None, "f32 is what others are compared with"
    if not sky:
        return None, "not asked for (--sky 0)"
    try:
        return _measure(model, engine, precision, made, sky, data, report), ""
    except NoSky as error:
        report(f"not compared with f32's catalogue: {error.message}")
        return None, error.message


def _measure(
    model: str, engine: str, precision: str, made: Exported, sky: float, data: Path | None,
    report: Callable[[str], None],
) -> Gate:  # fmt: skip
    """The gate of an exported graph, by OpenVINO on the processor."""
    if engine == "openvino" and precision not in QUANTISED:
        return measure_gates(model, [(engine, precision)], share=sky, data=data, report=report)[0]
    with tried_graph(model, "openvino", "int8", made.graph):
        (gate,) = measure_gates(
            model, [("openvino", "int8")], share=sky, data=data, report=report, names=[(engine, precision)]
        )
    if precision not in QUANTISED:
        gate = replace(gate, graph="")
    # The processor's speed with the graph of another engine says nothing.
    return gate if engine == "openvino" else replace(gate, speed={})
