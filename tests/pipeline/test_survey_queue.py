"""The queue of observations on SQLite and PostgreSQL."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline.survey import SurveyStore, open_store
from pipeline.survey.schema import observation
from survey_io.errors import InputError
from tests.forks import fork, wait

# Forked children are cheap; later Pythons warn of forking beside threads, of which these do nothing.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def store(store_url: str) -> SurveyStore:
    with open_store(store_url) as store:
        yield store


def silent(store: SurveyStore, id: int, seconds: float = 61.0) -> None:
    """Let an observation look as if its worker had given no sign of life for so long."""
    past = sa.update(observation).where(observation.c.id == id).values(beat=observation.c.beat - seconds)
    store.write(lambda connection: connection.execute(past))


def test_each_content_once_and_in_order_of_arrival(store: SurveyStore) -> None:
    ids = [store.enqueue(f"/in/{name}.fits", sha256=name, kind="image", bytes=10)[0] for name in "cab"]
    assert store.enqueue("/in/again.fits", sha256="a") == (ids[1], False)
    assert [store.claim("w")["id"] for _ in ids] == ids
    assert store.claim("w") is None
    seen = store.observation(ids[0])
    assert (seen["state"], seen["worker"], seen["attempts"], seen["bytes"]) == ("running", "w", 1, 10)
    assert seen["arrived"] <= seen["heartbeat"] and seen["arrived"].endswith("Z") and len(seen["arrived"]) == 24


def test_priority_comes_before_arrival(store: SurveyStore) -> None:
    store.enqueue("/in/a", sha256="a")
    urgent, _ = store.enqueue("/in/b", sha256="b", priority=5)
    assert store.claim("w")["id"] == urgent


def test_a_silent_workers_observation_is_taken_over(store: SurveyStore) -> None:
    first, _ = store.enqueue("/in/a", sha256="a")
    second, _ = store.enqueue("/in/b", sha256="b")
    store.claim("dead")
    assert store.claim("w")["id"] == second
    assert store.claim("w") is None
    silent(store, first)
    taken = store.claim("w")
    assert (taken["id"], taken["attempts"], taken["worker"]) == (first, 2, "w")
    # Whoever comes back late changes nothing.
    assert not store.renew(first, "dead")
    assert not store.fail(first, "dead", "late", retry=True)
    assert not store.finish(first, "dead")
    assert store.renew(first, "w")
    silent(store, second)
    assert store.renew(second, "w")
    assert store.claim("other") is None


def test_what_becomes_of_an_observation(store: SurveyStore) -> None:
    one, _ = store.enqueue("/in/a", sha256="a")
    store.claim("w")
    assert store.fail(one, "w", "disk full", retry=True)
    assert store.claim("w")["attempts"] == 2
    assert store.fail(one, "w", "no beam", retry=False)
    assert store.claim("w") is None
    assert (store.observation(one)["state"], store.observation(one)["error"]) == ("failed", "no beam")
    store.quarantine(one, "not FITS")
    assert [seen["id"] for seen in store.observations("quarantined")] == [one]
    store.requeue(one, path="/moved/b.fits")
    again = store.claim("w")
    assert (again["path"], again["name"], again["error"], again["attempts"]) == ("/moved/b.fits", "b.fits", None, 1)
    assert store.release("w") == 1
    assert store.claim("v")["attempts"] == 1
    assert store.finish(one, "v")
    assert store.finish(one, "v")
    assert store.counts()["observations"]["done"] == 1
    for change in (lambda: store.quarantine(9, "x"), lambda: store.requeue(9), lambda: store.observation(9)):
        with pytest.raises(InputError, match="there is none with 9"):
            change()


def test_pages_of_observations(store: SurveyStore) -> None:
    for number in range(5):
        store.enqueue(f"/in/{number}", sha256=str(number))
    assert [seen["name"] for seen in store.observations(limit=2, offset=1)] == ["1", "2"]
    assert [seen["name"] for seen in store.observations(limit=2, newest=True)] == ["4", "3"]
    assert [seen["name"] for seen in store.observations(offset=4)] == ["4"]


def test_many_threads_share_the_work(store: SurveyStore) -> None:
    for number in range(30):
        store.enqueue(f"/in/{number}", sha256=str(number))
    taken: list[int] = []

    def work(name: str) -> None:
        while (claimed := store.claim(name)) is not None:
            taken.append(claimed["id"])
            assert store.finish(claimed["id"], name)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 31))


def test_processes_that_add_the_same_content_add_it_once(store: SurveyStore) -> None:
    new = multiprocessing.get_context("fork").SimpleQueue()
    assert wait([fork(_add, store, new) for _ in range(3)]) == [0] * 3
    assert sum(new.get() for _ in range(3)) == 20
    assert store.counts()["observations"]["arrived"] == 20


def _add(store: SurveyStore, new: Any) -> None:
    new.put(sum(store.enqueue(f"/in/{number}", sha256=str(number))[1] for number in range(20)))
