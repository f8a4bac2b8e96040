"""How fast networks run in engines, beside what the device can do at most: measured in the same minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.cost import macs_per_example
from models.engines.base import Engine, load_engine
from models.engines.chain import Way
from models.engines.torch_engine import TorchEngine
from models.fold import fold_batchnorm
from models.registry import ModelEntry
from models.signature import NetworkInput, random_input

# Bytes of a number by precision.
WIDTHS = {"f32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}
# Side of the square matrices of the peak: a processor's fit its cache, a GPU's keep it busy for milliseconds.
_MATRIX = {"cpu": 1024, "cuda": 8192}
_COPIED = {"cpu": 64 * 2**20, "cuda": 2**30}
_UNITS = {1: ("Mchannel", 1e6), 2: ("Mpix", 1e6), 3: ("Mvoxel", 1e6)}
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class Work:
    """What a network is timed on.

    Attributes
    ----------
    arrays : tuple of ndarray
        One call's input.
    unit : str
        "Mpix", "Mvoxel" or "Mchannel" of detectors, "spectra" or "pictures" of classifiers.
    amount : float
        Units in a call.
    items : float
        Pixels, voxels, channels, spectra or pictures in a call.
    macs : float
        Multiply-accumulates of a call.
    values, weights : int
        Numbers that a call's layers read and write, and weights that it reads.
    """

    arrays: tuple[np.ndarray, ...]
    unit: str
    amount: float
    items: float
    macs: float
    values: int
    weights: int

    def moved(self, precision: str) -> float:
        """Bytes of a call, if every layer reads its input and writes its answer once in this precision."""
        return float((self.values + self.weights) * WIDTHS[precision])


def random_network(entry: ModelEntry) -> nn.Module:
    """A registered network with the weights that a training begins with."""
    torch.manual_seed(0)
    return entry.build().eval()


def make_work(module: nn.Module, entry: ModelEntry, *, batch: int, side: int) -> Work:
    """A call of a network with a batch of windows of ``side`` px, voxels or channels (rounded up to its stride)."""
    cells: Any = 4
    if entry.kind == "detector":
        strides = np.broadcast_to(module.head.stride, entry.ndim)
        cells = tuple(int(-(-side // int(stride))) for stride in strides)
    arrays = random_input(module, batch=batch, cells=cells, seed=1)
    values = _layer_values(module, arrays)
    macs = macs_per_example(module, lambda: module(*map(torch.from_numpy, arrays)))
    if entry.kind == "detector":
        (unit, scale), items = _UNITS[entry.ndim], float(np.prod(arrays[0].shape[2:])) * batch
    else:
        (unit, scale), items = ("spectra" if entry.reads == "spectrum" else "pictures", 1.0), float(batch)
    weights = sum(weight.numel() for weight in module.parameters())
    return Work(arrays, unit, items / scale, items, (macs or 0.0) * batch, values, weights)


def _layer_values(module: nn.Module, arrays: tuple[np.ndarray, ...]) -> int:
    """Numbers that convolutions and linear layers read and write; what stands between them can be done on the way."""
    total = 0

    def count(_: nn.Module, given: tuple, answer: Tensor) -> None:
        nonlocal total
        total += given[0].numel() + answer.numel()

    hooks = [part.register_forward_hook(count) for part in module.modules() if isinstance(part, _LAYERS)]
    training = module.training
    try:
        with torch.inference_mode():
            module.eval()(*map(torch.from_numpy, arrays))
    finally:
        for hook in hooks:
            hook.remove()
        module.train(training)
    return total


def load_compiled(module: nn.Module, way: Way, *, threads: int) -> Engine:
    """A network in torch, compiled for the shapes that come.

    Raises
    ------
    OptionError
        When the machine has no working compiler.
    """
    folded = fold_batchnorm(module).float().cpu()
    return TorchEngine(folded, precision=way.precision, threads=threads, device=way.device, compiled=True)


def make_call(engine: Engine, arrays: tuple[np.ndarray, ...]) -> Callable[[], None]:
    """A call of an engine that ends when its answer is there; on a GPU with the input and the answer there."""
    device = getattr(engine, "device", None)
    if device is None or device.type == "cpu":
        return lambda: _drop(engine(*arrays))
    tensors = [torch.from_numpy(array).to(device) for array in arrays]

    def call() -> None:
        engine.run(*tensors)
        torch.cuda.synchronize(device)

    return call


def _drop(_: Any) -> None:
    return None


def seconds_of(call: Callable[[], None]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class _Products(nn.Module):
    """Two products of square matrices, and a thin one that engines may keep in float32."""

    def __init__(self, side: int):
        super().__init__()
        self.inputs = (NetworkInput("rows", (side, side)),)
        self.layers = nn.Sequential(
            nn.Linear(side, side, bias=False), nn.Linear(side, side, bias=False), nn.Linear(side, 1, bias=False)
        )
        with torch.no_grad():
            for layer in self.layers:
                # Of the size that keeps the products of the size of the input.
                layer.weight.normal_(std=side**-0.5, generator=torch.Generator().manual_seed(0))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


class Peaks:
    """What devices can do at most, looked at again and again: a machine is not equally free at all times.

    Parameters
    ----------
    ways : sequence of Way
        Of these the engines and precisions are taken whose matrix products are known: 8 bits need graphs that were
        quantised on data.
    threads : int
        Of a processor.

    Attributes
    ----------
    flops : dict of dict of float
        Floating point operations per second of products of large square matrices, by device and precision, in the
        engine that is best at it.
    copy : dict of float
        Bytes read and written per second when memory of a device is copied, by device.
    """

    ENGINES = ("openvino", "torch", "tensorrt")

    def __init__(self, ways: Sequence[Way], *, threads: int):
        self.flops: dict[str, dict[str, float]] = {}
        self.copy: dict[str, float] = {}
        self._engines, self._products, self._copies = [], [], []
        for device in dict.fromkeys(way.device for way in ways):
            self.flops[device], self.copy[device] = {}, 0.0
            self._copies.append((device, _copier(device, threads)))
        for way in ways:
            if way.engine in self.ENGINES and way.precision not in ("int8", "fp8"):
                side = _MATRIX["cuda" if way.on_gpu else "cpu"]
                net = _Products(side).eval()
                engine = load_engine(way.engine, net, precision=way.precision, threads=threads, device=way.device)
                self._engines.append(engine)
                self._products.append((way, side, make_call(engine, random_input(net, batch=1, seed=2))))
        for _ in range(3):
            self.sample()

    def sample(self) -> None:
        """Look once more; the best counts."""
        for way, side, call in self._products:
            flops = 2.0 * (2 * side**3 + side**2) / seconds_of(call)
            known = self.flops[way.device]
            known[way.precision] = max(known.get(way.precision, 0.0), flops)
        for device, copy in self._copies:
            self.copy[device] = max(self.copy[device], 2.0 * _COPIED[_kind(device)] / seconds_of(copy))

    def close(self) -> None:
        """Free the engines."""
        for engine in self._engines:
            engine.close()
        self._products.clear()
        self._copies.clear()


def _kind(device: str) -> str:
    return "cpu" if device == "cpu" else "cuda"


def _copier(device: str, threads: int) -> Callable[[], None]:
    """Copies memory of a device."""
    source = torch.ones(_COPIED[_kind(device)] // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            target.copy_(source)
            if _kind(device) == "cuda":
                torch.cuda.synchronize(device)
        finally:
            torch.set_num_threads(before)

    return copy


def describe_gpus() -> list[dict[str, Any]]:
    """Name, memory (GiB) and compute capability of each GPU that torch can use."""
    if not torch.cuda.is_available():
        return []
    found = []
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found.append(
            {"name": card.name, "memory_gib": round(card.total_memory / 2**30, 1),
             "capability": f"{card.major}.{card.minor}", "processors": card.multi_processor_count}
        )  # fmt: skip
    return found
