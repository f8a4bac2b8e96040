"""Engines and weights: each engine computes, each file of weights is the one that its card describes."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import FAIL, OK, WARN, Finding, one_line
from .installation import REINSTALL

# Engines agree to 1e-6 on processors; convolutions on GPUs take TensorFloat numbers, of 1e-3.
_TOLERANCE, _TOLERANCE_GPU = 1e-4, 1e-2


def check_engines() -> Iterator[Finding]:
    """Every engine that this machine can run computes a small network."""
    from models.engines.base import available_engines, home_device, list_engines, why_unusable
    from models.engines.trial import torch_cuda, try_engine

    usable = available_engines()
    trials = [(name, None) for name in list_engines()]
    if torch_cuda()[1]:
        trials.append(("torch", "cuda:0"))
    for name, device in trials:
        check = f"engine {name}" + (f" on {device}" if device else "")
        if name not in usable:
            yield Finding(check, OK, f"not for this machine: {why_unusable(name)}")
            continue
        try:
            trial = try_engine(name, device=device)
        except Exception as error:
            yield Finding(check, FAIL, f"{type(error).__name__}: {one_line(error)}", _remedy(name, usable))
            continue
        text = f"agrees with numpy to {trial.deviation:.1g}, {trial.seconds:.1f} s"
        allowed = _TOLERANCE if (device or home_device(name)) == "cpu" else _TOLERANCE_GPU
        if trial.deviation <= allowed:
            yield Finding(check, OK, text)
        else:
            yield Finding(check, FAIL, f"computes something else: off by {trial.deviation:.2g}", _remedy(name, usable))
    if not usable:
        yield Finding("engines", FAIL, "none can run here", REINSTALL)


def _remedy(name: str, usable: list[str]) -> str:
    others = [one for one in usable if one != name]
    return "pip install its library again" + (f"; until then --engine {others[0]}" if others else "")


def check_weights() -> Iterator[Finding]:
    """Shipped weights have the hash of their card, registered ones that of their record."""
    from models.in_use import usage
    from models.store import get_version, list_stored, store_folder
    from models.weights import checked_card, find_weights, list_weights
    from survey_io.errors import SkysiftError

    wrong, shipped = [], list_weights()
    for name in shipped:
        try:
            checked_card(find_weights(f"{name}@shipped"))
        except (SkysiftError, OSError) as error:
            wrong.append((name, one_line(error)))
    for _, text in wrong:
        yield Finding("weights", FAIL, text, REINSTALL)
    if not shipped:
        yield Finding("weights", FAIL, "none are shipped with this installation", REINSTALL)
    elif not wrong:
        yield Finding("weights", OK, f"{len(shipped)} shipped, hashes right")
    stored = list_stored()
    good = 0
    for name, versions in stored.items():
        try:
            used = usage(name).version
        except (SkysiftError, OSError) as error:
            yield Finding("weights", FAIL, one_line(error), f"mend it, or skysift models promote {name}@VERSION")
            used = None
        for version in versions:
            try:
                get_version(name, version).verify()
                good += 1
            except (SkysiftError, OSError) as error:
                status = FAIL if version == used else WARN
                in_use = "in use: " if version == used else ""
                advice = f"put back a copy of {store_folder()}"
                yield Finding("weights", status, f"{in_use}{one_line(error)}", advice)
    if good:
        yield Finding("weights", OK, f"{good} registered in {store_folder()}, hashes right")
