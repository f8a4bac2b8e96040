"""What a training costs: counted multiplications, energy by the machine's counters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models.cost import EnergyMeter, macs_per_example
from models.training import train


def test_multiplications_of_convolutions_and_matrices_are_counted() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, 5))
    net.train()
    macs = macs_per_example(net, lambda: net(torch.zeros(4, 3, 10, 10)))
    assert macs == 8 * 3 * 9 * 100 + 800 * 5
    assert net.training and not net._forward_pre_hooks
    assert macs_per_example(net, lambda: None) is None


def counters(folder: Path, energies: dict[str, int]) -> None:
    for name, value in energies.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "energy_uj").write_text(f"{value}\n")
        (folder / name / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_summed_over_packages_and_over_overflows(tmp_path: Path) -> None:
    assert EnergyMeter(powercap=tmp_path / "none").joules() is None
    assert EnergyMeter(powercap=None).joules() is None
    counters(tmp_path, {"intel-rapl:0": 5_000_000, "intel-rapl:1": 999_000_000, "intel-rapl:0:0": 1_000_000})
    meter = EnergyMeter(powercap=tmp_path)
    counters(tmp_path, {"intel-rapl:0": 7_500_000, "intel-rapl:1": 1_000_000, "intel-rapl:0:0": 3_000_000})
    # 2.5 J, and 2 J over the end of a counter of 1000 J; parts of a package are in it already.
    assert meter.joules() == pytest.approx(4.5)
    counters(tmp_path, {"intel-rapl:0": 8_500_000})
    assert meter.joules() == pytest.approx(5.5)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("")
    assert meter.joules() == pytest.approx(5.5)


def test_a_checkpoint_tells_what_the_run_cost(tiny, tmp_path: Path) -> None:
    state = torch.load(train(tiny.tiny_options(tmp_path), report=lambda _: None), weights_only=True)
    cost = state["cost"]
    assert cost["macs_per_example"] == 6 * 8 + 8 and cost["steps"] == 20 and cost["examples"] == 80
    assert 0 < cost["seconds"] == state["seconds"]
