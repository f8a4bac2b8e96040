"""TensorRT plans kept on disk, each with what it was made from beside it: another's plan is made anew, never run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.engines import mixed, onnx_engine, tensorrt_build
from models.engines.graph_file import cache_folder, fingerprint, forget_oldest
from models.engines.profile import Profile
from models.engines.tensorrt_build import Plan

if TYPE_CHECKING:
    from torch import nn

SUFFIX = ".engine"


@dataclass(frozen=True)
class PlanKey:
    """What a plan was made from and for.

    Attributes
    ----------
    weights : str
        Hash of the network, its code and the code that makes plans.
    precision : str
    profiles : tuple of Profile
    library, version : str
        TensorRT's Python package.
    target : str
        Compute capabilities, "sm89,sm120", "portable", or the GPU's name where a plan serves just that.
    """

    weights: str
    precision: str
    profiles: tuple[Profile, ...]
    library: str
    version: str
    target: str

    @property
    def digest(self) -> str:
        """Name of the plan's file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def hash_network(module: nn.Module, graph: str = "") -> str:
    """The `PlanKey.weights` of a folded network; with the hash of its graph where more than the weights decides it.

    What a quantised graph was calibrated on is in its scales.
    """
    return fingerprint(module, f"opset {mixed.OPSET} {_code()} {graph}".rstrip())


@cache
def _code() -> str:
    parts = (mixed, onnx_engine, tensorrt_build)
    return hashlib.sha256(b"".join(Path(part.__file__).read_bytes() for part in parts)).hexdigest()


def write_plan(path: Path, plan: Plan, key: PlanKey) -> None:
    """Write a plan and, last, its description as ``STEM.json``: the plan counts from then on.

    Raises
    ------
    OSError
        When a file cannot be written.
    """
    told = {
        **asdict(key), "sha256": hashlib.sha256(plan.data).hexdigest(), "bytes": len(plan.data),
        "inputs": plan.inputs, "outputs": plan.outputs,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as scratch:
        made = Path(scratch)
        (made / "plan").write_bytes(plan.data)
        (made / "told").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        os.replace(made / "plan", path)
        os.replace(made / "told", path.with_suffix(".json"))


def read_plan(path: Path, key: PlanKey) -> bytes | None:
    """A plan that is whole and was made from and for exactly this; None for any other, or none."""
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    expected: dict[str, Any] = json.loads(json.dumps(asdict(key)))
    if not isinstance(told, dict) or any(told.get(name) != value for name, value in expected.items()):
        return None
    return data if hashlib.sha256(data).hexdigest() == told.get("sha256") else None


def read_timing(key: PlanKey) -> bytes:
    """What earlier builds measured with this library on this GPU; empty for none."""
    with contextlib.suppress(OSError):
        return _timing_path(key).read_bytes()
    return b""


def write_timing(key: PlanKey, timing: bytes) -> None:
    """Keep what a build measured; the next one picks the same kernels, at once."""
    if timing:
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=cache_folder(), prefix="new-") as scratch:
            (Path(scratch) / "timing").write_bytes(timing)
            os.replace(Path(scratch) / "timing", _timing_path(key))


def _timing_path(key: PlanKey) -> Path:
    place = hashlib.sha256(f"{key.library} {key.version} {key.target}".encode()).hexdigest()[:16]
    return cache_folder() / f"{place}.timing"


def cached_plan(key: PlanKey, make: Callable[[], Plan], *, anew: bool = False) -> bytes:
    """The plan of the cache folder, made when it is not there, not whole, of another origin, or to be made ``anew``.

    A folder that cannot be written to costs the next run another build, not this one its plan.
    """
    folder = cache_folder()
    path = folder / f"{key.digest}{SUFFIX}"
    data = None if anew else read_plan(path, key)
    if data is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
        return data
    plan = make()
    with contextlib.suppress(OSError):
        write_plan(path, plan, key)
        forget_oldest(folder, SUFFIX)
    return plan.data
