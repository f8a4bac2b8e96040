"""TensorRT plans out of ONNX: one way for ``tensorrt`` 10 and 11 and for ``tensorrt_rtx``, which builds without a GPU.

Networks are strongly typed: every precision comes from the graph (`models.engines.mixed`), since the builder's own
precision flags are gone in tensorrt 11 and in tensorrt_rtx.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from models.engines.profile import Profile
from survey_io.errors import OptionError, SkysiftError

LIBRARIES = ("tensorrt", "tensorrt_rtx")
# What to ask pip for, by library.
EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
@dataclass(frozen=True)
class Plan:
    """A built plan.

    Attributes
    ----------
    data : bytes
        What `trt.Runtime.deserialize_cuda_engine` takes.
    inputs, outputs : list of dict
        Of each its "name", "type" ("float32") and "shape", -1 for a side that may have any length.
    timing : bytes
        Which kernels were picked; empty for ``tensorrt_rtx``, which picks them on the GPU at their first use.
    """

    data: bytes
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    timing: bytes = b""


def installed_libraries() -> list[str]:
    """Those of `LIBRARIES` that are installed, found without importing them."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]


def import_library(name: str) -> ModuleType:
    """The library, or one line that says what to install.

    Raises
    ------
    OptionError
        For an unknown library, one that is not installed, or one that does not load.
    """
    if name not in LIBRARIES:
        raise OptionError(f"TensorRT library {name!r}: expected one of {', '.join(LIBRARIES)}")
    if importlib.util.find_spec(name) is None:
        raise OptionError(
            f"TensorRT plans need the Python package {name}, not installed here: pip install skysift[{EXTRAS[name]}]"
            + ", or skysift[tensorrt-rtx] for RTX cards, which builds without a GPU" * (name == "tensorrt")
        )
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise OptionError(f"the package {name} is installed but does not load: {_one_line(error)}") from error


def supported_targets(trt: ModuleType) -> list[str]:
    """Compute capabilities that plans can be built ahead for ("sm89"); none for ``tensorrt``: its own GPU only."""
    if not hasattr(trt, "ComputeCapability"):
        return []
    return sorted((n.lower() for n in vars(trt.ComputeCapability) if n.startswith("SM")), key=lambda n: int(n[2:]))


def check_targets(trt: ModuleType, targets: Sequence[str]) -> tuple[str, ...]:
    """Targets, in order and each once, that a library builds for.

    Raises
    ------
    OptionError
        For one that it does not build for.
    """
    able = supported_targets(trt)
    for target in targets:
        if target in able:
            continue
        if not able:
            raise OptionError(f"target {target!r}: tensorrt builds for the GPU it runs on only, leave the target out")
        hint = "; build for data-centre GPUs with tensorrt on that GPU" * (target in ("sm90", "sm100", "sm103"))
        raise OptionError(f"target {target!r}: {trt.__name__} {trt.__version__} builds for {', '.join(able)}{hint}")
    return tuple(sorted(set(targets), key=lambda name: int(name[2:])))


def build(
    trt: ModuleType,
    graph: bytes,
    profiles: Sequence[Profile],
    *,
    targets: Sequence[str] = (),
    timing: bytes = b"",
) -> Plan:
    """Build a plan.

    Parameters
    ----------
    trt : module
        ``tensorrt`` or ``tensorrt_rtx``.
    graph : bytes
        ONNX in the precision to compute in.
    profiles : sequence of Profile
        At least one; the runtime picks the first that holds a shape.
    targets : sequence of str
        Compute capabilities ("sm89") of a ``tensorrt_rtx`` plan; empty: its portable default, and the GPU at hand with
        ``tensorrt``.
    timing : bytes
        What an earlier build answered: the same kernels are picked again, without measuring. ``tensorrt`` only.

    Returns
    -------
    Plan
        Equal arguments give equal plans but for the numbers and the order of the library's own variables.

    Raises
    ------
    OptionError
        For a target that the library does not build for, a profile that does not fit the graph, or none.
    SkysiftError
        For an operator or type that TensorRT does not take, or when it fails otherwise.
    """
    targets = check_targets(trt, targets)
    log = make_logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        raise SkysiftError(f"{trt.__name__} {trt.__version__} does not take the graph: {_parse_errors(parser, log)}")
    config = builder.create_builder_config()
    _set_targets(trt, config, targets)
    for profile in profiles:
        _add_profile(builder, config, network, profile, log)
    if not profiles:
        raise OptionError("a plan needs at least one profile of shapes, got none")
    if hasattr(trt.BuilderFlag, "TF32"):
        # Else float32 products keep 10 bits.
        config.clear_flag(trt.BuilderFlag.TF32)
    cache = None
    if not hasattr(trt, "ComputeCapability"):
        cache = config.create_timing_cache(timing) or config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise SkysiftError(f"{trt.__name__} {trt.__version__} could not build the plan: {log.worst()}")
    return Plan(
        bytes(plan),
        [_port(trt, network.get_input(i)) for i in range(network.num_inputs)],
        [_port(trt, network.get_output(i)) for i in range(network.num_outputs)],
        b"" if cache is None else bytes(config.get_timing_cache().serialize()),
    )


def _port(trt: ModuleType, tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "type": np.dtype(trt.nptype(tensor.dtype)).name, "shape": list(tensor.shape)}


def _set_targets(trt: ModuleType, config: Any, targets: Sequence[str]) -> None:
    if targets:
        config.num_compute_capabilities = len(targets)
    for place, target in enumerate(targets):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), place):
            raise OptionError(f"target {target!r}: refused by {trt.__name__} {trt.__version__}; leave it out")


def _add_profile(builder: Any, config: Any, network: Any, profile: Profile, log: Any) -> None:
    expected = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
    given = {name: three for name, *three in profile.shapes}
    fits = set(given) == set(expected) and all(
        len(shape) == len(expected[name])
        and all(want in (-1, came) for want, came in zip(expected[name], shape, strict=True))
        for name, three in given.items()
        for shape in three
    )
    if not fits:
        raise OptionError(f"the profile's shapes {given} do not fit the graph's inputs {expected} (-1: any)")
    made = builder.create_optimization_profile()
    for name, three in given.items():
        made.set_shape(name, *three)
    if config.add_optimization_profile(made) < 0:
        raise OptionError(f"the profile {given} was refused: {log.worst()}")


def make_logger(trt: ModuleType) -> Any:
    """A logger that keeps the library's warnings and errors, which come without exceptions."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(_one_line(message))

        def worst(self) -> str:
            # The first error is the cause, what follows its consequences.
            return self.errors[0] if self.errors else "it gave no reason"

    return Log()


def _parse_errors(parser: Any, log: Any) -> str:
    if not parser.num_errors:
        return log.worst()
    error = parser.get_error(0)
    node = f"operator {error.node_operator()} ({error.node_name()}): " if error.node_operator() else ""
    return node + _one_line(error.desc())


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
