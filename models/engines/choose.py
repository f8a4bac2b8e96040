"""Which engine runs a network on which device, in which precision, and what goes on when that fails."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from models.engines.base import available_engines, engine_precisions, home_device, resolve_engine, why_unusable
from models.engines.chain import Way
from survey_io.errors import OptionError

# Faster first (engines.md, sections 3 and 4). TensorRT picks its kernels on the card.
ON_GPUS = ("tensorrt", "torch")
# Lower precisions by their speed; each only where the network's catalogue stays what it is in f32.
LOWER = {"gpu": ("fp16", "bf16"), "cpu": ("int8", "bf16")}
# A processor's gain below which the digits are not given away.
LEAST_GAIN = 1.15


@dataclass(frozen=True)
class Choice:
    """An engine, the reason, and what goes on when it fails.

    Attributes
    ----------
    ways : tuple of Way
        The first is taken; each later one when those before it failed.
    devices : tuple of str
        All GPUs that are used; each worker has one of them in the place of the ways' "cuda:0".
    why : str
        One line.
    """

    ways: tuple[Way, ...]
    devices: tuple[str, ...]
    why: str

    @property
    def line(self) -> str:
        """For people: what was chosen, and why."""
        first = self.ways[0]
        where = ", ".join(self.devices) if first.on_gpu else "the processor"
        return f"engine {first.engine} ({first.precision}) on {where}: {self.why}"


def choose_engine(
    model: str, *, engine: str = "auto", precision: str = "auto", device: str = "auto"
) -> Choice:
    """Pick what runs a network here.

    Parameters
    ----------
    model : str
        Name of weights, or a file of them.
    engine : str
        A name, or "auto": TensorRT where it runs, else torch on a GPU, else the processor's fastest.
    precision : str
        As engines know them, or "auto": f32; with engine "auto" a lower one where the network's catalogue was measured
        to stay the same in it and, on a processor, where that gains.
    device : str
        "auto", "cpu", "cuda" (all GPUs), or a comma list of single ones ("cuda:1,cuda:3").

    Returns
    -------
    Choice
        Ways after the first only for engine "auto": an engine that was asked for is not replaced.

    Raises
    ------
    OptionError
        For an unknown engine, precision or device, or one that this machine does not have.
    """
    devices, no_gpu = find_devices(device)
    if engine != "auto":
        return _as_asked(engine, "f32" if precision == "auto" else precision, devices, device)
    ways: list[Way] = []
    said: list[str] = []
    if devices:
        for name in ON_GPUS:
            refused = refused_on_gpu(name)
            if refused:
                said.append(f"{name} {refused}")
                continue
            known = _lower_gpu(model, name) if precision == "auto" else precision
            if known in engine_precisions(name, devices[0]):
                ways.append(Way(name, known, "cuda:0"))
    else:
        said.append(no_gpu)
    ways += _on_processor(model, precision, said)
    if ways and ways[-1].on_gpu:
        # fp16 is no processor's: what goes on after a GPU does so in f32.
        ways += [Way(name, "f32", "cpu") for name in _processor_engines()]
    if not ways:
        resolve_engine("auto", precision=precision, device="cpu")
    first = ways[0]
    what = "the fastest that runs here" if first.on_gpu else "the fastest of the processor's"
    return Choice(tuple(ways), devices if first.on_gpu else ("cpu",), "; ".join([what, *filter(None, said)]))


def find_devices(device: str) -> tuple[tuple[str, ...], str]:
    """The GPUs that an option stands for, and why there are none.

    Raises
    ------
    OptionError
        For something else than "auto", "cpu", "cuda" or a list of GPUs, or one that this machine does not have.
    """
    if device == "cpu":
        return (), "no GPU was asked for"
    parts = [part.strip() for part in device.split(",")]
    if device not in ("auto", "cuda") and not all(_number(part) is not None for part in parts):
        raise OptionError(f"device {device!r}: expected auto, cpu, cuda (all GPUs) or a list such as cuda:0,cuda:1")
    missing = _why_no_gpu()
    count = 0
    if not missing:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        missing = "" if count else "torch finds no usable GPU: see nvidia-smi"
    if device == "auto":
        return tuple(f"cuda:{i}" for i in range(count)), missing
    if not count:
        raise OptionError(f"device {device!r}: {missing}; leave --device out, or give cpu")
    if device == "cuda":
        return tuple(f"cuda:{i}" for i in range(count)), ""
    numbers = list(dict.fromkeys(_number(part) for part in parts))
    if max(numbers) >= count:
        raise OptionError(f"device {device!r}: this machine has {count} GPU{'s' * (count > 1)}, cuda:0 to the last")
    return tuple(f"cuda:{number}" for number in numbers), ""


def may_use_gpu(engine: str, device: str) -> bool:
    """Whether a choice here may fall on a GPU; without loading torch or a driver."""
    return engine in ("auto", *ON_GPUS) and device != "cpu" and not _why_no_gpu()


def _number(part: str) -> int | None:
    kind, _, number = part.partition(":")
    return int(number) if kind == "cuda" and number.isdecimal() else None


def _why_no_gpu() -> str:
    """Without importing torch, which takes longer to load than a small image to search."""
    from models.engines.tensorrt_engine import has_gpu

    if not has_gpu():
        return "this machine shows no NVIDIA GPU"
    torch = importlib.metadata.version("torch")
    return f"torch {torch} is for processors: install one with CUDA" if torch.endswith("+cpu") else ""


def refused_on_gpu(name: str) -> str:
    """Why an engine does not run on the GPUs here; empty where it does."""
    if name not in available_engines():
        return why_unusable(name).partition(", not installed here")[0]
    if name == "tensorrt":
        import torch

        from models.engines.tensorrt_engine import choose_library

        try:
            choose_library(torch.cuda.get_device_capability(0))
        except OptionError as error:
            return str(error)
    return ""


def _lower_gpu(model: str, engine: str) -> str:
    passed = [one for one in LOWER["gpu"] if _passed(model, engine, one)]
    return passed[0] if passed else "f32"


def _on_processor(model: str, precision: str, said: list[str]) -> list[Way]:
    """The processor's engines, fastest first; what was not taken is said."""
    names = _processor_engines()
    if precision != "auto":
        return [Way(name, precision, "cpu") for name in names if precision in engine_precisions(name, "cpu")]
    ways = [Way(name, "f32", "cpu") for name in names]
    for lower in LOWER["cpu"]:
        fit = names and lower in engine_precisions(names[0], "cpu")
        passed = _passed(model, names[0], lower) if fit else None
        if passed is None:
            continue
        if not passed:
            said.append(f"{lower} changes the catalogue of {model} too much")
            continue
        from models.engines.gain import measured_gain

        gain = measured_gain(model, names[0], lower)
        if gain >= LEAST_GAIN:
            said.append(f"{lower} keeps the catalogue of {model} and is {gain:.1f} times as fast as f32")
            return [Way(names[0], lower, "cpu"), *ways]
        said.append(f"{lower} is {gain:.2f} times as fast as f32 here")
    return ways


def _processor_engines() -> list[str]:
    return [name for name in available_engines() if engine_precisions(name, "cpu")]


def _passed(model: str, engine: str, precision: str) -> bool | None:
    from models.gates import gate_passed

    return gate_passed(model, engine, precision)


def _as_asked(engine: str, precision: str, devices: tuple[str, ...], device: str) -> Choice:
    if device == "auto":
        # A processor's engine was meant where it is one, and a GPU's where that is all it runs on.
        where = "cuda:0" if devices and engine in ON_GPUS else home_device(engine)
        name = resolve_engine(engine, precision=precision, device=where if devices else None)
    else:
        where = "cuda:0" if devices else "cpu"
        name = resolve_engine(engine, precision=precision, device=where)
    return Choice((Way(name, precision, where),), devices if where != "cpu" else ("cpu",), "as asked for")

