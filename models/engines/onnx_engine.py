"""ONNX Runtime on the processor: pure float32, 1.5 to 2 times torch."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import check_input, register_engine
from models.signature import example_input, network_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

# Before this version exporters split a group normalisation into many nodes.
OPSET = 21


@register_engine("onnx", requires=("onnxruntime", "onnx", "onnxscript"), precisions=("f32",))
class OnnxEngine:
    """The runtime over the exported graph, which stays in the cache folder."""

    name = "onnx"

    def __init__(self, module: nn.Module, *, precision: str, threads: int) -> None:
        from models.engines.graph_file import cached_graph

        self.precision = precision
        self.threads = threads
        self._inputs = network_inputs(module)
        graph = cached_graph(module, ".onnx", write_onnx, writer=f"opset {OPSET}")
        self._runtime = open_runtime(str(graph), threads)
        # A call runs in its own thread beside the runtime's: one at a time keeps to the number asked for.
        self._turn = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        given = check_input(arrays, self._inputs)
        named = {one.name: array for one, array in zip(self._inputs, given, strict=True)}
        with self._turn:
            return self._runtime.run(["raw"], named)[0]

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._runtime = None


def open_runtime(path: str, threads: int = 1):  # noqa: ANN201  (onnxruntime is imported here only)
    """An ONNX Runtime on the processor, without spinning threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def write_onnx(module: nn.Module, path: Path, *, opset: int = OPSET) -> None:
    """Write a network as ONNX: its inputs by name with any batch and free sides, and the output raw."""
    import torch

    from models.engines.graph_file import quiet

    inputs = network_inputs(module)
    sizes = tuple(
        {0: "batch", **{axis + 1: side for axis, side in enumerate(one.shape) if isinstance(side, str)}}
        for one in inputs
    )
    with quiet():
        program = torch.onnx.export(
            module,
            example_input(module),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=sizes,
            input_names=[one.name for one in inputs],
            output_names=["raw"],
            verbose=False,
        )
        program.save(str(path))
