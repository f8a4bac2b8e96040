"""OpenVINO on the processor: the fastest here, in float32 and, where the processor gains by it, in bf16."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.base import check_input, register_engine
from models.engines.openvino_graph import (
    HEAD_CELLS,
    FrontLayout,
    fix_beam,
    fix_shape,
    import_openvino,
    leave_channels_last,
    split_front,
    split_head,
)
from models.engines.signal_stack import kept_signal_stack
from models.signature import NetworkInput, example_input, network_inputs
from models.yolo.maps import LateMaps, RawMaps, WholeMaps
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from models.yolo.head import HeadSpec

# Shapes that have a graph of their own, each with the memory of its layers; one that was not seen for so many calls
# makes room for another, and what finds no room shares a graph for all shapes.
_KEPT_SHAPES = 2
_IDLE_CALLS = 12
# Voxels of a cube that the first layers take at once.
_FRONT_VOXELS = 800_000


@dataclass
class _Compiled:
    """A compiled graph, the requests of each thread (one for all threads for cubes), and the last call that used it;
    what goes with a graph that was cut: the layers before it, and the head."""

    graph: Any
    mine: threading.local | SimpleNamespace
    last: int
    front: _Front | None = None
    head: _Head | None = None


@register_engine("openvino", requires=("openvino",), precisions=("f32", "bf16", "int8"))
class OpenVinoEngine:
    """A graph compiled for the beam and the shapes that come: one image has one of the first and few of the second.

    A beam that is known makes its biases constants, which merge into the convolutions, and a shape that is known
    lets the answer leave in the order it is computed in: together 29% less work than one graph for all (light).
    Tiles of a cube are large and of many shapes: one graph and one request take them in turn, as fast (light3d) and
    with the memory of one tile; and the first layers, which need most of it, take a few channels at a time.
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

    def look(self, spec: HeadSpec, *arrays: np.ndarray) -> list[RawMaps]:
        """A detector's answer for each window of a batch, of which only what candidates need is computed.

        Parameters
        ----------
        spec : HeadSpec
        *arrays : ndarray
            As for a call.
        """
        # A cube that is looked at backwards is not copied whole.
        given = check_input(arrays, self._inputs, contiguous=False)
        named = {one.name: array for one, array in zip(self._inputs, given, strict=True)}
        with self._cube_turn if given[0].ndim == 5 else contextlib.nullcontext():
            request, front, head = self._request(given[0].shape, named.get("beam"), spec)
            if head is None:
                whole = {name: np.ascontiguousarray(array) for name, array in named.items()}
                return [WholeMaps(raw, spec) for raw in self._answer(request, whole)]
            grid = tuple(side // step for side, step in zip(given[0].shape[2:], spec.stride, strict=True))
            presence = np.empty((len(given[0]), spec.boxes, *grid), np.float32)
            layout = (head.width, *grid) if spec.ndim == 3 else (*grid, head.width)
            features = np.empty((len(given[0]), *layout), np.float32)
            for number, array in enumerate((presence, features)):
                request.set_output_tensor(number, import_openvino().Tensor(array, shared_memory=True))
            request.infer([np.ascontiguousarray(given[0]) if front is None else front(given[0])], share_inputs=True)
        features = np.moveaxis(features, 1, -1) if spec.ndim == 3 else features
        return [LateMaps(one, other, head, spec) for one, other in zip(presence, features, strict=True)]

    def _infer(self, given: dict[str, np.ndarray]) -> np.ndarray:
        request, *_ = self._request(given[self._inputs[0].name].shape, given.get("beam"))
        return self._answer(request, given)

    @staticmethod
    def _answer(request: Any, given: dict[str, np.ndarray]) -> np.ndarray:
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

    def _request(
        self, shape: tuple[int, ...], beam: np.ndarray | None, spec: HeadSpec | None = None
    ) -> tuple[Any, _Front | None, _Head | None]:
        """This thread's request of the graph for a shape and, where the network asks for one, a beam.

        With ``spec`` of the graph that leaves its head for later, where it can be cut, and that head; of cubes also
        without the first layers, and those.
        """
        known = beam[:1] if beam is not None and (beam == beam[0]).all() else None
        seen = None if known is None else known.tobytes()
        spec = spec if known is not None else None
        with self._turn:
            self._calls += 1
            key = (None if len(shape) == 5 else shape, seen, spec)
            if key not in self._compiled:
                idle = [k for k, c in self._compiled.items() if self._calls - c.last > _IDLE_CALLS or k[1] != seen]
                for old in idle:
                    del self._compiled[old]
                if sum(k[0] is not None for k in self._compiled) >= _KEPT_SHAPES:
                    key = (None, seen, spec)
            if key not in self._compiled:
                mine = SimpleNamespace() if len(shape) == 5 else threading.local()
                graph, front, head = self._compile(key[0], known, spec)
                self._compiled[key] = _Compiled(graph, mine, 0, front, head)
            compiled = self._compiled[key]
            compiled.last = self._calls
        if not hasattr(compiled.mine, "request"):
            compiled.mine.request = compiled.graph.create_infer_request()
        return compiled.mine.request, compiled.front, compiled.head

    def _compile(
        self, shape: tuple[int, ...] | None, beam: np.ndarray | None, spec: HeadSpec | None
    ) -> tuple[Any, _Front | None, _Head | None]:
        # An ONNX is another engine's, whose numbers are to be shown.
        low = self.graph.suffix != ".onnx"
        graph, parts = self._read(beam), None
        if spec is not None:
            parts = split_head(graph, self._read(beam), spec)
        front = None
        if parts is not None:
            graph = parts[0]
            cut = split_front(graph) if spec is not None and spec.ndim == 3 else None
            if cut is not None:
                first, graph, layout = cut
                front = _Front(compile_graph(first, precision=self.precision, threads=self.threads, low=low), layout)
        elif shape is not None:
            leave_channels_last(graph)
        if shape is not None:
            fix_shape(graph, shape)
        compiled = compile_graph(graph, precision=self.precision, threads=self.threads, low=low)
        head = None if parts is None else _Head(parts[1], self.precision, low)
        return compiled, front, head

    def _read(self, beam: np.ndarray | None) -> Any:
        graph = import_openvino().Core().read_model(str(self.graph))
        if beam is not None:
            fix_beam(graph, beam)
        return graph

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._compiled.clear()


class _Front:
    """The first layers of a network for cubes, `_FRONT_VOXELS` voxels at a time: for one caller in turn."""

    def __init__(self, graph: Any, layout: FrontLayout):
        self._request, self._layout = graph.create_infer_request(), layout

    def __call__(self, snr: np.ndarray) -> np.ndarray:
        """Cells (B, width, C / stride, ...) of cubes (B, 1, C, H, W)."""
        stride, reach = self._layout.stride, self._layout.reach
        count, channels = snr.shape[2] // stride, snr.shape[2]
        parts = -(-snr[0, 0].size // _FRONT_VOXELS)
        # All parts are of one length, for which the graph is made ready once: the last overlaps with the one before.
        length = -(-count // min(parts, count))
        answer = None
        for number, cube in enumerate(snr):
            for begin in range(0, count, length):
                begin = min(begin, count - length)
                first, last = begin * stride - reach, (begin + length) * stride + reach
                rows = cube[:, max(first, 0) : min(last, channels)]
                if first < 0 or last > channels:
                    rows = np.pad(rows, ((0, 0), (max(-first, 0), max(last - channels, 0)), (0, 0), (0, 0)))
                self._request.infer([np.ascontiguousarray(rows[None])], share_inputs=True)
                cells = self._request.get_output_tensor(0).data
                if answer is None:
                    answer = np.empty((len(snr), self._layout.width, count, *cells.shape[3:]), np.float32)
                answer[number, :, begin : begin + length] = cells[0]
        return answer


class _Head:
    """The layers that were left for later, `HEAD_CELLS` cells at a time."""

    def __init__(self, graph: Any, precision: str, low: bool):
        self._graph, self._mine = compile_graph(graph, precision=precision, low=low), threading.local()
        self._shape = tuple(graph.inputs[0].get_shape())
        self.width = self._shape[1]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whole answers, (n, channels), of cells with features (n, k)."""
        if not hasattr(self._mine, "request"):
            self._mine.request = self._graph.create_infer_request()
        answers = []
        for first in range(0, len(features), HEAD_CELLS):
            part = features[first : first + HEAD_CELLS]
            given = np.zeros(self._shape, np.float32)
            given.reshape(len(given), -1)[: len(part)] = part
            self._mine.request.infer([given], share_inputs=True)
            answers.append(self._mine.request.get_output_tensor(0).data.reshape(len(given), -1)[: len(part)].copy())
        return np.concatenate(answers)


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
