"""A run takes an engine, says why, and ends with the same catalogue when that fails on the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from dask.distributed import Client, LocalCluster

from models.engines import base
from models.engines.chain import Way
from models.engines.choose import Choice, choose_engine
from models.engines.torch_engine import TorchEngine
from pipeline import device_pieces, engine_choice
from pipeline.dask_workers import DaskWorkers
from pipeline.detect import analyse
from pipeline.engine_choice import EngineLog, own_device, pick_engine
from pipeline.ledger import Ledger
from pipeline.options import DetectOptions
from survey_io import open_image
from survey_io.errors import SkysiftError
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

TILED = {"tile": 96, "batch": 3, "threshold": 0.3, "workers": 2}


@pytest.fixture(scope="module")
def observation(tmp_path_factory):
    sim = simulate_continuum((300, 260), beam_pixels=(3.4, 2.6, 0.6), seed=5, model=SkyModel(density=0.012))
    sim.image[:21] = np.nan
    return open_image(write_simulation(sim, tmp_path_factory.mktemp("sky"))["image"])


@pytest.fixture(scope="module")
def reference(observation):
    result = analyse(observation, DetectOptions(engine="torch", device="cpu", **TILED))
    assert len(result.table) > 30
    return result


def assert_same(came, reference) -> None:
    assert len(came.table) == len(reference.table)
    for name in ("ra", "dec", "flux", "maj", "p_real"):
        np.testing.assert_allclose(came.table[name], reference.table[name], rtol=2e-4, atol=1e-9, err_msg=name)


@pytest.fixture
def take(monkeypatch):
    """Puts a failing engine before torch on the processor: what it computes until it fails is real."""

    def put(fail) -> list[int]:
        calls: list[int] = []

        class Failing(TorchEngine):
            def run(self, *tensors):
                calls.append(len(tensors[0]))
                fail(calls)
                return super().run(*tensors)

        def build(module, *, precision, threads, device):
            return Failing(module, precision=precision, threads=threads)

        name = f"failing{id(fail)}"
        monkeypatch.setitem(base._backends, name, base._Backend(name, (), (), str, build, ("f32",)))
        ways = (Way(name, "f32", "cuda:0"), Way("torch", "f32", "cpu"))
        choice = Choice(ways, ("cuda:0",), "the fastest that runs here")
        monkeypatch.setattr(engine_choice, "choose_engine", lambda *_, **__: choice)
        return calls

    return put


def test_the_whole_run_on_a_device_gives_the_same_catalogue(observation, reference, monkeypatch):
    monkeypatch.setattr(device_pieces, "runs_on_device", lambda way: True)
    came = analyse(observation, DetectOptions(engine="torch", device="cpu", **TILED))
    assert_same(came, reference)
    assert came.manifest["model"]["pieces_by_engine"] == reference.manifest["model"]["pieces_by_engine"]


def test_the_manifest_says_engine_precision_and_why(reference):
    told = reference.manifest["model"]
    assert (told["engine"], told["precision"]) == ("torch", "f32")
    assert told["why"] == "engine torch (f32) on the processor: as asked for" and told["engine_notes"] == []
    # Four groups of up to three tiles, and the negative's block.
    assert list(told["pieces_by_engine"]) == ["torch f32 on cpu"]


def test_a_gpu_lost_on_the_way_costs_nothing_but_time(observation, reference, take):
    def fail(calls):
        if len(calls) > 2:
            raise RuntimeError("CUDA error: unspecified launch failure")

    take(fail)
    came = analyse(observation, DetectOptions(**TILED))
    assert_same(came, reference)
    told = came.manifest["model"]
    assert told["pieces_by_engine"]["torch f32 on cpu"] >= 1 and len(told["pieces_by_engine"]) == 2
    assert len(told["engine_notes"]) == 1
    assert "failed (CUDA error: unspecified launch failure); going on with torch f32 on cpu" in told["engine_notes"][0]


def test_a_gpu_without_memory_gets_fewer_tiles_at_once(observation, reference, take):
    def fail(calls):
        if calls[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    calls = take(fail)
    came = analyse(observation, DetectOptions(**TILED))
    assert_same(came, reference)
    assert len(came.manifest["model"]["pieces_by_engine"]) == 1
    assert "out of memory with a batch of 3, halved" in came.manifest["model"]["engine_notes"][0]
    # Once for each thread at most.
    assert sum(count > 1 for count in calls) <= 2


def test_what_was_done_before_the_last_engine_failed_is_not_done_again(observation, reference, take, tmp_path):
    def fail(calls):
        if len(calls) > 2:
            raise RuntimeError("CUDA error: device lost")

    take(fail)
    only = Choice(engine_choice.choose_engine("light").ways[:1], ("cuda:0",), "as asked for")
    options = DetectOptions(**{**TILED, "workers": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_choice, "choose_engine", lambda *_, **__: only)
        ledger = Ledger(tmp_path / "ledger", "key")
        with pytest.raises(SkysiftError, match="device lost.*no other engine is left.*finished pieces are kept"):
            analyse(observation, options, ledger=ledger)
    done = ledger.done("detect")
    assert len(done) == 2
    ledger.close()
    again = Ledger(tmp_path / "ledger", "key")
    assert again.done("detect") == done
    came = analyse(observation, options, ledger=again)
    again.close()
    assert_same(came, reference)
    assert len(came.manifest["model"]["pieces_by_engine"]) == 2


def test_each_thread_keeps_a_gpu_of_its_own():
    gpus = ("cuda:0", "cuda:1", "cuda:2")
    together = threading.Barrier(6)

    def ask(_):
        together.wait(timeout=30)
        return [own_device(gpus) for _ in range(5)]

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(ask, range(6)))
    assert all(len(set(one)) == 1 for one in taken)
    assert sorted(one[0] for one in taken) == sorted(gpus * 2)
    assert own_device(("cuda:1",)) == "cuda:1"


def test_a_clusters_workers_choose_for_themselves(monkeypatch):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        asked = {"engine": "auto", "precision": "f32", "device": "cpu"}
        here = choose_engine("light", **asked)
        # What this process would choose is not asked for.
        monkeypatch.setattr(engine_choice, "choose_engine", _of_a_worker)
        assert pick_engine("light", **asked, client=DaskWorkers(client)) == here


def _of_a_worker(model, **asked):
    from distributed import get_worker

    get_worker()
    return choose_engine(model, **asked)


def test_a_log_counts_pieces_and_keeps_notes_in_order():
    log = EngineLog()
    for name, notes in (("a", ["first"]), ("a", []), ("b", ["second", "first"])):
        rest = log.see({"x": np.zeros(2), "engine": np.array(name), **({"notes": np.array(notes)} if notes else {})})
        assert list(rest) == ["x"]
    spec = type("Spec", (), {"why": "for a reason"})
    assert log.summary(spec) == {
        "why": "for a reason", "pieces_by_engine": {"a": 2, "b": 1}, "engine_notes": ["first", "second"],
    }  # fmt: skip
