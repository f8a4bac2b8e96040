"""OpenVINO on the processor: the fastest here, in float32 and in bf16."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.base import check_input, register_engine
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def import_openvino() -> ModuleType:
    """The openvino package, kept from reporting its use.

    On import and at every conversion it sends events to its maker and writes an identifier into the home.
    Without the package that does this it falls back to doing nothing; and a worker without a network does not
    wait for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@register_engine("openvino", requires=("openvino",), precisions=("f32", "bf16"))
class OpenVinoEngine:
    """A compiled graph with dynamic batch, height and width (3% slower than a fixed shape)."""

    name = "openvino"

    def __init__(self, module: nn.Module, *, precision: str, threads: int) -> None:
        from models.engines.graph_file import cached_graph

        self.precision = precision
        self.threads = threads
        graph = cached_graph(module, ".xml", write_openvino, writer=import_openvino().__version__)
        self._compiled = compile_graph(str(graph), precision=precision, threads=threads)
        self._requests = threading.local()

    def __call__(self, snr: np.ndarray, beam: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        snr, beam = check_input(snr, beam)
        request = getattr(self._requests, "mine", None)
        if request is None:
            request = self._requests.mine = self._compiled.create_infer_request()
        request.infer({"snr": snr, "beam": beam}, share_inputs=True)
        # The request writes its next answer into the same memory.
        return request.get_output_tensor(0).data.copy()

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._requests = threading.local()
        self._compiled = None


def compile_graph(path: str, *, precision: str = "f32", threads: int = 1) -> Any:
    """A compiled model on the processor, its precision set: OpenVINO's own default here would be bf16."""
    core = import_openvino().Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise OptionError(f"this processor computes in {', '.join(able)}, not in bf16: use precision f32")
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        # Calls from several Python threads queue for one stream that has all the cores: as fast as a stream
        # per caller, with the memory of one, and a single caller is served as well.
        "NUM_STREAMS": 1,
        # Several worker processes would otherwise sit on the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(path, "CPU", settings)


def write_openvino(module: nn.Module, path: Path) -> None:
    """Write a network as an OpenVINO graph (path.xml and its weights, path.bin), float32, any batch and size.

    Converted from torch directly: 0.8 s for the reference network, where the way over ONNX takes 5 s.
    """
    from models.engines.graph_file import example_input, quiet

    openvino = import_openvino()
    with quiet():
        graph = openvino.convert_model(module, example_input=example_input(module))
    shapes = ([-1, 1, *(-1,) * module.head.ndim], [-1, 4])
    for port, name, shape in zip(graph.inputs, ("snr", "beam"), shapes, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    graph.outputs[0].get_tensor().set_names({"raw"})
    graph.validate_nodes_and_infer_types()
    openvino.save_model(graph, str(path), compress_to_fp16=False)
