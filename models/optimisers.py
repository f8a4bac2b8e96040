"""What makes the steps: optimisers by name, layers that keep still, layers with rates of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.train_options import TrainOptions
from survey_io.errors import OptionError

_Groups = list[dict[str, Any]]
_OPTIMISERS: dict[str, Callable[[_Groups, dict[str, Any], TrainOptions], torch.optim.Optimizer]] = {
    "adamw": lambda groups, common, o: torch.optim.AdamW(groups, **common, betas=o.betas),
    "adam": lambda groups, common, o: torch.optim.Adam(groups, **common, betas=o.betas),
    "sgd": lambda groups, common, o: torch.optim.SGD(groups, **common, momentum=o.momentum),
    "nesterov": lambda groups, common, o: torch.optim.SGD(groups, **common, momentum=o.momentum, nesterov=True),
    "adagrad": lambda groups, common, o: torch.optim.Adagrad(groups, **common),
    "adadelta": lambda groups, common, o: torch.optim.Adadelta(groups, **common),
    "rmsprop": lambda groups, common, o: torch.optim.RMSprop(groups, **common, momentum=o.momentum),
}


def make_optimiser(net: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser of a recipe, over the weights that are not frozen.

    Returns
    -------
    Optimizer
        Each of its groups has a "factor" of the learning rate (`set_rate`), by ``layer_rates``.

    Raises
    ------
    OptionError
        For a pattern that no weight fits, and when all weights are frozen.
    """
    check_patterns("layer_rates", options.layer_rates, net)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in net.named_parameters():
        if weight.requires_grad:
            factors = (factor for pattern, factor in options.layer_rates.items() if fits(name, pattern))
            groups.setdefault(next(factors, 1.0), []).append(weight)
    if not groups:
        raise OptionError(f"freeze {options.freeze}: no layer of {options.name!r} is left to train; freeze fewer")
    common = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    listed = [{"params": weights, "factor": factor} for factor, weights in groups.items()]
    return _OPTIMISERS[options.optimiser](listed, common, options)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups a learning rate, each times its factor."""
    for group in optimiser.param_groups:
        # Checkpoints of the first version know of no factors.
        group["lr"] = rate * group.get("factor", 1.0)


def freeze_layers(net: nn.Module, patterns: Iterable[str]) -> int:
    """Keep weights as they are, and the running statistics of BatchNorm whose weights are all kept.

    Returns
    -------
    int
        Numbers (weights) that are kept.

    Raises
    ------
    OptionError
        For a pattern that no weight fits.
    """
    patterns = list(patterns)
    check_patterns("freeze", patterns, net)
    kept = 0
    for name, weight in net.named_parameters():
        if any(fits(name, pattern) for pattern in patterns):
            weight.requires_grad_(False)
            kept += weight.numel()
    for name, layer in net.named_modules():
        if isinstance(layer, _BatchNorm):
            own = list(layer.parameters())
            if any(fits(name, pattern) for pattern in patterns) or (own and not any(w.requires_grad for w in own)):
                hold_statistics(layer)
    return kept


def hold_statistics(layer: nn.Module) -> None:
    """Keep a layer in evaluation mode whatever mode its network is set to."""
    layer.eval()
    # nn.Module.train() of the network calls this on every layer.
    layer.train = lambda mode=True: layer


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern names a weight ("stem.*", "*.bias") or a layer that the weight lies in ("stem")."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def check_patterns(option: str, patterns: Iterable[str], net: nn.Module) -> None:
    """Raise an `OptionError` for a pattern that no weight of a network fits: a slip that would go unseen."""
    names = [name for name, _ in net.named_parameters()]
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            layers = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise OptionError(f"{option}: no weight of the network fits {pattern!r}; its parts are {layers}")
