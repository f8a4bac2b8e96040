"""The numbers that a network computes with while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from survey_io.errors import OptionError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context of a forward pass in "bf16" or "fp16" where that is safe, or in "f32" throughout."""
    return torch.autocast(device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)


def check_precision(device: torch.device, precision: str) -> None:
    """Refuse what a device cannot compute with.

    Raises
    ------
    OptionError
        For fp16 on a processor, whose convolutions in it are so slow that a step never seems to end.
    """
    if precision == "fp16" and device.type != "cuda":
        raise OptionError(
            f"precision fp16 needs a CUDA device, got {device.type!r}: take bf16 or f32 on a processor"
        )


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Dynamic scaling of the loss, which keeps small gradients above the smallest number of fp16; else idle."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def memory_format(ndim: int, *, channels_last: bool = True) -> torch.memory_format:
    """Layout in which convolutions of so many dimensions are fastest."""
    last = {2: torch.channels_last, 3: torch.channels_last_3d} if channels_last else {}
    return last.get(ndim, torch.contiguous_format)


def as_layout(data: Tensor, net: nn.Module) -> Tensor:
    """Data (B, C, *sides) in the layout that a network's convolutions have."""
    last = memory_format(data.ndim - 2)
    kernels = [weight for weight in net.parameters() if weight.ndim == data.ndim]
    # A kernel of one channel or one pixel has both layouts, so one of them says nothing.
    if kernels and all(weight.is_contiguous(memory_format=last) for weight in kernels):
        return data.contiguous(memory_format=last)
    return data.contiguous()
