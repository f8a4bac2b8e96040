"""Networks compiled with torch.compile, where the machine has a compiler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def compile_network(net: nn.Module, device: torch.device, report: Callable[[str], None]) -> bool:
    """Compile a network in place: its weights and their names stay as they are.

    Where there is no compiler (a C++ compiler for a processor, Triton for a GPU) it stays as it is, and one line says
    so: found by compiling one sum, since the compiler is called only when the network is first used.

    Returns
    -------
    bool
        Whether it was compiled.
    """
    try:
        torch.compile(_sum, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # each backend raises its own
        reason = " ".join(str(error).split())[:120]
        report(f"compile: not compiled, there is no working compiler for {device.type} here ({reason})")
        return False
    net.compile()
    return True


def _sum(values: torch.Tensor) -> torch.Tensor:
    return (2 * values + 1).sum()
