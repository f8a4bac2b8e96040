"""Torch on the processor: the reference that the other engines are compared with."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import check_input, register_engine
from models.signature import network_inputs

if TYPE_CHECKING:
    from torch import nn


@register_engine("torch", requires=("torch",), precisions=("f32", "bf16"))
class TorchEngine:
    """Eager torch, channels last (1.1 to 1.3 times faster than the default layout)."""

    name = "torch"

    def __init__(self, module: nn.Module, *, precision: str, threads: int) -> None:
        import torch

        self.precision = precision
        self.threads = threads
        self._inputs = network_inputs(module)
        self._format = {3: torch.channels_last, 4: torch.channels_last_3d}.get(
            len(self._inputs[0].shape), torch.contiguous_format
        )
        self._module = module.to(memory_format=self._format)
        # Torch counts threads per calling thread: one call at a time keeps to the number asked for.
        self._turn = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        import torch

        first, *others = check_input(arrays, self._inputs)
        with self._turn, torch.inference_mode():
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                batch = torch.from_numpy(first).to(memory_format=self._format)
                # Autocast and not bf16 weights: the input's scaling needs all its digits.
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                    raw = self._module(batch, *map(torch.from_numpy, others))
            finally:
                torch.set_num_threads(before)
        return raw.float().contiguous().numpy()

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._module = None
