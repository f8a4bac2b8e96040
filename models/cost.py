"""What a training costs: multiplications, and energy where the machine tells."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Intel's and AMD's counters of energy, as Linux shows them (Documentation/power/powercap).
_POWERCAP = Path("/sys/class/powercap")


def macs_per_example(net: nn.Module, run: Callable[[], Any]) -> float | None:
    """Multiply-accumulate operations of a forward pass for one example; training takes about three times as many.

    Parameters
    ----------
    net : nn.Module
    run : callable
        Does forward passes of the network, without gradients and in evaluation mode.

    Returns
    -------
    float or None
        Convolutions and matrix products by `torch.utils.flop_counter`; None when ``run`` does not call the network.
    """
    examples = 0

    def count(_: nn.Module, given: tuple) -> None:
        nonlocal examples
        examples += len(given[0])

    hook = net.register_forward_pre_hook(count)
    training = net.training
    net.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
    finally:
        hook.remove()
        net.train(training)
    return counter.get_total_flops() / 2 / examples if examples else None


class EnergyMeter:
    """Energy of processors (RAPL) and one NVIDIA GPU (NVML) since it was made; what the machine hides is not counted.

    Parameters
    ----------
    gpu : int or None
        Number of the GPU among those that are visible; None: no GPU.
    powercap : Path or None
        Folder of the processors' counters; None: another process counts them.
    """

    def __init__(self, *, gpu: int | None = None, powercap: Path | None = _POWERCAP):
        # Packages only: what their parts take is counted in them.
        zones = sorted(powercap.glob("*-rapl:*")) if powercap else []
        self.packages = [zone for zone in zones if zone.name.count(":") == 1]
        self.gpu = None if gpu is None else _gpu_counter(gpu)
        self.total, self.known = 0.0, False
        self._before = self._read()

    def _read(self) -> dict[str, tuple[float, float]]:
        """Counters in J by name, each with the value at which it begins anew (0: never)."""
        found = {}
        for zone in self.packages:
            try:
                value, most = (int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
            except (OSError, ValueError):
                # Most machines show it to their administrator only.
                continue
            found[zone.name] = value * 1e-6, most * 1e-6
        if self.gpu is not None and (value := self.gpu()) is not None:
            found["gpu"] = value, 0.0
        return found

    def joules(self) -> float | None:
        """Energy so far, J; None where no counter can be read. Read more than once a quarter of an hour or so."""
        now = self._read()
        for name, (value, most) in now.items():
            if name in self._before:
                spent = value - self._before[name][0]
                self.total += spent + most if spent < 0 else spent
                self.known = True
        self._before = now
        return self.total if self.known else None


def _gpu_counter(number: int) -> Callable[[], float | None] | None:
    """Reads a GPU's energy since its driver was loaded, J; None without NVIDIA's library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if number < len(visible) and visible[number].isdigit():
        number = int(visible[number])
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle = ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
            return None
    except (OSError, AttributeError):
        return None

    def read() -> float | None:
        value = ctypes.c_ulonglong()
        return None if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) else value.value * 1e-3

    return read
