"""A network whose costly middle computes in 16 bits, for torch: what `models.engines.mixed` does to a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.signature import example_input

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Where nearly all multiply-accumulates are.
_PRODUCTS = (nn.modules.conv._ConvNd, nn.Linear)
# Sums over many values: 11 bits of a running sum are too few, and they cost little.
_FULL = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.Softmax, nn.LogSoftmax)


def lowered(module: nn.Module, precision: str) -> nn.Module:
    """A network with 16-bit weights between its first and its last product; the given one is changed.

    Inputs and outputs stay float32; so does what comes before the first convolution or matrix product, the last one
    and what follows it, and normalisations. The casts are part of the modules' calls: nothing is looked up at run time
    as autocast does, so that calls can be captured in a CUDA graph and weights are cast once.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the processor, float32.
    precision : str
        "f32" (nothing is changed), "bf16" or "fp16".
    """
    if precision == "f32":
        return module
    dtype = DTYPES[precision]
    if any(_is_matrix(weight) for part in module.modules() for weight in _own_weights(part)):
        # Products that no module of their own makes.
        return _Autocast(module, dtype)
    products = _products_in_order(module)
    for product in products[:-1]:
        product.to(dtype)
        product.register_forward_pre_hook(_caster(dtype))
    if products:
        products[-1].register_forward_pre_hook(_caster(torch.float32))
    done = set(map(id, products))
    for part in module.modules():
        if id(part) in done:
            continue
        if isinstance(part, _FULL):
            part.register_forward_pre_hook(_caster(torch.float32))
            part.register_forward_hook(lambda _part, _given, answer, dtype=dtype: answer.to(dtype))
            continue
        for name, weight in part.named_parameters(recurse=False):
            # A factor per channel: left in float32 it would make the whole map float32 again.
            if weight.ndim > 2:
                setattr(part, name, nn.Parameter(weight.to(dtype), requires_grad=False))
    return module


class _Autocast(nn.Module):
    """Torch decides at each operation."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, *given: Tensor) -> Tensor:
        # Without its cache, which would hold weights that belong to a CUDA graph.
        with torch.autocast(given[0].device.type, dtype=self.dtype, cache_enabled=False):
            return self.module(*given).float()


def _own_weights(part: nn.Module) -> list[nn.Parameter]:
    return [] if isinstance(part, (*_PRODUCTS, *_FULL)) else list(part.parameters(recurse=False))


def _is_matrix(weight: nn.Parameter) -> bool:
    return weight.numel() > max(weight.shape, default=1)


def _products_in_order(module: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers in the order in which they are called, each once."""
    called: dict[int, nn.Module] = {}
    hooks = [
        part.register_forward_pre_hook(lambda part, _: called.setdefault(id(part), part) and None)
        for part in module.modules()
        if isinstance(part, _PRODUCTS)
    ]
    try:
        with torch.inference_mode():
            module(*example_input(module))
    finally:
        for hook in hooks:
            hook.remove()
    return list(called.values())


def _caster(dtype: torch.dtype) -> Callable[[nn.Module, tuple], tuple]:
    def cast(_: nn.Module, given: tuple) -> tuple:
        return tuple(one.to(dtype) if isinstance(one, Tensor) and one.is_floating_point() else one for one in given)

    return cast
