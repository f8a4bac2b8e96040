"""Training for 8 bits: layers see their inputs and weights rounded as a graph of 8 bits will round them.

A network that was trained without it may lose more rows to the rounding of its inner layers than a catalogue may
lose (`models.gates`). Trained with it, and with what the rounding does to its decisions in the loss, it loses fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from models.layer_choice import UNDECIDED
from models.optimisers import fits
from models.yolo.head import HeadSpec
from survey_io.errors import OptionError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LEVELS, _WEIGHT_LEVELS = 255, 127
# As the graph's ranges are set (`models.engines.quantise`): so few inputs lie beyond, and the largest range counts;
# here it is forgotten over a hundred steps, since the weights change.
OUTLIERS, _FORGOTTEN = 1e-5, 0.01
# Weight of the squared change of the logits that decide about rows.
CHANGE = 100.0


class Rounding:
    """Some convolutions of a network with rounded inputs and weights; gradients pass as if they were not.

    Parameters
    ----------
    net : nn.Module
        Its chosen layers are changed in place; names and shapes of its weights stay.
    patterns : sequence of str
        Names of layers (``blocks.*``), of which the convolutions count. Their inputs must not be negative, as after a
        ReLU.

    Attributes
    ----------
    ranges : dict of Tensor
        By layer, the value up to which its inputs are told apart; part of what a run goes on from.

    Raises
    ------
    OptionError
        For a pattern that fits no convolution.
    """

    def __init__(self, net: nn.Module, patterns: Sequence[str]):
        layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, _CONVOLUTIONS)}
        for pattern in patterns:
            if not any(fits(name, pattern) for name in layers):
                raise OptionError(
                    f"eight_bits: expected patterns of convolutions of this network, got {pattern!r}; it has "
                    f"{', '.join(layers)}"
                )
        self.ranges: dict[str, Tensor] = {}
        self._on = True
        for name, layer in layers.items():
            if any(fits(name, pattern) for pattern in patterns):
                layer.forward = partial(self._forward, name, layer)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within, the layers compute exactly."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def _forward(self, name: str, layer: nn.Module, x: Tensor) -> Tensor:
        weight = layer.weight
        if self._on:
            x, weight = round_inputs(x, self._range(name, x, learn=layer.training)), round_weights(weight)
        return layer._conv_forward(x, weight, layer.bias)

    def _range(self, name: str, x: Tensor, *, learn: bool) -> Tensor:
        known = self.ranges.get(name)
        if known is not None and not learn:
            return known
        with torch.no_grad():
            values = x.detach().float().flatten()
            new = values.topk(1 + int(OUTLIERS * len(values)), sorted=True).values[-1].clamp(min=1e-6)
            if known is not None:
                known = known.to(new.device)
                new = torch.maximum(new, known + _FORGOTTEN * (new - known))
            self.ranges[name] = new
        return new


def round_inputs(x: Tensor, upto: Tensor) -> Tensor:
    """Inputs of 0 and more in 255 equal steps up to a value; those beyond become that value, and get no gradient."""
    step = upto / _LEVELS
    clamped = torch.minimum(x, upto.to(x.dtype))
    return clamped + (torch.round(clamped.detach() / step) * step - clamped.detach()).to(x.dtype)


def round_weights(weight: Tensor) -> Tensor:
    """Weights in 127 equal steps on either side of 0, as fine as each output's largest weight allows."""
    fixed = weight.detach()
    step = fixed.abs().amax(dim=tuple(range(1, fixed.ndim)), keepdim=True).clamp(min=1e-12) / _WEIGHT_LEVELS
    return weight + (torch.round(fixed / step) * step - fixed)


def decision_change(exact: Tensor, rounded: Tensor, head: HeadSpec) -> Tensor:
    """Mean squared change of the logits of P where something may be a row or not; 0 where there is nothing.

    Parameters
    ----------
    exact, rounded : Tensor, shape (B, channels, *grid)
        Raw answers of a detector.
    head : HeadSpec
    """
    place = head.slot("presence").start
    one, other = (
        raw.float().reshape(len(raw), head.boxes, head.box_channels, *raw.shape[2:])[:, :, place]
        for raw in (exact, rounded)
    )
    undecided = (one.detach() > UNDECIDED[0]) & (one.detach() < UNDECIDED[1])
    change = torch.where(undecided, other - one, 0.0)
    return change.square().sum() / undecided.sum().clamp(min=1)
