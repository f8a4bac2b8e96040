"""What an engine is, which there are, and how a worker process gets one.

The backends' libraries are imported when an engine is loaded, not when this file is.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from models.registry import unknown_name
from models.signature import NetworkInput
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

PRECISIONS = ("f32", "bf16", "fp16", "int8", "fp8")
# Fastest first (engines.md: OpenVINO 1.6 times torch, ONNX Runtime between them). TensorRT is run when it is asked for:
# it comes to the front once its tests have run on cards.
_PREFERENCE = ("openvino", "onnx", "torch", "tensorrt")


@runtime_checkable
class Engine(Protocol):
    """A network ready to run on one device. Calls from several Python threads at once are allowed.

    Attributes
    ----------
    name, precision : str
        As given to `load_engine`, "auto" resolved.
    threads : int
        Processor cores that all calls together may use.
    """

    name: str
    precision: str
    threads: int

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The network's answer for a batch.

        Parameters
        ----------
        *arrays : np.ndarray
            What `models.signature.network_inputs` names, float32. A detector takes snr, (B, 1, H, W), or
            (B, 1, C, H, W) of a cube: signal-to-noise with sides that are multiples of the network's stride; and beam,
            (B, 4): ln major, ln minor (FWHM in pixels), e cos 2theta, e sin 2theta.

        Returns
        -------
        np.ndarray
            Of a detector the raw maps, (B, channels, H / stride, W / stride), of a classifier (B, outputs); float32,
            owned by the caller, in whichever memory order.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; it is not called afterwards."""
        ...


@dataclass(frozen=True)
class _Backend:
    name: str
    requires: tuple[str, ...]
    precisions: tuple[str, ...]
    why_not: Callable[[], str]
    build: Callable[..., Engine]
    on_gpu: tuple[str, ...] = ()

    def computes_in(self, device: str) -> tuple[str, ...]:
        """Precisions on a device; none where it does not run there."""
        return self.precisions if device == "cpu" else self.on_gpu

    def unusable(self) -> str:
        """Why this machine cannot run the engine, as the end of "engine NAME"; empty where it can."""
        missing = [library for library in self.requires if importlib.util.find_spec(library) is None]
        if missing:
            return f"needs {', '.join(missing)}, not installed here: pip install {' '.join(missing)}"
        return self.why_not()


_backends: dict[str, _Backend] = {}


def register_engine(
    name: str,
    *,
    requires: tuple[str, ...] = (),
    precisions: tuple[str, ...] = ("f32",),
    why_not: Callable[[], str] = str,
    on_gpu: tuple[str, ...] = (),
) -> Callable[[Callable[..., Engine]], Callable[..., Engine]]:
    """Register the decorated builder ``build(module, *, precision, threads) -> Engine``.

    A builder with ``on_gpu`` takes ``device`` too, and its engines have ``run(*tensors) -> Tensor`` for tensors that
    are on the device.

    Parameters
    ----------
    name : str
        What ``--engine`` takes.
    requires : tuple of str
        Libraries without which the engine is not available.
    precisions : tuple of str
        Those of `PRECISIONS` that it can compute in.
    why_not : callable
        Answers why this machine cannot run it ("needs ..."), "" where it can. Asked at every start: no heavy imports.
    on_gpu : tuple of str
        Precisions that it can compute in on a CUDA device.
    """

    def register(build: Callable[..., Engine]) -> Callable[..., Engine]:
        _backends[name] = _Backend(name, requires, precisions, why_not, build, on_gpu)
        return build

    return register


def list_engines() -> list[str]:
    """Names of all engines, preferred ones first, whether or not this machine can run them."""
    importlib.import_module("models.engines")
    return sorted(_backends, key=lambda name: (_order(name), name))


def available_engines() -> list[str]:
    """Names of the engines that this machine can run, fastest first."""
    return [name for name in list_engines() if not _backends[name].unusable()]


def why_unusable(name: str) -> str:
    """Why this machine cannot run an engine of `list_engines`; empty where it can."""
    importlib.import_module("models.engines")
    return _backends[name].unusable()


def resolve_engine(name: str, *, precision: str = "f32", device: str | None = None) -> str:
    """Check an engine's name and precision, and answer "auto" with the fastest that is installed.

    Parameters
    ----------
    name, precision : str
    device : str or None
        "cpu" or "cuda:0"; None: the processor, but for engines of GPUs only.

    Raises
    ------
    OptionError
        For an unknown or not installed engine, or a precision that it does not compute in.
    """
    installed = available_engines()
    if precision not in PRECISIONS:
        hint = "; did you mean 'fp16'?" * (precision in ("f16", "float16", "half"))
        raise OptionError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}{hint}")
    able = [known for known in installed if precision in _backends[known].computes_in(device or home_device(known))]
    processor = "; processors compute in f32 or bf16" * (precision == "fp16")
    if name == "auto":
        # What computes on GPUs only is not the answer where no GPU was named.
        able = [known for known in able if device or home_device(known) == "cpu"]
        if not able:
            raise OptionError(f"precision {precision!r}: no engine here computes in it{processor}")
        return able[0]
    if name not in _backends:
        raise OptionError(unknown_name("engine", name, ["auto", *list_engines()]))
    backend = _backends[name]
    if name not in installed:
        raise OptionError(f"engine {name!r} {backend.unusable()}, or use one of {', '.join(installed)}")
    precisions = backend.computes_in(device or home_device(name))
    if not precisions:
        other = "processors" if device != "cpu" else "GPUs"
        raise OptionError(f"engine {name!r} is for {other} only, not for device {device!r}: leave one of them out")
    if precision not in precisions:
        instead = f": use engine {' or '.join(able)}" if able else processor
        raise OptionError(f"engine {name!r} computes in {', '.join(precisions)}, not {precision}{instead}")
    return name


