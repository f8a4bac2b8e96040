"""Torch: on the processor the reference that the other engines are compared with, on a GPU what runs everywhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import check_input, register_engine
from models.signature import network_inputs
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor, nn


@register_engine("torch", requires=("torch",), precisions=("f32", "bf16"), on_gpu=("f32", "bf16", "fp16"))
class TorchEngine:
    """Channels last (1.1 to 1.3 times faster than the default layout), on a GPU by CUDA graphs.

    Parameters
    ----------
    module : nn.Module
    precision : str
        16 bits between the first and the last product: `models.engines.lowered`.
    threads : int
        Of a processor.
    device : str
        "cpu", or "cuda:0".
    compiled : bool
        By torch.compile: a minute before the first answer of a shape.

    Raises
    ------
    OptionError
        When it is to be compiled, and the machine has no working compiler.
    """

    name = "torch"

    def __init__(
        self, module: nn.Module, *, precision: str, threads: int, device: str = "cpu", compiled: bool = False
    ) -> None:
        import torch

        from models.engines.lowered import lowered
        from models.engines.replay import Replay

        self.precision = precision
        self.threads = threads
        self.device = torch.device(device)
        self._inputs = network_inputs(module)
        self._format = {3: torch.channels_last, 4: torch.channels_last_3d}.get(
            len(self._inputs[0].shape), torch.contiguous_format
        )
        if self.device.type == "cuda":
            # Else float32 convolutions keep 10 bits. For the whole process: threads with other GPUs would meet a
            # setting of one call half-way.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = True
        module = lowered(module, precision).to(self.device)
        self._module = module.to(memory_format=self._format)
        if compiled:
            from models.compiling import compile_network

            said: list[str] = []
            if not compile_network(self._module, self.device, said.append):
                raise OptionError(said[0])
        self._replay = Replay(self._module, self.device)
        # Torch counts threads per calling thread: one call at a time keeps to the number asked for; and a GPU's graph
        # has one input.
        self._turn = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        import torch

        given = check_input(arrays, self._inputs)
        return self.run(*(torch.from_numpy(array).to(self.device) for array in given)).cpu().numpy()

    def run(self, *tensors: Tensor) -> Tensor:
        """As a call, for tensors that are on the device already; the answer stays there."""
        import torch

        first, *others = tensors
        with self._turn, torch.inference_mode(), self._settings():
            raw = self._replay(first.to(memory_format=self._format), *others)
            return raw.float().contiguous()

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        import torch

        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._replay.close()
        self._module = self._replay = None
