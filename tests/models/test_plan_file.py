"""Kept engines: found again by what they were made from, and made anew when anything else is there."""

import dataclasses
import json

import pytest
import torch

from models.engines.plan_file import (
    SUFFIX,
    PlanKey,
    cached_plan,
    hash_network,
    read_plan,
    read_timing,
    write_plan,
    write_timing,
)
from models.engines.profile import make_profile
from models.engines.tensorrt_build import Plan
from models.registry import get_model

PLAN = Plan(bytes(range(256)) * 8, [{"name": "snr", "type": "float32", "shape": [-1, 1, -1, -1]}], [])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSIFT_CACHE", str(tmp_path))
    return tmp_path / "graphs"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return get_model("light").build(stem=4, width=4, wide=8, dilations=[1]).eval()


@pytest.fixture
def key(net):
    return PlanKey(hash_network(net), "fp16", (make_profile(net),), "tensorrt_rtx", "1.7.1", "sm89,sm120")


def others(net, key):
    """Keys that differ in one part each."""
    changes = {
        "weights": "another", "precision": "bf16", "profiles": (make_profile(net, batch=(1, 2, 4)),),
        "library": "tensorrt", "version": "1.7.2", "target": "sm89",
    }  # fmt: skip
    return [dataclasses.replace(key, **{name: value}) for name, value in changes.items()]


def test_every_part_of_the_key_counts(net, key):
    digests = [key.digest, *(one.digest for one in others(net, key))]
    assert len(set(digests)) == 7
    assert dataclasses.replace(key).digest == key.digest
    with torch.no_grad():
        net.out.bias[0] += 1
        changed = hash_network(net)
        net.out.bias[0] -= 1
    assert changed != key.weights == hash_network(net)


def test_plan_is_read_back_by_its_own_key_only(net, key, tmp_path):
    path = tmp_path / "light.engine"
    assert read_plan(path, key) is None
    write_plan(path, PLAN, key)
    assert read_plan(path, key) == PLAN.data
    assert all(read_plan(path, other) is None for other in others(net, key))
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["bytes"] == len(PLAN.data) and told["inputs"] == PLAN.inputs and told["target"] == "sm89,sm120"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["light.engine", "light.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda plan, told: plan.write_bytes(plan.read_bytes()[:-1]),
        lambda plan, told: plan.write_bytes(b""),
        lambda plan, told: plan.write_bytes(plan.read_bytes()[:-1] + b"x"),
        lambda plan, told: plan.unlink(),
        lambda plan, told: told.unlink(),
        lambda plan, told: told.write_text(told.read_text()[:40]),
        lambda plan, told: told.write_text("[]"),
        lambda plan, told: told.write_text(told.read_text().replace("1.7.1", "1.6.0")),
    ],
)
def test_damaged_plan_is_made_anew(key, cache, damage):
    made = []

    def make():
        made.append(len(made))
        return PLAN

    for _ in range(2):
        assert cached_plan(key, make) == PLAN.data
    assert len(made) == 1
    path = cache / f"{key.digest}{SUFFIX}"
    damage(path, path.with_suffix(".json"))
    for _ in range(2):
        assert cached_plan(key, make) == PLAN.data
    assert len(made) == 2
    assert cached_plan(key, make, anew=True) == PLAN.data and len(made) == 3


def test_timings_are_kept_per_library_version_and_gpu(net, key):
    assert read_timing(key) == b""
    write_timing(key, b"")
    assert read_timing(key) == b""
    write_timing(key, b"kernels")
    assert read_timing(dataclasses.replace(key, precision="bf16", weights="another")) == b"kernels"
    for name in ("library", "version", "target"):
        assert read_timing(dataclasses.replace(key, **{name: "another"})) == b""
