"""TensorRT on an NVIDIA GPU: a plan built for the card (tensorrt) or finished on it (tensorrt_rtx)."""

from __future__ import annotations

import importlib.metadata
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from models.engines.base import check_input, register_engine
from models.engines.profile import Profile, make_profile
from models.engines.tensorrt_build import (
    EXTRAS,
    Plan,
    build,
    check_targets,
    import_library,
    installed_libraries,
    make_logger,
    supported_targets,
)
from models.signature import network_inputs
from survey_io.errors import OptionError, SkysiftError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# What a driver makes when it finds a card, on Linux and in its Windows subsystem.
_DEVICES = ("dev/nvidia[0-9]*", "dev/dxg")


def has_gpu() -> bool:
    """Whether the driver shows a card."""
    return any(any(Path("/").glob(device)) for device in _DEVICES)


def why_not() -> str:
    """Why this machine cannot run TensorRT; empty where it can. Without importing or asking the driver."""
    if not installed_libraries():
        return (
            f"needs tensorrt, or tensorrt_rtx for RTX cards, not installed here: "
            f"pip install {' or '.join(f'skysift[{extra}]' for extra in EXTRAS.values())}"
        )
    if not has_gpu():
        return "needs an NVIDIA GPU, and this machine shows none"
    torch = importlib.metadata.version("torch")
    return f"needs torch with CUDA, and torch {torch} is for processors" if torch.endswith("+cpu") else ""


@register_engine("tensorrt", precisions=(), why_not=why_not, on_gpu=("f32", "bf16", "fp16"))
class TensorRtEngine:
    """A plan for the shapes of `make_profile`; a shape beyond them is built for at its first call.

    The plan stays in the cache folder. ``threads`` has no meaning on a GPU: calls take turns.
    """

    name = "tensorrt"

    def __init__(self, module: nn.Module, *, precision: str, threads: int, device: str = "cuda:0") -> None:
        import torch

        from models.engines.replay import Replay

        if not torch.cuda.is_available():
            raise OptionError("engine 'tensorrt' needs an NVIDIA GPU, and torch finds none: see nvidia-smi")
        self.precision = precision
        self.threads = threads
        self.device = torch.device(device)
        self._inputs = network_inputs(module)
        self._module = module
        self._library = choose_library(torch.cuda.get_device_capability(self.device))
        self._trt = import_library(self._library)
        # A context's own memory holds what belongs to the shapes of its last call.
        self._replay = Replay(self._enqueue, self.device, kept=1)
        self._turn = threading.Lock()
        with torch.cuda.device(self.device):
            self._open(make_profile(module))

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        import torch

        given = check_input(arrays, self._inputs)
        return self.run(*(torch.from_numpy(array).to(self.device) for array in given)).cpu().numpy()

    def run(self, *tensors: Tensor) -> Tensor:
        """As a call, for float32 tensors that are on the device already; enqueued on torch's stream of this thread."""
        import torch

        shapes = {one.name: tuple(tensor.shape) for one, tensor in zip(self._inputs, tensors, strict=True)}
        with self._turn, torch.inference_mode(), torch.cuda.device(self.device):
            if not self._profile.holds(shapes):
                # Graphs of the plan that goes are not to outlive it.
                self._replay.close()
                self._open(self._profile.grown(shapes))
            return self._replay(*(tensor.contiguous() for tensor in tensors))

    def _enqueue(self, *tensors: Tensor) -> Tensor:
        """The plan knows addresses only: the tensors live until the stream has passed, as torch's allocator sees to."""
        import torch

        for one, tensor in zip(self._inputs, tensors, strict=True):
            self._context.set_input_shape(one.name, tuple(tensor.shape))
            self._context.set_tensor_address(one.name, tensor.data_ptr())
        raw = torch.empty(tuple(self._context.get_tensor_shape("raw")), device=self.device)
        self._context.set_tensor_address("raw", raw.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream):
            raise SkysiftError(f"TensorRT could not run a batch of shape {tuple(raw.shape)}: {self._log.worst()}")
        return raw

    def _open(self, profile: Profile) -> None:
        from models.engines.plan_file import PlanKey, cached_plan, hash_network, read_timing, write_timing

        target = this_target(self._trt, self.device)
        version = self._trt.__version__
        key = PlanKey(hash_network(self._module), self.precision, (profile,), self._library, version, target)

        def make() -> Plan:
            from models.engines.mixed import write_graph

            graph = write_graph(self._module, self.precision)
            targets = [target] if supported_targets(self._trt) else []
            plan = build(self._trt, graph, (profile,), targets=targets, timing=read_timing(key))
            write_timing(key, plan.timing)
            return plan

        self._log = make_logger(self._trt)
        # It has to outlive what it opens.
        self._runtime = self._trt.Runtime(self._log)
        engine = self._runtime.deserialize_cuda_engine(cached_plan(key, make))
        if engine is None:
            # Of this card and version by its key, and yet refused: by another driver, as a rule.
            engine = self._runtime.deserialize_cuda_engine(cached_plan(key, make, anew=True))
        if engine is None:
            raise SkysiftError(f"{self._library} {version} does not load the plan it built: {self._log.worst()}")
        self._profile, self._engine = profile, engine
        self._context = engine.create_execution_context()

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._replay.close()
        self._context = None
        self._engine = None
        self._runtime = self._module = None


def choose_library(capability: tuple[int, int]) -> str:
    """The installed library for a GPU: tensorrt, which measures its kernels on the card, else tensorrt_rtx.

    Raises
    ------
    OptionError
        When none is installed.
    """
    installed = installed_libraries()
    if not installed:
        raise OptionError(f"engine 'tensorrt' {why_not()}")
    if installed[0] == "tensorrt_rtx":
        check_targets(import_library("tensorrt_rtx"), [f"sm{capability[0]}{capability[1]}"])
    return installed[0]


def this_target(trt: ModuleType, device: torch.device | None = None) -> str:
    """`PlanKey.target` of a GPU at hand: its compute capability where that is enough, else its name too."""
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return f"sm{major}{minor}" if supported_targets(trt) else f"{torch.cuda.get_device_name(device)} sm{major}{minor}"
