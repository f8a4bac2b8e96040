"""ONNX graphs in 8 bits by explicit quantise and dequantise nodes, of onnxruntime's making: what TensorRT takes.

Symmetric numbers with a scale per channel of the weights and one for all of their inputs; biases and everything else
stay in float32, or in 16 bits (`models.engines.mixed`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.fp8_scales import use_whole_range
from models.engines.mixed import mixed_precision, write_graph
from models.engines.openvino_engine import compile_graph
from models.layer_choice import Inputs, choose_layers, halves
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from models.weights import Card

_PRODUCTS = ("Conv", "Gemm", "MatMul")
# What int8 ranges leave out: 8 bits with a sign have 127 steps for what comes out of a ReLU.
_PERCENTILE = 99.999


def list_graph_products(model: Any) -> list[str]:
    """Names of the convolutions and matrix products that the first input goes through, in their order."""
    reached = {model.graph.input[0].name}
    found = []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            if node.op_type in _PRODUCTS:
                found.append(node.name)
    return found


def write_quantised_graph(
    module: nn.Module, card: Card, precision: str, samples: Inputs, *, layers: Sequence[int] | None = None,
    rest: str = "fp16",
) -> tuple[bytes, dict[str, Any]]:  # fmt: skip
    """A folded float32 network as ONNX with 8-bit products.

    Parameters
    ----------
    module : nn.Module
    card : Card
    precision : str
        "int8", or "fp8": 4 bits of exponent and 3 of mantissa.
    samples : sequence of tuple of ndarray
        Batches of the network's inputs, which set the scales; as `models.samples.sample_inputs` makes them.
    layers : sequence of int or None
        Places in `list_graph_products`; None: those of `models.layer_choice.choose_layers`.
    rest : str
        What lies between first and last product and is not quantised computes in this: "f32", "fp16" or "bf16".

    Returns
    -------
    graph : bytes
        Equal arguments give equal bytes.
    told : dict
        For the graph's record: "layers" of so many "products", "changes" by layer, "calibration", "rest", "versions".

    Raises
    ------
    OptionError
        For another precision, or a network without a layer that may be quantised.
    """
    import onnx
    import onnxruntime

    if precision not in ("int8", "fp8"):
        raise OptionError(f"precision {precision!r}: expected int8 or fp8 for a quantised graph")
    exact = write_graph(module, "f32")
    model = onnx.load_from_string(exact)
    products, names = list_graph_products(model), [one.name for one in model.graph.input]
    alone: dict[int, float] = {}
    if layers is None:
        ranged, seen = halves(samples)

        def answers(places: Sequence[int]) -> list[np.ndarray]:
            graph = _quantised(exact, precision, ranged, [products[place] for place in places]) if places else model
            with tempfile.TemporaryDirectory(prefix="skysift-") as scratch:
                path = Path(scratch) / "tried.onnx"
                onnx.save(graph, path)
                run = compile_graph(str(path), threads=2, low=False)
            return [run(dict(zip(names, given, strict=True)))[0].copy() for given in seen]

        layers, alone = choose_layers(_costs(model, products), answers, module, card)
    quantised = _quantised(exact, precision, samples, [products[place] for place in layers])
    told = {
        "layers": list(layers), "products": len(products),
        "changes": {str(place): round(change, 5) for place, change in alone.items()},
        "calibration": f"{len(samples)} batches of {' and '.join(str(one.shape) for one in samples[0])}",
        "rest": rest, "versions": {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__},
    }  # fmt: skip
    return mixed_precision(quantised, rest).SerializeToString(deterministic=True), told


def _costs(model: Any, products: list[str]) -> list[float]:
    """Weights of the products: as good as their work where all have the same places."""
    sizes = {one.name: float(np.prod(one.dims)) for one in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    return [max((sizes[name] for name in nodes[one].input if name in sizes), default=1.0) for one in products]


def _quantised(exact: bytes, precision: str, samples: Inputs, chosen: list[str]) -> Any:
    import onnx
    from onnxruntime import quantization

    kind, method = {
        "int8": (quantization.QuantType.QInt8, quantization.CalibrationMethod.Percentile),
        "fp8": (quantization.QuantType.QFLOAT8E4M3FN, quantization.CalibrationMethod.Distribution),
    }[precision]
    with tempfile.TemporaryDirectory(prefix="skysift-") as scratch, _silent():
        source, made = Path(scratch) / "exact.onnx", Path(scratch) / "made.onnx"
        source.write_bytes(exact)
        names = [one.name for one in onnx.load_from_string(exact).graph.input]
        quantization.quantize_static(
            str(source),
            str(made),
            _reader(samples, names),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=kind,
            weight_type=kind,
            per_channel=True,
            nodes_to_quantize=chosen,
            calibrate_method=method,
            extra_options={
                "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False,
                "CalibPercentile": _PERCENTILE, "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
            },
        )  # fmt: skip
        quantised = onnx.load(made)
    if precision == "fp8":
        use_whole_range(quantised, onnx.load_from_string(exact), samples)
    _keep_exact(quantised.graph, set(chosen))
    return quantised


def _keep_exact(graph: Any, chosen: set[str]) -> None:
    """Let what is not quantised, such as the sum around a residual block, take the values before the rounding."""
    quantised = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    exact = {
        node.output[0]: quantised[node.input[0]]
        for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in quantised
    }  # fmt: skip
    for node in graph.node:
        if node.name not in chosen:
            for place, name in enumerate(node.input):
                if name in exact:
                    node.input[place] = exact[name]


def _reader(samples: Inputs, names: list[str]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.source = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            given = next(self.source, None)
            return None if given is None else dict(zip(names, given, strict=True))

    return Reader()


@contextlib.contextmanager
def _silent():  # noqa: ANN202  (a context)
    """The quantiser tells of its progress on the terminal and advises, through the root logger, what is done here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
