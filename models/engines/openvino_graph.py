"""Changes of a graph before it is compiled: a beam that is known, an answer in its own order, a head for later."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from models.yolo.head import HeadSpec

# Cells that a head takes at once: few enough to cost nothing where there are few.
HEAD_CELLS = 512
# What may be done to the data before the first layer of a front, and between its layers.
_PER_VOXEL = ("Abs", "Add", "Subtract", "Multiply", "Divide", "Concat", "Convert", "FakeQuantize", "Relu")


def import_openvino() -> ModuleType:
    """The openvino package, kept from reporting its use.

    On import and at every conversion it sends events to its maker and writes an identifier into the home.
    Without the package that does this it falls back to doing nothing; and a worker without a network does not
    wait for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def fix_beam(graph: Any, beam: np.ndarray) -> None:
    """Make the beam a constant: its biases merge into the convolutions."""
    parameter = graph.input("beam").get_node()
    constant = import_openvino().opset13.constant(beam.astype(np.float32))
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(constant.output(0))
    graph.remove_parameter(parameter)


def fix_shape(graph: Any, shape: tuple[int, ...]) -> None:
    """Make the batch and the sides of all inputs known."""
    first, *others = [port.get_any_name() for port in graph.inputs]
    graph.reshape({first: list(shape), **{name: [shape[0], 4] for name in others}})


def leave_channels_last(graph: Any) -> None:
    """Let the answer leave in the order it is computed in, (B, *grid, channels)."""
    answer = graph.get_results()[0]
    turned = _channels_last(answer.input_value(0))
    graph.remove_result(answer)
    graph.add_results([import_openvino().opset13.result(turned)])


def split_head(graph: Any, again: Any, spec: HeadSpec) -> tuple[Any, Any] | None:
    """Cut a detector's graph before the layers that look at each cell alone.

    Parameters
    ----------
    graph, again : openvino.Model
        The same graph, read twice; its beam is known. Both are used up.
    spec : HeadSpec

    Returns
    -------
    body, head : openvino.Model or None
        ``body(snr)`` answers the logits of P, (B, boxes, *grid), and features, (B, *grid, k) of images and
        (B, k, *grid) of cubes, whose order is not free to turn; ``head(features)`` answers
        (`HEAD_CELLS`, channels, 1, ...) for features of the shape (`HEAD_CELLS`, k, 1, ...). None where the
        graph does not end in a layer that looks at each cell alone.
    """
    ops = import_openvino().opset13
    places, places_again = _cell_layers(graph), _cell_layers(again)
    if places is None or places_again is None:
        return None
    last, first = places
    users = [port.get_node() for port in last.output(0).get_target_inputs()]
    if len(users) != 1 or users[0].get_type_name() != "Add":
        # Quantised, its answer has other uses.
        return None
    constants = [_constant(last), _constant(users[0])]
    if any(values is None for values in constants):
        return None
    rows = np.arange(spec.boxes) * spec.box_channels + spec.slot("presence").start
    if len(constants[0]) != spec.channels or constants[1].size != spec.channels:
        return None
    weights, shift = constants[0][rows], constants[1].reshape(1, -1, *(1,) * spec.ndim)[:, rows]
    ones, zeros = [1] * spec.ndim, [0] * spec.ndim
    presence = ops.add(ops.convolution(last.input_value(0), ops.constant(weights), ones, zeros, zeros, ones), shift)
    features = first.input_value(0)
    results = [ops.result(presence.output(0)), ops.result(_channels_last(features) if spec.ndim == 2 else features)]
    body = import_openvino().Model(results, graph.get_parameters(), "body")

    width = places_again[1].input_value(0).get_partial_shape()[1].get_length()
    given = ops.parameter([HEAD_CELLS, width, *ones], np.float32, name="features")
    places_again[1].input(0).replace_source_output(given.output(0))
    return body, import_openvino().Model(again.get_results(), [given], "head")


def shift_presence(graph: Any, spec: HeadSpec, shift: float) -> bool:
    """Add a number to a detector's logits of P, in the constant behind its last layer; whether there is one."""
    places = _cell_layers(graph)
    users = [port.get_node() for port in places[0].output(0).get_target_inputs()] if places else []
    if len(users) != 1 or users[0].get_type_name() != "Add":
        return False
    number = next((one for one in (0, 1) if users[0].input_value(one).get_node().get_type_name() == "Constant"), None)
    if number is None:
        return False
    added = np.array(users[0].input_value(number).get_node().get_data())
    if added.size != spec.channels:
        return False
    added.reshape(spec.boxes, spec.box_channels)[:, spec.slot("presence")] += np.float32(shift)
    users[0].input(number).replace_source_output(import_openvino().opset13.constant(added).output(0))
    return True


@dataclass(frozen=True)
class FrontLayout:
    """How the layers before a cut see the first axis of the data: cells of ``stride`` rows, and ``reach`` rows more at
    either end."""

    stride: int
    reach: int
    width: int


