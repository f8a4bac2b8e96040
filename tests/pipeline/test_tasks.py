"""Stages of work: each piece is done once, whatever happened before, serially and on Dask alike."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask.distributed import Client, LocalCluster

from pipeline.dask_workers import DaskWorkers, remote_workers
from pipeline.infer import background_piece
from pipeline.ledger import Ledger
from pipeline.local_workers import Lost, Processes, Threads, local_workers
from pipeline.tasks import run_stage
from survey_io.background import ArrayPixels
from survey_io.errors import OutputError, SkysiftError


def square(x: float, y: float = 0.0) -> dict[str, np.ndarray]:
    return {"value": np.array([x * x + y]), "empty": np.empty((0, 2), np.float32)}


def slow(x: float) -> dict[str, np.ndarray]:
    time.sleep(x)
    return square(x)


def fail_at_three(x: float) -> dict[str, np.ndarray]:
    if x == 3:
        raise ValueError("no square of three")
    return square(x)


TAKEN: list[int] = []


def pieces_taken(count: int) -> Iterator[tuple[int, tuple]]:
    for i in range(count):
        TAKEN.append(i)
        yield i, (float(i),)


def look(x: float) -> dict[str, np.ndarray]:
    """How many pieces were asked for by the time that this one ends."""
    time.sleep(0.02)
    return {"value": np.array([float(len(TAKEN))])}


def values(ledger: Ledger, stage: str = "squares") -> dict[int, float]:
    return {number: float(arrays["value"][0]) for number, arrays in ledger.get(stage)}


PIECES = [(i, (float(i), 1.0)) for i in range(20)]
EXPECTED = {i: i * i + 1.0 for i in range(20)}


def test_results_come_in_the_order_of_their_index_with_shape_and_type() -> None:
    ledger = Ledger(None, "a")
    run_stage("squares", square, PIECES[::-1], ledger)
    assert values(ledger) == EXPECTED and list(values(ledger)) == list(range(20))
    arrays = dict(ledger.get("squares"))[4]
    assert arrays["empty"].shape == (0, 2) and arrays["empty"].dtype == np.float32
    assert ledger.done("squares") == set(range(20)) and ledger.done("other") == set()


def test_a_ledger_resumes_where_it_stopped(tmp_path: Path) -> None:
    path, calls, told = tmp_path / "x.ledger", [], []

    def traced(x: float) -> dict[str, np.ndarray]:
        calls.append(x)
        return fail_at_three(x)

    pieces = [(i, (float(i),)) for i in range(6)]
    ledger = Ledger(path, "key")
    with pytest.raises(ValueError, match="no square of three"):
        run_stage("squares", traced, pieces, ledger)
    ledger.close()
    assert calls == [0, 1, 2, 3]

    ledger = Ledger(path, "key")
    assert ledger.done("squares") == {0, 1, 2}
    run_stage("squares", square, pieces, ledger, advance=told.append)
    assert values(ledger) == {i: i * i for i in range(6)} and told == [3, 1, 1, 1]
    run_stage("squares", fail_at_three, pieces, ledger)
    ledger.close(delete=True)
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_another_run_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "x.ledger"
    for key, found in (("one", set()), ("one", {7}), ("two", set()), ("one", set())):
        ledger = Ledger(path, key)
        assert ledger.done("squares") == found
        ledger.put("squares", 7, square(1))
        ledger.close()


def test_a_killed_run_leaves_its_finished_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.ledger"
    ledger = Ledger(path, "key")
    ledger.put("squares", 0, square(2))
    # No close: another process would find the file as a kill leaves it.
    other = Ledger(path, "key")
    assert values(other) == {0: 4.0}
    other.close()
    ledger.close()


def test_stages_do_not_mix_and_a_piece_can_be_replaced() -> None:
    ledger = Ledger(None, "")
    ledger.put("a", 0, square(1))
    ledger.put("b", 0, square(2))
    ledger.put("a", 0, square(3))
    assert values(ledger, "a") == {0: 9.0} and values(ledger, "b") == {0: 4.0}


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + bytes(4000)])
def test_a_corrupt_ledger_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ledger"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="x.ledger.*delete it or give --fresh") as caught:
        Ledger(path, "key")
    assert "\n" not in str(caught.value)


def test_a_ledger_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="x.ledger"):
        Ledger(tmp_path / "none" / "x.ledger", "key")


@pytest.mark.parametrize("kind", [Threads, Processes])
def test_one_worker_needs_no_others(kind) -> None:
    with local_workers(kind, 1) as client:
        assert client is None


@pytest.fixture(scope="module", params=["threads", "dask"])
def client(request):
    if request.param == "threads":
        with local_workers(Threads, 2) as made:
            yield made
        return
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as made,
    ):
        yield DaskWorkers(made)


def test_threads_give_what_the_serial_run_gives(client) -> None:
    told: list[int] = []
    ledger = Ledger(None, "")
    run_stage("squares", square, PIECES, ledger, client=client, advance=told.append)
    assert values(ledger) == EXPECTED and sum(told) == 20
    # Pieces with equal arguments are pieces of their own.
    alike = Ledger(None, "")
    run_stage("squares", square, [(i, (2.0,)) for i in range(9)], alike, client=client)
    assert values(alike) == dict.fromkeys(range(9), 4.0)


def test_processes_give_what_the_serial_run_gives() -> None:
    pixels = ArrayPixels(np.random.default_rng(0).normal(size=(640, 320)).astype(np.float32))
    pieces = [(i, (pixels, i, i + 1, 32, 2)) for i in range(20)]
    ledgers = [Ledger(None, ""), Ledger(None, "")]
    with local_workers(Processes, 3) as helpers:
        for ledger, client in zip(ledgers, (None, helpers), strict=True):
            run_stage("rows", background_piece, pieces, ledger, client=client)
        # The same helpers serve a second stage, and an error in one of them is the caller's.
        with pytest.raises(ValueError, match="reshape"):
            run_stage("bad", background_piece, [(i, (pixels, 0, 1, 31, 7)) for i in range(9)], ledger, client=helpers)
    for (number, alone), (same, together) in zip(*(ledger.get("rows") for ledger in ledgers), strict=True):
        assert number == same and alone.keys() == together.keys()
        assert all(np.array_equal(alone[name], together[name]) for name in alone)


def test_a_helper_that_dies_is_replaced_and_nothing_is_missing() -> None:
    ledger = Ledger(None, "")
    with local_workers(Processes, 2) as helpers:
        helpers._helpers[0].kill()
        run_stage("sleep", slow, [(i, (0.02,)) for i in range(10)], ledger, client=helpers)
    assert ledger.done("sleep") == set(range(10)) and ledger.missing == []


def test_a_failing_piece_raises_and_what_was_done_stays(client) -> None:
    ledger = Ledger(None, "")
    with pytest.raises(ValueError, match="no square of three"):
        run_stage("squares", fail_at_three, [(i, (float(i),)) for i in range(30)], ledger, client=client)
    done = ledger.done("squares")
    assert 3 not in done and len(done) < 30
    run_stage("squares", square, [(i, (float(i),)) for i in range(30)], ledger, client=client)
    assert values(ledger) == {i: i * i for i in range(30)}


def test_only_a_window_of_pieces_is_under_way(client) -> None:
    TAKEN.clear()
    found = {piece[0]: float(arrays["value"][0]) for piece, arrays in client.results(look, (), pieces_taken(150))}
    assert len(TAKEN) == 150 and set(found) == set(range(150))
    # Three pieces for each of two workers (of Dask's at least 32), and what is handed out as the first ones end.
    assert found[0] <= 40 < found[149]


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(SkysiftError, match="127.0.0.1:9"), remote_workers("nonsense://127.0.0.1:9"):
        pass


def die_at_three(x: float) -> dict[str, np.ndarray]:
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return square(x)


def too_large_beside_others(folder: str, x: float) -> dict[str, np.ndarray]:
    """Out of memory the first time, as when other pieces hold it; never enough for the fourth."""
    first = Path(folder) / f"{x:.0f}"
    if x == 3 or not first.exists():
        first.touch()
        np.empty(1 << 60, np.uint8)
    return square(x)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_piece_without_memory_is_tried_alone_and_then_missing(tmp_path: Path, workers: int) -> None:
    ledger, pieces = Ledger(None, ""), [(i, (float(i),)) for i in range(8)]
    with local_workers(Threads, workers) as client:
        common = {"shared": (str(tmp_path),), "client": client}
        run_stage(
            "squares", too_large_beside_others, pieces, ledger, **common, max_missing=0.2, where=lambda x: {"at": x}
        )
        assert values(ledger) == {i: i * i for i in range(8) if i != 3}
        assert ledger.missing == [{"stage": "squares", "piece": 3, "reason": "out of memory", "at": 3.0}]
        # Running again tries what is missing, and only that; a share of none is a failure.
        with pytest.raises(SkysiftError, match=r"squares: 1 of 8 pieces could not be done \(piece 3: out of memory\)"):
            run_stage("squares", too_large_beside_others, pieces, ledger, **common, max_missing=0.1)
        ledger.missing.clear()
        run_stage("squares", square, pieces, ledger, client=client)
    assert values(ledger) == {i: i * i for i in range(8)} and ledger.missing == []


def test_a_piece_that_kills_its_helper_does_not_kill_the_run() -> None:
    with local_workers(Processes, 2) as helpers:
        answer = helpers.alone(die_at_three, (), (3, (3.0,)))
        assert isinstance(answer, Lost) and "signal 9" in answer.reason
        assert float(helpers.alone(die_at_three, (), (2, (2.0,)))["value"][0]) == 4.0


def test_pieces_made_from_something_else_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "x.ledger"
    for sources, kept in (([1.0, 2.0], set()), ([1.0, 2.0], {0}), ([1.0], set()), ([1.0], {0})):
        ledger = Ledger(path, "key")
        ledger.rest_on("measure", {"x": np.array(sources), "y": np.array(sources)})
        assert ledger.done("measure") == kept
        ledger.put("measure", 0, square(1))
        ledger.put("detect", 1, square(1))
        ledger.close()


def test_a_full_disk_is_said_and_what_was_done_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.ledger"
    ledger = Ledger(path, "key")
    ledger.put("squares", 0, square(2))
    ledger._db.execute("PRAGMA max_page_count = 12")
    with pytest.raises(OutputError, match="x.ledger: no space left on the device.*run the same command again"):
        run_stage("squares", grow, [(i, (i,)) for i in range(9)], ledger)
    done = ledger.done("squares")
    assert 0 in done and len(done) < 9
    ledger._db.execute("PRAGMA max_page_count = 100000")
    run_stage("squares", grow, [(i, (i,)) for i in range(9)], ledger)
    assert ledger.done("squares") == set(range(9))
    ledger.close()


def grow(x: float) -> dict[str, np.ndarray]:
    return {"value": np.full(1000, float(x))}
