"""OpenVINO on the processor: the fastest here, in float32 and, where the processor gains by it, in bf16."""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.base import check_input, register_engine
from models.engines.signal_stack import kept_signal_stack
from models.signature import NetworkInput, example_input, network_inputs
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

# Shapes that have a graph of their own, each with the memory of its layers; one that was not seen for so many calls
# makes room for another, and what finds no room shares a graph for all shapes.
_KEPT_SHAPES = 2
_IDLE_CALLS = 12


def import_openvino() -> ModuleType:
    """The openvino package, kept from reporting its use.

    On import and at every conversion it sends events to its maker and writes an identifier into the home.
    Without the package that does this it falls back to doing nothing; and a worker without a network does not
    wait for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@dataclass
class _Compiled:
    """A compiled graph, the requests of each thread (one for all threads for cubes), and the last call that used it."""

    graph: Any
    mine: threading.local | SimpleNamespace
    last: int


@register_engine("openvino", requires=("openvino",), precisions=("f32", "bf16", "int8"))
class OpenVinoEngine:
    """A graph compiled for the beam and the shapes that come: one image has one of the first and few of the second.

    A beam that is known makes its biases constants, which merge into the convolutions, and a shape that is known
    lets the answer leave in the order it is computed in: together 29% less work than one graph for all (light).
    Tiles of a cube are large and of many shapes: one graph and one request take them in turn, as fast (light3d) and
    with the memory of one tile.
    """

    name = "openvino"

    def __init__(self, module: nn.Module | Path, *, precision: str, threads: int) -> None:
        self.precision = precision
        self.threads = threads
        if not isinstance(module, Path):
            from models.engines.graph_file import cached_graph

            module = cached_graph(module, ".xml", write_openvino, writer=import_openvino().__version__)
        self.graph = module
        self._inputs = _graph_inputs(module)
        _check_precision(precision)
        self._compiled: dict[tuple, _Compiled] = {}
        self._calls = 0
        self._turn, self._cube_turn = threading.Lock(), threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        given = check_input(arrays, self._inputs)
        with self._cube_turn if given[0].ndim == 5 else contextlib.nullcontext():
            return self._infer({one.name: array for one, array in zip(self._inputs, given, strict=True)})

    def _infer(self, given: dict[str, np.ndarray]) -> np.ndarray:
        request = self._request(given[self._inputs[0].name].shape, given.get("beam"))
        if len(request.model_inputs) < len(given):
            # A graph for one beam holds it.
            given = {name: array for name, array in given.items() if name != "beam"}
        answer = request.model_outputs[0].partial_shape
        if answer.is_dynamic:
            request.infer(given, share_inputs=True)
            # The request writes its next answer into the same memory.
            return request.get_output_tensor(0).data.copy()
        # The answer is written where the caller may keep it.
        raw = np.empty(tuple(answer.to_shape()), np.float32)
        request.set_output_tensor(import_openvino().Tensor(raw, shared_memory=True))
        request.infer(given, share_inputs=True)
        return np.moveaxis(raw, -1, 1)

    def _request(self, shape: tuple[int, ...], beam: np.ndarray | None) -> Any:
        """This thread's request of the graph for a shape and, where the network asks for one, a beam."""
        known = beam[:1] if beam is not None and (beam == beam[0]).all() else None
        seen = None if known is None else known.tobytes()
        with self._turn:
            self._calls += 1
            key = (None if len(shape) == 5 else shape, seen)
            if key not in self._compiled:
                for old in [k for k, c in self._compiled.items() if self._calls - c.last > _IDLE_CALLS or k[1] != seen]:
                    del self._compiled[old]
                if sum(k[0] is not None for k in self._compiled) >= _KEPT_SHAPES:
                    key = (None, seen)
            if key not in self._compiled:
                mine = SimpleNamespace() if len(shape) == 5 else threading.local()
                self._compiled[key] = _Compiled(self._compile(key[0], known), mine, 0)
            compiled = self._compiled[key]
            compiled.last = self._calls
        if not hasattr(compiled.mine, "request"):
            compiled.mine.request = compiled.graph.create_infer_request()
        return compiled.mine.request

    def _compile(self, shape: tuple[int, ...] | None, beam: np.ndarray | None) -> Any:
        openvino = import_openvino()
        graph = openvino.Core().read_model(str(self.graph))
        if beam is not None:
            parameter = graph.input("beam").get_node()
            constant = openvino.opset13.constant(beam.astype(np.float32))
            for target in parameter.output(0).get_target_inputs():
                target.replace_source_output(constant.output(0))
            graph.remove_parameter(parameter)
        if shape is not None:
            answer = graph.get_results()[0]
            axes = np.array([0, *range(2, answer.get_output_partial_shape(0).rank.get_length()), 1])
            channels_last = openvino.opset13.transpose(answer.input_value(0), openvino.opset13.constant(axes))
            graph.remove_result(answer)
            graph.add_results([openvino.opset13.result(channels_last)])
            first, *others = [port.get_any_name() for port in graph.inputs]
            graph.reshape({first: list(shape), **{name: [shape[0], 4] for name in others}})
        # An ONNX is another engine's, whose numbers are to be shown.
        low = self.graph.suffix != ".onnx"
        return compile_graph(graph, precision=self.precision, threads=self.threads, low=low)

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._compiled.clear()


def _graph_inputs(path: Path) -> tuple[NetworkInput, ...]:
    """The inputs of a graph file: a side that may have any length is called by its axis."""
    ports = import_openvino().Core().read_model(str(path)).inputs
    return tuple(
        NetworkInput(
            port.get_any_name(),
            tuple(
                f"side {axis}" if side.is_dynamic else side.get_length()
                for axis, side in enumerate(port.partial_shape[1:], 1)
            ),
        )
        for port in ports
    )


def _check_precision(precision: str) -> None:
    able = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise OptionError(f"this processor computes in {', '.join(able)}, not in bf16: use precision f32")


def compile_graph(graph: Any, *, precision: str = "f32", threads: int = 1, low: bool = True) -> Any:
    """A model, or the file of one, compiled for the processor, its precision set: the default here would be bf16.

    What a quantised graph does not compute in 8 bits it computes in float32; with ``low`` false it does so throughout,
    every number rounded as the graph says: what other libraries' engines are compared by.
    """
    _check_precision(precision)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
        "INFERENCE_NUM_THREADS": threads,
        # Calls from several Python threads queue for one stream that has all the cores: as fast as a stream
        # per caller, with the memory of one, and a single caller is served as well.
        "NUM_STREAMS": 1,
        # Several worker processes would otherwise sit on the same cores.
        "ENABLE_CPU_PINNING": False,
        "LP_TRANSFORMS_MODE": low,
    }
    with kept_signal_stack():
        return import_openvino().Core().compile_model(graph, "CPU", settings)


def write_openvino(module: nn.Module, path: Path) -> None:
    """Write a network as an OpenVINO graph (path.xml and its weights, path.bin), float32, any batch and size.

    Converted from torch directly: 0.8 s for the reference network, where the way over ONNX takes 5 s.
    """
    from models.engines.graph_file import quiet

    openvino = import_openvino()
    with quiet():
        graph = openvino.convert_model(module, example_input=example_input(module))
    for port, one in zip(graph.inputs, network_inputs(module), strict=True):
        shape = [-1, *(-1 if isinstance(side, str) else side for side in one.shape)]
        port.get_tensor().set_names({one.name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    graph.outputs[0].get_tensor().set_names({"raw"})
    graph.validate_nodes_and_infer_types()
    openvino.save_model(graph, str(path), compress_to_fp16=False)
