"""Work on Dask: loaded once, bounded, and a whole answer whatever dies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask.distributed import Client

import pipeline.dask_workers as dask_workers
from flows.gpu_cluster import worker_specs
from pipeline.dask_workers import DaskWorkers
from pipeline.detect import analyse
from pipeline.detect_cube import analyse_cube
from pipeline.detect_spectrum import analyse_spectra
from pipeline.ledger import Ledger
from pipeline.options import DetectOptions
from pipeline.tasks import run_stage
from survey_io import open_image
from survey_io.cube import open_cube
from survey_io.errors import OptionError, SkysiftError, WorkError
from survey_io.simulate.hi import HiModel, simulate_hi, write_hi
from survey_io.spectra import open_spectra

from .dask_pieces import Network, die_at_three, die_once, fail, square


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Client, str]]:
    """Two workers that offer a GPU and one that does not, each under a nanny, as on a machine with two cards."""
    from distributed import Scheduler, SpecCluster

    from flows import environment as environment

    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0", "port": 0, "host": "127.0.0.1"}}
    scheduler["options"]["allowed_failures"] = 1
    specs = worker_specs(["3", "5"])
    with (
        SpecCluster(workers=specs, scheduler=scheduler, silence_logs=50) as made,
        Client(made.scheduler_address, set_as_default=False) as client,
    ):
        client.wait_for_workers(3)
        yield client, made.scheduler_address


@pytest.fixture
def workers(cluster) -> DaskWorkers:
    client, _ = cluster
    workers = DaskWorkers(client, {"GPU": 1})
    workers.require()
    return workers


def values(ledger: Ledger) -> dict[int, float]:
    return {number: float(arrays["value"][0]) for number, arrays in ledger.get("s")}


def pieces(count: int) -> list[tuple[int, tuple]]:
    return [(i, (float(i),)) for i in range(count)]


def test_each_worker_has_a_card_of_its_own(cluster) -> None:
    def card() -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]

    seen = cluster[0].run(card)
    names = {address: one["name"] for address, one in cluster[0].scheduler_info(n_workers=-1)["workers"].items()}
    assert {names[address]: device for address, device in seen.items()} == {"gpu0": "3", "gpu1": "5", "light0": ""}


def test_a_network_is_loaded_once_per_worker_also_by_those_that_replace_others(workers, tmp_path: Path) -> None:
    network, ledger = Network(str(tmp_path)), Ledger(None, "")
    run_stage("s", square, pieces(40), ledger, shared=(network,), client=workers, network=True)
    assert values(ledger) == {i: i * i for i in range(40)}
    loads = (tmp_path / "loads").read_text().split()
    assert Counter(loads).most_common(1)[0][1] == 1 and len(loads) == 3
    # Only workers that offer the resource did pieces of the network.
    did = {int(arrays["process"][0]) for _, arrays in ledger.get("s")}
    info = workers.client.scheduler_info(n_workers=-1)["workers"]
    light = workers.client.run(os.getpid, workers=[a for a, one in info.items() if one["name"] == "light0"])
    assert len(did) == 2 and not did & set(light.values())

    (tmp_path / "loads").unlink()
    ledger = Ledger(None, "")
    run_stage("s", die_once, pieces(30), ledger, shared=(network, 3), client=workers, network=True)
    assert values(ledger) == {i: i * i for i in range(30)} and ledger.missing == []
    loads = (tmp_path / "loads").read_text().split()
    assert len(loads) == 4 and len(set(loads)) == 4


def test_a_piece_that_kills_its_worker_is_missing_and_all_others_are_done(workers, tmp_path: Path) -> None:
    ledger, network = Ledger(None, ""), Network(str(tmp_path))
    common = {"shared": (network,), "client": workers, "network": True}
    run_stage("s", die_at_three, pieces(30), ledger, **common, max_missing=0.1, where=lambda x: {"at": x})
    assert values(ledger) == {i: i * i for i in range(30) if i != 3}
    (lost,) = ledger.missing
    assert lost["piece"] == 3 and lost["at"] == 3.0 and "its worker ended each time" in lost["reason"]


@pytest.mark.parametrize(("how", "name"), [("endless", "RecursionError"), ("stubborn", "Stubborn .1 and 2.")])
def test_an_exception_that_does_not_travel_ends_the_run_in_one_line(workers, tmp_path: Path, how, name) -> None:
    common = {"shared": (Network(str(tmp_path)),), "client": workers, "network": True}
    with pytest.raises(WorkError, match=f"failed with {name}.* in fail, line"):
        run_stage("s", fail, [(0, (how,))], Ledger(None, ""), **common)


def test_resources_that_no_worker_offers_are_refused_before_anything_waits(cluster, monkeypatch) -> None:
    monkeypatch.setattr(dask_workers, "CONNECT_SECONDS", 1.0)
    with pytest.raises(OptionError, match=r"a worker that offers TPU=2, the \d of the cluster offer "):
        DaskWorkers(cluster[0], {"TPU": 2}).require()


def test_a_cluster_without_workers_ends_the_run_and_does_not_wait_for_ever(monkeypatch) -> None:
    from distributed import Scheduler, SpecCluster

    monkeypatch.setenv(dask_workers.PATIENCE, "0.3")
    monkeypatch.setattr(dask_workers, "REFRESH_SECONDS", 0.1)
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0", "port": 0, "host": "127.0.0.1"}}
    with SpecCluster(workers={}, scheduler=scheduler) as made, Client(made, set_as_default=False) as client:
        with pytest.raises(SkysiftError, match="has no workers"):
            DaskWorkers(client).require()
        with pytest.raises(SkysiftError, match="no worker for 0 s: see to its workers"):
            run_stage("s", square, pieces(3), Ledger(None, ""), shared=(None,), client=DaskWorkers(client))


def assert_equal(table, reference, beam: float | None = None) -> None:
    """Bit for bit; with a beam (arcsec) to 1e-4: relative, of the beam for places and sizes, of a right angle."""
    assert len(table) == len(reference) > 3 and table.colnames == reference.colnames
    for name in reference.colnames:
        new, old = np.asarray(table[name]), np.asarray(reference[name])
        if beam is None or old.dtype.kind != "f":
            assert np.array_equal(new, old, equal_nan=old.dtype.kind == "f"), name
            continue
        # An engine with other threads adds in another order.
        assert np.array_equal(np.isfinite(new), np.isfinite(old)), name
        error = np.abs(np.asarray(new - old, float))
        if reference[name].unit == "deg" and name.startswith("pa"):
            # A network's angle comes from two numbers near 0 where a source looks round.
            error = np.abs((error + 90) % 180 - 90) / 90 / (10 if name in ("pa_net", "pa_best") else 1)
        elif name in ("ra", "dec"):
            error *= 3600 / beam
        elif reference[name].unit == "arcsec":
            error /= beam
        else:
            error /= np.maximum(np.abs(old), 1e-30)
        assert np.nanmax(error, initial=0.0) < 1e-4, (name, np.nanmax(error))


def test_image_cube_and_spectra_give_the_serial_catalogue(cluster, small_survey: Path, tmp_path: Path) -> None:
    # Left to itself every process would ask whether its processor gains by int8, which neighbours may sway.
    serial = {"workers": 1, "precision": "f32", "threshold": 0.3, "tile": 128, "cube_tile": (64, 40)}
    spread = serial | {"cluster": cluster[1], "resources": {"GPU": 1}}
    image = open_image(next(small_survey.glob("sky.fits")))
    tables = [analyse(image, DetectOptions(**options)).table for options in (spread, serial)]
    assert_equal(*tables, beam=image.beam.major)

    model = HiModel(shape=(170, 72, 90), density=14, rms=4e-6, first_frequency=1.02e9)
    cube = open_cube(write_hi(model, *simulate_hi(model, seed=12), tmp_path)["cube"])
    assert_equal(analyse_cube(cube, DetectOptions(**spread)).table, analyse_cube(cube, DetectOptions(**serial)).table)

    rng = np.random.default_rng(4)
    path = tmp_path / "lines.txt"
    channel = np.arange(1000)
    flux = rng.normal(0, 1, 1000) + sum(9 * np.exp(-0.5 * ((channel - c) / 4) ** 2) for c in (150, 420, 560, 700, 800))
    np.savetxt(path, np.c_[1400.0 + 0.01 * channel, flux], header="frequency(MHz) flux(Jy)")
    opened = open_spectra(path)
    tables = [analyse_spectra(opened, path, DetectOptions(**options)).table for options in (serial, spread)]
    assert_equal(tables[1], tables[0])
