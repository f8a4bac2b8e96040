"""The catalogue gate: rows counted on planted catalogues, and a real run on a small sky with damaged weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import gates
from models.engines.openvino_engine import write_openvino
from models.fold import fold_batchnorm
from models.gates import LIMIT, keep_gate, read_gate
from models.quantised import hash_graph, tried_graph
from models.registry import get_model
from models.weights import Card, load_weights, save_weights
from pipeline import parity
from pipeline.parity import NoSky, Tally, count_partners, measure_gates

SIDE = 256
# Of a crowded sky, some 180 rows.
SEED = 2_718_281


def planted(count: int = 400) -> np.ndarray:
    """Places on a grid ten apart, in any order, each moved by less than two."""
    rng = np.random.default_rng(4)
    x, y = np.divmod(np.arange(count), 20)
    return (10.0 * np.stack([x, y], axis=1) + rng.uniform(-2, 2, (count, 2)))[rng.permutation(count)]


def test_rows_lost_and_gained_are_counted():
    exact = planted()
    moved = exact + [0.4, -0.3]
    # Seven are not found, five are new, and three lie too far from where they were.
    moved[50:53] += 1.5
    other = np.concatenate([moved[7:], [[500.0, 9.0 * i] for i in range(5)]])[::-1]
    tally = Tally.empty(3, "sdc1", "planted")
    for _ in range(2):
        tally.add([exact, other, exact[::-1]], [10.0, 9.0, 10.0])
    assert tally.rows.tolist() == [800, 2 * 398, 800]
    assert tally.lost.tolist() == [0, 2 * (7 + 3), 0] and tally.gained.tolist() == [0, 2 * (5 + 3), 0]
    assert tally.score.tolist() == [20.0, 18.0, 20.0]


def test_a_row_has_one_partner_within_its_own_reach():
    exact = np.array([[0.0, 0.0], [0.6, 0.0], [50.0, 0.0]])
    # One row lies between two: one of them has it, the other is lost.
    assert count_partners(exact, np.array([[0.4, 0.0], [50.0, 0.0]])) == 2
    shifted = exact[::2] + [0.0, 3.0]
    assert count_partners(exact[::2], shifted, np.array([2.0, 4.0])) == 1
    assert count_partners(exact, exact[:0]) == count_partners(exact[:0], exact) == 0
    tally = Tally.empty(2, "f1", "planted")
    tally.add([exact, exact[:0]], [1.0, 0.0])
    assert tally.lost.tolist() == [0, 3] and tally.gained.tolist() == [0, 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Gates of light's own weights by torch, and of a graph of its weights with 10% of noise, on a sky of 256 px."""
    folder = tmp_path_factory.mktemp("gate")
    net, _ = load_weights("light")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in net.parameters():
            weights *= 1 + 0.1 * torch.randn(weights.shape, generator=generator)
    damaged = folder / "damaged.xml"
    write_openvino(fold_batchnorm(net).float().eval(), damaged)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("SKYSIFT_CACHE", raising=False)
        for name, value in {"SEED": SEED, "SKIES": 1, "SKY_SIDE": SIDE, "SPEED_SECONDS": 0.05}.items():
            patch.setattr(parity, name, value)
        with tried_graph("light", "openvino", "int8", damaged):
            found = measure_gates(
                "light", [("torch", "f32"), ("openvino", "int8")], report=lines.append,
                names=[("torch", "f32"), ("tensorrt", "int8")],
            )  # fmt: skip
            yield damaged, found, lines


def test_equal_weights_give_an_equal_catalogue(run):
    _, (same, _), lines = run
    assert same.rows > 100 and same.lost == same.gained == 0
    assert same.score == "sdc1" and same.score_here == same.score_f32 > 0
    assert 0 <= same.largest_difference < 1e-4 and same.graph == ""
    assert same.speed["unit"] == "Mpix/s" and same.speed["f32"] > 0 and same.speed["here"] > 0
    assert same.sky == f"1 simulated skies of {SIDE} px from seed {SEED}"
    assert lines[0].startswith(f"sky 1/1: {same.rows}, {same.rows}, ") and lines[-1].startswith("light, tensorrt int8:")


def test_damaged_weights_do_not_pass(run, monkeypatch):
    damaged, (same, worse), _ = run
    # So few rows tell nothing, however equal they are.
    assert not same.passed and not worse.passed
    monkeypatch.setattr(gates, "LEAST_ROWS", same.rows)
    assert same.passed and not worse.passed
    assert worse.lost > 0 and worse.changed_rows > LIMIT and worse.rows == same.rows
    assert worse.largest_difference > 1e-3 and worse.score_here != worse.score_f32
    assert (worse.engine, worse.precision) == ("tensorrt", "int8") and worse.graph == hash_graph(damaged)


def test_records_are_read_back_by_the_hash_of_the_weights(run, tmp_path):
    _, (same, _), _ = run
    net, card = load_weights("light")
    copy = tmp_path / "copy.safetensors"
    save_weights(net, Card(model="light", options=card.options), copy)
    assert read_gate(str(copy), "torch", "f32") is None
    path = keep_gate(str(copy), same)
    assert path.stem in gates.read_card(str(copy)).sha256 and read_gate(str(copy), "torch", "f32") == same
    with torch.no_grad():
        next(net.parameters()).add_(1e-3)
    save_weights(net, Card(model="light", options=card.options), copy)
    assert read_gate(str(copy), "torch", "f32") is None


def test_there_is_no_sky_for_photographs(tmp_path):
    weights = tmp_path / "digits.safetensors"
    save_weights(get_model("digits").build(), Card(model="digits"), weights)
    with pytest.raises(NoSky, match="lesson 'images': give --data FOLDER") as caught:
        measure_gates(str(weights), [("torch", "f32")])
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and torch with CUDA")
def test_fp16_on_a_gpu_is_compared_with_f32_there():
    (gate,) = measure_gates("light@shipped", [("torch", "fp16")], share=1 / 8, device="cuda:0", report=lambda _: None)
    assert (gate.engine, gate.precision) == ("torch", "fp16") and gate.rows > 300
    assert gate.changed_rows < 0.02 and 0 < gate.largest_difference < 0.02
    assert gate.speed["processor"] == torch.cuda.get_device_name("cuda:0")
    assert min(gate.speed["f32"], gate.speed["here"]) > 0
