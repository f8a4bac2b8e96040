"""A float32 graph in which the costly middle computes in 16 bits: the precision of engines that take it from the graph.

Not by a library: the kept ones know float16 only (onnxconverter-common), or bring a whole training stack.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

MIXED = ("fp16", "bf16")
# The first opset in which convolutions of bfloat16 are defined.
OPSET = 22
# Where nearly all multiply-accumulates are.
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
# Sums over many values: 11 bits of a running sum are too few, and they cost little.
_FULL = frozenset(
    {
        "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Softmax",
        "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "GlobalAveragePool",
        "CumSum",
    }
)  # fmt: skip


def write_graph(module: nn.Module, precision: str) -> bytes:
    """A folded float32 network as the ONNX that a plan of this precision is built from.

    Raises
    ------
    OptionError
        For a precision that graphs are not made in.
    """
    import onnx

    from models.engines.onnx_engine import write_onnx

    with tempfile.TemporaryDirectory(prefix="skysift-") as scratch:
        path = Path(scratch) / "graph.onnx"
        write_onnx(module, path, opset=OPSET)
        return mixed_precision(onnx.load(path), precision).SerializeToString(deterministic=True)


def mixed_precision(model: Any, precision: str) -> Any:
    """Copy of a graph with 16-bit numbers between its first and its last products, and casts around them.

    Inputs and outputs stay float32; so does what comes before the first convolution or matrix product (compressing
    an S/N beyond 65504), the last one and what follows it, and sums over many values (normalisations, means).

    Parameters
    ----------
    model : onnx.ModelProto
        Float32, without 16-bit values; shapes may be dynamic.
    precision : str
        "f32" (nothing is cast), "fp16" or "bf16".

    Returns
    -------
    onnx.ModelProto
        Without the exporter's notes: equal networks give equal bytes.

    Raises
    ------
    OptionError
        For another precision, or weights that float16 cannot hold.
    """
    import onnx

    if precision not in ("f32", *MIXED):
        raise OptionError(f"precision {precision!r}: expected one of f32, {', '.join(MIXED)} for a graph's numbers")
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    _forget_notes(copied)
    if precision != "f32":
        _Lowering(onnx.shape_inference.infer_shapes(copied), precision).apply(copied.graph)
    return copied


def _forget_notes(model: Any) -> None:
    """Drop where in the source each node came from: paths of this machine."""
    model.producer_version = ""
    graph = model.graph
    parts = (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (model, graph, *parts):
        del part.metadata_props[:]
        part.doc_string = ""


class _Lowering:
    """Which nodes compute in 16 bits, and the casts that this takes."""

    def __init__(self, typed: Any, precision: str) -> None:
        import ml_dtypes
        import onnx

        self._float = onnx.TensorProto.FLOAT
        self._kind, self._dtype = {
            "fp16": (onnx.TensorProto.FLOAT16, np.dtype(np.float16)),
            "bf16": (onnx.TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
        }[precision]
        self._precision = precision
        graph = typed.graph
        self._floats = {
            value.name
            for value in (*graph.value_info, *graph.input, *graph.output)
            if value.type.tensor_type.elem_type == self._float
        }
        self._constants = {one.name: one for one in graph.initializer if one.data_type == self._float}
        self._floats |= set(self._constants)
        known = {value.name for value in (*graph.value_info, *graph.output)}
        for node in graph.node:
            # The types of a few operators (GroupNormalization) are not inferred: they answer with their input's.
            if self._floats.intersection(node.input):
                self._floats.update(name for name in node.output if name not in known)

    def apply(self, graph: Any) -> None:
        """Rewrite the graph."""
        from onnx import helper, numpy_helper

        originals = list(graph.node)
        inner = self._inner(originals)
        low_values = {name for number in inner for name in originals[number].output if name in self._floats}
        kept, made, nodes = set(), {}, []
        for number, node in enumerate(originals):
            low = number in inner
            for place, name in enumerate(node.input):
                if name not in self._floats:
                    continue
                if name in self._constants:
                    if not low:
                        kept.add(name)
                        continue
                    made.setdefault(name, numpy_helper.from_array(self._rounded(name), f"{name}_{self._precision}"))
                    node.input[place] = made[name].name
                elif low != (name in low_values):
                    cast = f"{name}_{self._precision if low else 'f32'}"
                    if cast not in made:
                        made[cast] = None
                        kind = self._kind if low else self._float
                        nodes.append(helper.make_node("Cast", [name], [cast], name=f"cast {cast}", to=kind))
                    node.input[place] = cast
            nodes.append(node)
        initializers = [one for one in graph.initializer if one.name not in self._constants or one.name in kept]
        initializers += [one for one in made.values() if one is not None]
        for value in graph.value_info:
            if value.name in low_values:
                value.type.tensor_type.elem_type = self._kind
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(initializers)

    def _inner(self, nodes: list[Any]) -> set[int]:
        """Places of the nodes that compute in 16 bits: from the first product on, and with a product after them."""
        reached: set[str] = set()
        begun = set()
        for number, node in enumerate(nodes):
            if node.op_type in _PRODUCTS or reached.intersection(node.input):
                reached.update(node.output)
                begun.add(number)
        leading: set[str] = set()
        inner = set()
        for number, node in reversed(list(enumerate(nodes))):
            leads = bool(leading.intersection(node.output))
            if leads or node.op_type in _PRODUCTS:
                leading.update(node.input)
            floating = node.op_type == "QuantizeLinear" or bool(self._floats.intersection(node.output))
            if leads and floating and number in begun and node.op_type not in _FULL and node.op_type != "Cast":
                inner.add(number)
        # Quantised weights come out of a node of their own, in the precision of what takes them.
        takers = {name: number for number, node in enumerate(nodes) for name in node.input}
        for number, node in enumerate(nodes):
            if node.op_type == "DequantizeLinear" and takers.get(node.output[0]) in inner:
                inner.add(number)
        return inner

    def _rounded(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        exact = numpy_helper.to_array(self._constants[name])
        with np.errstate(over="ignore"):
            rounded = exact.astype(self._dtype)
        if not _finite(rounded, exact):
            raise OptionError(
                f"weights {name!r} reach {np.abs(exact).max():.3g}, beyond float16's 65504: use bf16 or f32"
            )
        return rounded


def _finite(rounded: np.ndarray, exact: np.ndarray) -> bool:
    return bool((np.isfinite(rounded.astype(np.float32)) | ~np.isfinite(exact)).all())


def count_types(model: Any, kinds: Iterable[str] = _PRODUCTS) -> dict[str, int]:
    """How many products of a graph take their weights in each precision: {"f32": 2, "fp16": 15}."""
    import onnx

    names = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
    types = {one.name: names.get(one.data_type, "other") for one in model.graph.initializer}
    found: dict[str, int] = {}
    for node in model.graph.node:
        kind = next((types[name] for name in node.input if name in types), None) if node.op_type in kinds else None
        if kind is not None:
            found[kind] = found.get(kind, 0) + 1
    return found
