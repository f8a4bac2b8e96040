"""OpenVINO graphs in 8 bits, by NNCF: fast on processors that multiply 8-bit numbers four at a time (VNNI)."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.openvino_engine import compile_graph, import_openvino, write_openvino
from models.engines.openvino_graph import shift_presence
from models.layer_choice import Inputs, choose_layers, decision_changes, halves
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from models.weights import Card

_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
# Share of a layer's inputs that may lie beyond its range, at each end.
OUTLIERS = 1e-5
# Undecided cells that tell the mean change of their logits: it is a fraction of their scatter.
LEAST_DECISIONS = 200


def import_nncf() -> ModuleType:
    """The nncf package, kept from reporting its use and from writing to the terminal.

    Raises
    ------
    OptionError
        When it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import nncf
    except ImportError as error:
        raise OptionError(
            "quantising a network needs the Python package nncf, not installed here: pip install skysift[quantise]"
        ) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def list_products(graph: Any) -> list[str]:
    """Names of the convolutions and matrix products that the first input goes through, in their order."""
    reached = {graph.inputs[0].get_node().get_friendly_name()}
    found = []
    for node in graph.get_ordered_ops():
        if any(one.get_node().get_friendly_name() in reached for one in node.input_values()):
            reached.add(node.get_friendly_name())
            if node.get_type_name() in _PRODUCTS:
                found.append(node.get_friendly_name())
    return found


def quantise_graph(graph: Any, samples: Inputs, layers: Sequence[int]) -> Any:
    """Copy of an OpenVINO graph in which some products take 8-bit numbers.

    Weights have a scale per channel, their inputs one for all, from the values that the samples have there; what the
    rounding does to the mean of each channel is taken off its bias.

    Parameters
    ----------
    graph : openvino.Model
        Float32, any shapes.
    samples : sequence of tuple of ndarray
        Batches of the graph's inputs, in their order.
    layers : sequence of int
        Places in `list_products`.
    """
    nncf = import_nncf()
    products = list_products(graph)
    chosen = {products[place] for place in layers}
    others = [
        node.get_friendly_name() for node in graph.get_ordered_ops()
        if node.get_friendly_name() not in chosen and node.get_type_name() not in ("Constant", "Parameter", "Result")
    ]  # fmt: skip
    names = [port.get_any_name() for port in graph.inputs]
    from nncf.quantization import range_estimator as ranges

    # A few values per hundred thousand may lie beyond: the step of all others is finer.
    kind, over = ranges.StatisticsType.QUANTILE, ranges.AggregatorType
    estimate = ranges.RangeEstimatorParameters(
        min=ranges.StatisticsCollectorParameters(kind, over.MIN, quantile_outlier_prob=OUTLIERS),
        max=ranges.StatisticsCollectorParameters(kind, over.MAX, quantile_outlier_prob=OUTLIERS),
    )
    with _silent():
        return nncf.quantize(
            graph,
            nncf.Dataset(list(samples), lambda given: dict(zip(names, given, strict=True))),
            subset_size=len(samples),
            # 8 bits without a sign for what has none: all that comes out of a ReLU.
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            # Processors without VNNI would need weights of 7 bits, with twice the change, and gain little.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE, activations_range_estimator_params=estimate
            ),
        )


def write_quantised(
    module: nn.Module, card: Card, path: Path, samples: Inputs, *, layers: Sequence[int] | None = None
) -> dict[str, Any]:
    """Write a network as an OpenVINO graph (path.xml and path.bin) whose costly middle computes in 8 bits.

    Parameters
    ----------
    module : nn.Module
        Folded, float32, in evaluation mode.
    card : Card
    path : Path
        Ends in .xml.
    samples : sequence of tuple of ndarray
        As `models.samples.sample_inputs` makes them.
    layers : sequence of int or None
        Places of the products to quantise; None: those of `choose_layers`.

    Returns
    -------
    dict
        For the graph's record: "layers" of so many "products", "changes" by layer, "shift" of P's logits, "versions".

    Raises
    ------
    OptionError
        When NNCF is not installed, or when there is no layer that may be quantised.
    """
    openvino, nncf = import_openvino(), import_nncf()
    with tempfile.TemporaryDirectory(prefix="skysift-") as scratch:
        exact = Path(scratch) / "exact.xml"
        write_openvino(module, exact)
        graph = openvino.Core().read_model(str(exact)).clone()
    alone: dict[int, float] = {}
    names = [port.get_any_name() for port in graph.inputs]
    if layers is None:
        ranged, seen = halves(samples)

        def answers(places: Sequence[int]) -> list[np.ndarray]:
            run = compile_graph(quantise_graph(graph.clone(), ranged, places) if places else graph.clone(), threads=2)
            return [run(dict(zip(names, given, strict=True)))[0].copy() for given in seen]

        layers, alone = choose_layers(_costs(graph, samples[0]), answers, module, card)
    made = quantise_graph(graph, samples, layers)
    shift = _centre_decisions(made, graph, samples, module)
    openvino.save_model(made, str(path), compress_to_fp16=False)
    return {
        "layers": list(layers), "products": len(list_products(graph)),
        "changes": {str(place): round(change, 5) for place, change in alone.items()}, "shift": round(shift, 5),
        "calibration": f"{len(samples)} batches of {' and '.join(str(one.shape) for one in samples[0])}",
        "versions": {"openvino": openvino.__version__, "nncf": nncf.__version__},
    }  # fmt: skip


def _centre_decisions(made: Any, exact: Any, samples: Inputs, module: nn.Module) -> float:
    """Take off a detector's logits of P what rounding adds to them on average where something may be a row or not.

    Each channel's mean over all cells is right already, of which hardly any hold a source.
    """
    head = getattr(module, "head", None)
    if head is None:
        return 0.0
    changes = decision_changes(module)
    names = [port.get_any_name() for port in exact.inputs]
    runs = [compile_graph(graph.clone(), threads=2, precision=one) for graph, one in ((exact, "f32"), (made, "int8"))]
    moved = np.concatenate(
        [changes(*(run(dict(zip(names, given, strict=True)))[0].copy() for run in runs)) for given in samples]
    )
    shift = -float(moved.mean()) if len(moved) >= LEAST_DECISIONS else 0.0
    return shift if shift_presence(made, head, shift) else 0.0


def _costs(graph: Any, given: tuple[np.ndarray, ...]) -> list[float]:
    """Multiply-accumulates of the products in their order, for a batch."""
    sized = graph.clone()
    sized.reshape({port.get_any_name(): list(one.shape) for port, one in zip(sized.inputs, given, strict=True)})
    nodes = {node.get_friendly_name(): node for node in sized.get_ordered_ops()}
    found = []
    for name in list_products(graph):
        places = nodes[name].get_output_shape(0)
        # A convolution's places come last, those of a matrix product between the batch and its outputs.
        places = places[1:-1] if nodes[name].get_type_name() == "MatMul" else places[2:]
        found.append(float(np.prod(nodes[name].get_input_shape(1)) * np.prod(list(places) or [1])))
    return found


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF draws bars of its progress and warns of what this package never asked for."""
    from models.engines.graph_file import quiet

    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield
