"""Precision and layout of what is computed in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.precision import as_layout, autocast, check_precision, make_scaler
from survey_io.errors import OptionError

CPU = torch.device("cpu")


def test_fp16_is_refused_on_a_processor_in_one_line() -> None:
    with pytest.raises(OptionError, match=r"^precision fp16 needs a CUDA device, got 'cpu': take bf16 or f32[^\n]*$"):
        check_precision(CPU, "fp16")
    for fine in ("bf16", "f32"):
        check_precision(CPU, fine)
    check_precision(torch.device("cuda"), "fp16")
    assert not make_scaler(CPU, "bf16").is_enabled()


@pytest.mark.parametrize("precision, dtype", [("f32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_forward_pass_computes_in_what_was_asked_for(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert nn.Linear(3, 2)(torch.zeros(1, 3)).dtype is dtype


def test_fp16_is_what_autocast_takes_on_a_gpu() -> None:
    context = autocast(torch.device("cpu"), "fp16")
    assert context.fast_dtype is torch.float16 and context._enabled


def test_data_get_the_layout_of_the_kernels() -> None:
    data = torch.zeros(2, 3, 8, 8)
    last = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert as_layout(data, last).is_contiguous(memory_format=torch.channels_last)
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3))
    turned = data.contiguous(memory_format=torch.channels_last)
    assert as_layout(turned, plain).is_contiguous()
