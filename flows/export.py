"""Prefect flow: a network's weights as a graph for other programs, or as an engine for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.export import export as export_weights
from pipeline.exports import export_checked

from . import environment as environment  # before Prefect, which reads its settings at import

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

export_model = task(export_weights, name="export model", cache_policy=NO_CACHE)
build_engine = task(export_checked, name="build engine", cache_policy=NO_CACHE)


@flow(name="export")
def export(
    model: str,
    output: Path,
    format: Literal["onnx", "openvino"] = "onnx",
    engine: Literal["tensorrt", "openvino"] | None = None,
    precision: Literal["fp16", "bf16", "f32", "int8", "fp8"] = "fp16",
    targets: list[str] | None = None,
    sky: float = 1.0,
    force: bool = False,
) -> Path:
    """Export as ``skysift export`` does; returns the file of the graph or, with an engine's name, of the engine."""
    if engine is None:
        return export_model(model, output, format=format)
    return build_engine(
        model, output, engine=engine, precision=precision, targets=targets or [], sky=sky, force=force
    )