def home_device(name: str) -> str:
    """Where an engine runs when nobody says where: the processor, or the first GPU if it is for those only."""
    importlib.import_module("models.engines")
    backend = _backends.get(name)
    return "cuda:0" if backend is not None and not backend.precisions else "cpu"


def engine_precisions(name: str, device: str) -> tuple[str, ...]:
    """Precisions that an engine computes in on a device; none where it does not run there."""
    importlib.import_module("models.engines")
    return _backends[name].computes_in(device)


def load_engine(
    name: str, module: nn.Module, *, precision: str = "f32", threads: int = 1, device: str | None = None,
    weights: str = "",
) -> Engine:  # fmt: skip
    """Make a network ready to run.

    Parameters
    ----------
    name : str
        An engine's name, or "auto": the fastest that is installed.
    module : nn.Module
        A detector or classifier, ``forward(*inputs) -> raw``. Left untouched: the engine works on a copy in evaluation
        mode whose batch normalisations are folded into the weights.
    precision : str
        "f32", or "bf16", whose outputs differ by about 1%: faster on an AMD Zen 4, slower on an Intel Xeon whose
        AMX is out of reach; "fp16" on GPUs; or "int8", of a graph that was quantised from named weights.
    threads : int
        Processor cores for all calls together, from however many Python threads they come.
    device : str or None
        "cpu" or "cuda:0"; None: the processor, but for engines of GPUs only.
    weights : str
        What the module's weights were loaded by; only a quantised graph is looked for by it.

    Returns
    -------
    Engine

    Raises
    ------
    OptionError
        As `resolve_engine`; also for fewer than one thread.
    """
    if threads < 1:
        raise OptionError(f"an engine needs at least 1 thread, got {threads}")
    from models.fold import fold_batchnorm
    from models.quantised import QUANTISED, require_graph

    name = resolve_engine(name, precision=precision, device=device)
    device = device or home_device(name)
    where = {"device": device} if _backends[name].on_gpu else {}
    if precision in QUANTISED:
        graph = require_graph(weights, name, precision)
        return _backends[name].build(graph, precision=precision, threads=threads, **where)
    return _backends[name].build(fold_batchnorm(module).float().cpu(), precision=precision, threads=threads, **where)


@dataclass(frozen=True)
class EngineSpec:
    """Everything a worker process needs to load the same engine: small, hashable, picklable.

    Attributes
    ----------
    model : str
        Name of shipped weights or path of a safetensors file, as `models.weights.load_weights` takes it.
    engine, precision, threads, device
        As `load_engine`.
    others : tuple of (engine, precision, device)
        What goes on with the work when a device fails or runs out of memory, in this order.
    """

    model: str
    engine: str = "auto"
    precision: str = "f32"
    threads: int = 1
    device: str | None = None
    others: tuple[tuple[str, str, str], ...] = ()

    def load(self) -> Engine:
        """The engine; the same one for every call with an equal spec in this process.

        It makes do with less memory than it wants: `models.engines.chain.ChainEngine`.
        """
        from models.engines.chain import ChainEngine

        with _lock:
            if self not in _loaded:
                _loaded[self] = ChainEngine(self)
            return _loaded[self]

    def load_alone(self) -> Engine:
        """A new engine, without others to go on with."""
        from models.outline import known_graph, remember_graph
        from models.quantised import QUANTISED, require_graph

        name = resolve_engine(self.engine, precision=self.precision, device=self.device)
        if self.precision in QUANTISED:
            graph = require_graph(self.model, name, self.precision)
        else:
            graph = known_graph(self.model) if name == "openvino" else None
        if graph is not None:
            where = {"device": self.device or home_device(name)} if _backends[name].on_gpu else {}
            return _backends[name].build(graph, precision=self.precision, threads=self.threads, **where)
        from models.weights import load_weights

        module, _ = load_weights(self.model)
        engine = load_engine(name, module, precision=self.precision, threads=self.threads, device=self.device)
        if name == "openvino":
            remember_graph(self.model, engine.graph)
        return engine

    def close(self) -> None:
        """Drop this process's engine, if it has one."""
        with _lock:
            engine = _loaded.pop(self, None)
        if engine is not None:
            engine.close()


def forget_engines() -> None:
    """Drop all of this process's engines: what is loaded next is loaded anew."""
    for spec in list(_loaded):
        spec.close()


_loaded: dict[EngineSpec, Engine] = {}
_lock = threading.Lock()


def check_input(
    arrays: tuple[np.ndarray, ...], inputs: tuple[NetworkInput, ...], *, contiguous: bool = True
) -> list[np.ndarray]:
    """Float32 views of an engine's input, contiguous where that is asked for, or a clear error.

    Raises
    ------
    ValueError
        When the number of arrays or a shape is not what the network takes, or the batches differ.
    """
    fitting = len(arrays) == len(inputs) and len({len(array) for array in arrays}) == 1
    for array, expected in zip(arrays, inputs, strict=False):
        fitting &= array.ndim == 1 + len(expected.shape) and all(
            isinstance(side, str) or side == came for side, came in zip(expected.shape, array.shape[1:], strict=True)
        )
    if not fitting:
        wanted = " and ".join(f"{one.name} (B, {', '.join(map(str, one.shape))})" for one in inputs)
        raise ValueError(
            f"an engine of this network takes {wanted}; got {' and '.join(str(array.shape) for array in arrays)}"
        )
    return [(np.ascontiguousarray if contiguous else np.asarray)(array, dtype=np.float32) for array in arrays]


def _order(name: str) -> int:
    return _PREFERENCE.index(name) if name in _PREFERENCE else len(_PREFERENCE)