def split_front(graph: Any) -> tuple[Any, Any, FrontLayout] | None:
    """Cut a detector's graph behind the layers that only gather the data into cells.

    They make several numbers of each one given, and need more memory than all that follow, but look no farther than
    ``reach`` rows: they can be run on a few rows at a time.

    Parameters
    ----------
    graph : openvino.Model
        Its beam is known. It is used up.

    Returns
    -------
    front, rest : openvino.Model or None
        ``front(rows)`` answers (B, width, cells, ...) for (B, 1, reach + cells * stride + reach, ...), rows beyond the
        data given as 0; ``rest`` takes that of all rows and answers as the graph did. None where the graph does not
        begin with a convolution that overlaps by ``reach``, and others that do not overlap.
    layout : FrontLayout
    """
    ops = import_openvino().opset13
    layers, end = _front_layers(graph)
    if not layers:
        return None
    first = layers[0]
    axes = [_first_axis(layer) for layer in layers]
    if any(one is None for one in axes):
        return None
    (kernel, step, reach), *steps = axes
    if kernel != step + 2 * reach or any(size != by or pad for size, by, pad in steps):
        return None
    layout = FrontLayout(
        int(np.prod([step, *(by for _, by, _ in steps)])), reach, end.get_output_partial_shape(0)[1].get_length()
    )
    sides = [-1] * (end.get_output_partial_shape(0).rank.get_length() - 2)
    joint = ops.parameter(import_openvino().PartialShape([-1, layout.width, *sides]), np.float32, "cells")
    for target in list(end.output(0).get_target_inputs()):
        target.replace_source_output(joint.output(0))
    rest = import_openvino().Model(graph.get_results(), [joint], "rest")
    told = first.get_attributes()
    begins, ends = ([0, *told[name][1:]] for name in ("pads_begin", "pads_end"))
    unpadded = ops.convolution(
        first.input_value(0), first.input_value(1), told["strides"], begins, ends, told["dilations"]
    )
    for target in list(first.output(0).get_target_inputs()):
        target.replace_source_output(unpadded.output(0))
    return import_openvino().Model([ops.result(end.output(0))], graph.get_parameters(), "front"), rest, layout


def _front_layers(graph: Any) -> tuple[list[Any], Any]:
    """The convolutions in a row that a graph begins with, and the last node before its ways part."""
    node, found = _first_convolution(graph), []
    while node is not None:
        if node.get_type_name() == "Convolution":
            found.append(node)
        users = [port.get_node() for port in node.output(0).get_target_inputs()]
        if len(users) != 1 or users[0].get_type_name() not in ("Convolution", *_PER_VOXEL):
            break
        node = users[0]
    return found, node


def _first_convolution(graph: Any) -> Any | None:
    reached = {graph.inputs[0].get_node().get_friendly_name()}
    for node in graph.get_ordered_ops():
        if any(value.get_node().get_friendly_name() in reached for value in node.input_values()):
            if node.get_type_name() == "Convolution":
                return node
            if node.get_type_name() not in _PER_VOXEL:
                return None
            reached.add(node.get_friendly_name())
    return None


def _first_axis(layer: Any) -> tuple[int, int, int] | None:
    """Kernel, stride and padding of a convolution along the first axis of the data; None for one of any other kind."""
    told = layer.get_attributes()
    kernel, before, after = layer.input_value(1).get_shape()[2], told["pads_begin"][0], told["pads_end"][0]
    if before != after or told["dilations"][0] != 1:
        return None
    return kernel, told["strides"][0], before


def _channels_last(value: Any) -> Any:
    ops = import_openvino().opset13
    axes = np.array([0, *range(2, value.get_partial_shape().rank.get_length()), 1])
    return ops.transpose(value, ops.constant(axes)).output(0)


def _cell_layers(graph: Any) -> tuple[Any, Any] | None:
    """The last and the first of the convolutions at the graph's end that look at each cell alone; None without one."""
    found = []
    node = graph.get_results()[0].input_value(0).get_node()
    while node is not None:
        kind, main = node.get_type_name(), 0
        if kind == "Convolution":
            if any(side != 1 for side in node.input_value(1).get_shape()[2:]):
                break
            found.append(node)
        elif kind == "Add":
            # What is added may be a bias, but not another map.
            maps = [number for number in (0, 1) if _has_sides(node.input_value(number))]
            if len(maps) != 1:
                break
            main = maps[0]
        elif kind != "Relu":
            break
        node = node.input_value(main).get_node()
    return (found[0], found[-1]) if found else None


def _has_sides(value: Any) -> bool:
    return any(side.is_dynamic or side.get_length() != 1 for side in list(value.get_partial_shape())[2:])


def _constant(node: Any) -> np.ndarray | None:
    """What a node's map is convolved with or what is added to it, where that is a number in float32."""
    for number in (1, 0):
        source = node.input_value(number).get_node()
        if source.get_type_name() == "Constant" and source.get_element_type().get_type_name() == "f32":
            return np.array(source.get_data())
    return None
