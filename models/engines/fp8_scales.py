"""Scales of 8-bit floats by the largest value, not by the spread: a float keeps its digits over its whole range.

onnxruntime fits the spread of values to that of the format, which cuts off whatever lies beyond 4.5 standard
deviations: in a map of sky, the sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.layer_choice import Inputs

# Largest number of 4 bits of exponent and 3 of mantissa without infinities (E4M3FN).
LARGEST = 448.0
# Sources may be as much brighter than those of the samples; the smallest numbers lose a bit by it.
ROOM = 2.0


def use_whole_range(quantised: Any, exact: Any, samples: Inputs) -> None:
    """Set the scales of a graph's 8-bit floats, in place, and round its weights anew.

    Parameters
    ----------
    quantised : onnx.ModelProto
        With QuantizeLinear before the inputs and DequantizeLinear behind the weights, "NAME_quantized", of products.
    exact : onnx.ModelProto
        What it was made from.
    samples : sequence of tuple of ndarray
        Batches of the graph's inputs, in their order.
    """
    from ml_dtypes import float8_e4m3fn
    from onnx import numpy_helper

    held = {one.name: one for one in quantised.graph.initializer}
    weights = {one.name: one for one in exact.graph.initializer}
    inputs = [node for node in quantised.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in held]
    peaks = _peaks(exact, sorted({node.input[0] for node in inputs}), samples)
    scales = {node.input[1]: np.array(ROOM * peaks[node.input[0]] / LARGEST, np.float32) for node in inputs}
    for node in quantised.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in held:
            values = numpy_helper.to_array(weights[node.input[0].removesuffix("_quantized")])
            # One for each channel that comes out, along the first axis.
            largest = np.abs(values).reshape(len(values), -1).max(axis=1)
            scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
            rounded = (values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(float8_e4m3fn)
            held[node.input[0]].CopyFrom(numpy_helper.from_array(rounded, node.input[0]))
            scales[node.input[1]] = scale
    for name, scale in scales.items():
        held[name].CopyFrom(numpy_helper.from_array(scale, name))


def _peaks(exact: Any, names: list[str], samples: Inputs) -> dict[str, float]:
    """Largest absolute values that the samples have in some tensors of a graph."""
    import onnx
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(exact)
    given = [one.name for one in model.graph.input]
    known = {one.name for one in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    peaks = dict.fromkeys(names, np.finfo(np.float32).tiny)
    for batch in samples:
        for name, values in zip(names, run.run(names, dict(zip(given, batch, strict=True))), strict=True):
            peaks[name] = max(peaks[name], float(np.abs(values).max()))
    return peaks
