"""Prefect flow: a network's weights as a graph for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.export import export as export_weights

from . import environment as environment  # before Prefect, which reads its settings at import

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

export_model = task(export_weights, name="export model", cache_policy=NO_CACHE)


@flow(name="export")
def export(model: str, output: Path, format: Literal["onnx", "openvino"] = "onnx") -> Path:
    """Export as ``skysift export`` does; returns the graph's file."""
    return export_model(model, output, format=format)
