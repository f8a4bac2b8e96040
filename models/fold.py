"""Batch normalisation folded into the convolutions beside it, so that an exported network carries none."""

from __future__ import annotations

import copy

import torch
from torch import nn

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorm(module: nn.Module) -> nn.Module:
    """Copy of a network in evaluation mode without its foldable batch normalisations.

    Inside every ``nn.Sequential``, a batch normalisation directly after a convolution goes into that
    convolution; one directly before a convolution (dropout between them is ignored) goes into that one
    when it has no padding: with padding the zeros of the border would stand for other values than before.
    Others stay; in evaluation mode they are per-channel constants and as independent of the tile.

    Parameters
    ----------
    module : nn.Module
        Left untouched.

    Returns
    -------
    nn.Module
        Same outputs up to rounding, in evaluation mode, without gradients.
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for parent in list(folded.modules()):
        if isinstance(parent, nn.Sequential):
            _fold_sequence(parent)
    return folded


def _fold_sequence(sequence: nn.Sequential) -> None:
    kept = [(name, layer) for name, layer in sequence.named_children() if not isinstance(layer, nn.Dropout)]
    for (_, before), (name, norm), (_, after) in zip(
        [("", None), *kept], kept, [*kept[1:], ("", None)], strict=False
    ):
        if not isinstance(norm, _NORMS) or norm.running_var is None:
            continue
        scale, shift = _as_affine(norm)
        if isinstance(before, _CONVS):
            _fold_into_previous(before, scale, shift)
        elif isinstance(after, _CONVS) and not _padded(after) and after.groups == 1:
            _fold_into_next(after, scale, shift)
        else:
            continue
        setattr(sequence, name, nn.Identity())


def _as_affine(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalisation as ``scale * x + shift`` per channel, in double precision."""
    scale = 1.0 / torch.sqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


def _padded(conv: nn.Module) -> bool:
    return conv.padding == "same" or (not isinstance(conv.padding, str) and any(conv.padding))


def _fold_into_previous(conv: nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
    weight = conv.weight.double()
    bias = torch.zeros_like(shift) if conv.bias is None else conv.bias.double()
    _replace(conv, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale + shift)


def _fold_into_next(conv: nn.Module, scale: torch.Tensor, shift: torch.Tensor) -> None:
    weight = conv.weight.double()
    bias = 0.0 if conv.bias is None else conv.bias.double()
    moved = bias + torch.einsum("oi...,i->o", weight, shift)
    _replace(conv, weight * scale.reshape(1, -1, *[1] * (weight.ndim - 2)), moved)


def _replace(conv: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
