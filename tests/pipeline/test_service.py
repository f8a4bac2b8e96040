"""The service on real files, with its real queue and processes: each observation once, nothing lost."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.options import DetectOptions
from pipeline.service import results
from pipeline.service.options import ServeOptions
from pipeline.service.serve import Service
from pipeline.service.takeover import machine_name, take_back
from pipeline.survey import open_store
from survey_io.catalogue import read_catalogue
from survey_io.errors import OptionError, OutputError
from survey_io.simulate.continuum import SkyModel, simulate_continuum
from survey_io.simulate.tables import write_simulation

THRESHOLD = DetectOptions(model="threshold", workers=1)


@pytest.fixture(scope="module")
def skies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three small images and a larger one, whose work takes a second or more."""
    folder, made = tmp_path_factory.mktemp("skies"), []
    for seed, side in ((1, 90), (2, 90), (3, 90), (4, 900)):
        sky = simulate_continuum((side, side + 10), seed=seed, model=SkyModel(density=0.01))
        made.append(write_simulation(sky, folder, stem=f"sky{seed}")["image"])
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.fixture
def store(place: Path) -> Iterator[Any]:
    with open_store(place / "survey") as opened:
        yield opened


def options(place: Path, **changes: Any) -> ServeOptions:
    quick = {"interval": 0.05, "looks": 2, "once": True, "pause": 0.05, "patience": 0.0}
    return ServeOptions(**{"inbox": place / "in", "catalogue": str(place / "survey"), **quick, **changes})


def serve(place: Path, store: Any, **changes: Any) -> Service:
    service = Service(options(place, **changes), store, detect=THRESHOLD)
    service.run()
    return service


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f".{target.name}")
    part.write_bytes(source.read_bytes())
    part.rename(target)
    time.sleep(0.01)


def test_each_observation_once_in_order_of_arrival(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[1], place / "in" / "sky.fits")
    put(skies[0], place / "in" / "night 2" / "sky.fits")
    put(skies[1], place / "in" / "copy.fits")
    put(skies[2], place / "in" / "a.fits")
    (place / "in" / "letter.fits").write_text("Dear Sir or Madam, this is not an image.")
    (place / "in" / "cut.fits").write_bytes(skies[2].read_bytes()[:9000])
    (place / "in" / "flat.fits").write_bytes(flat(skies[0]))
    tally = serve(place, store).tally
    assert (tally.arrived, tally.done, tally.duplicates, tally.quarantined, tally.refused) == (4, 3, 1, 1, 2)
    seen = [one["path"] for one in store.observations(state="done")]
    assert [Path(path).relative_to(place / "in") for path in seen] == [
        Path("sky.fits"), Path("night 2/sky.fits"), Path("a.fits")
    ]  # fmt: skip
    assert [one.observation["path"] for one in tally.outcomes if one.state == "done"] == seen
    # Equal names have folders of their own, whose catalogues are those in the database.
    for one in tally.outcomes:
        if one.state == "done":
            folder = one.folder
            name = Path(one.observation["path"]).stem
            manifest = json.loads((folder / f"{name}_run.json").read_text())
            assert manifest["input"]["sha256"] == one.observation["sha256"]
            assert manifest["options"]["output"] == str(folder) == store.run(one.run)["output"]
            assert len(read_catalogue(folder / f"{name}_cat.fits")) == one.rows == len(store.sources(one.run)) > 0
    assert len(list((place / "survey" / "results").iterdir())) == 3, "nothing is left of what failed"
    aside = {path.name for path in (place / "survey" / "quarantine").iterdir()}
    assert aside == {f"{name}.fits{end}" for name in ("letter", "cut", "flat") for end in ("", ".reason.txt")}
    assert "truncated" in (place / "survey" / "quarantine" / "cut.fits.reason.txt").read_text()
    assert {one["name"] for one in store.observations(state="quarantined")} == {"letter.fits", "cut.fits", "flat.fits"}
    # Nothing of it is done again; a name that is new again, and new content, are.
    put(skies[2], place / "in" / "sky.fits")
    put(skies[3], place / "in" / "a.fits")
    tally = serve(place, store).tally
    assert (tally.arrived, tally.done, tally.duplicates, tally.refused) == (1, 1, 1, 0)
    assert store.counts()["runs"] == 4


def flat(image: Path) -> bytes:
    """The image with all pixels zero: its header reads, and nothing can be found in it."""
    from astropy.io import fits

    with fits.open(image) as hdus:
        hdus[0].data = np.zeros_like(hdus[0].data)
        hdus.writeto(image.with_name("flat"), overwrite=True)
    return image.with_name("flat").read_bytes()


def test_another_run_supersedes_and_keeps_the_former(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[0], place / "in" / "sky.fits")
    first = serve(place, store).tally.outcomes[0]
    store.requeue(1)
    # The same again: nothing new is kept.
    again = serve(place, store).tally.outcomes[0]
    assert (again.run, again.folder) == (first.run, first.folder) and again.folder.is_dir()
    store.requeue(1)
    service = Service(options(place), store, detect=THRESHOLD.with_changes(threshold=0.9))
    other = service.run().outcomes[0]
    assert other.run != first.run and other.folder.name == f"{first.folder.name}-run2" and first.folder.is_dir()
    assert [run["current"] for run in sorted(store.runs(observation_id=1), key=lambda run: run["id"])] == [False, True]


def test_a_helper_that_dies_and_one_that_takes_too_long(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[3], place / "in" / "big.fits")
    put(skies[0], place / "in" / "small.fits")
    service = Service(options(place), store, detect=THRESHOLD)
    helper, killed = service.workers[0].helper, set()

    def kill() -> None:
        while len(killed) < 2:
            if store.observations(state="running") and (pid := helper.pid) not in (None, *killed):
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    tally = service.run()
    killer.join()
    assert (tally.done, tally.failed) == (2, 0), "its third try is not disturbed"
    assert [Path(one.observation["path"]).name for one in tally.outcomes] == ["big.fits", "small.fits"]
    assert len(killed) == 2 and helper.pid is None
    for number in (1, 2):
        store.requeue(number)
    tally = serve(place, store, timeout=0.001).tally
    assert tally.failed == 2 and "timeout" in store.observation(1)["error"]


def test_one_that_kills_its_helper_each_time_is_given_up(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[3], place / "in" / "big.fits")
    put(skies[0], place / "in" / "small.fits")
    service = Service(options(place, attempts=2), store, detect=THRESHOLD)
    helper, ended = service.workers[0].helper, threading.Event()

    def kill() -> None:
        while not ended.is_set():
            running = any(one["id"] == 1 for one in store.observations(state="running"))
            if running and (pid := helper.pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    tally = service.run()
    ended.set()
    killer.join()
    assert (tally.done, tally.failed) == (1, 1)
    failed = store.observation(1)
    assert failed["state"] == "failed" and "SIGKILL" in failed["error"]


def test_stop_hands_back_and_the_next_service_goes_on(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[3], place / "in" / "big.fits")
    service = Service(options(place, once=False, grace=0.0), store, detect=THRESHOLD)
    thread = threading.Thread(target=service.run)
    thread.start()
    wait_for(lambda: store.counts()["observations"]["running"] == 1)
    service.stop()
    thread.join(20)
    assert not thread.is_alive()
    (one,) = store.observations()
    assert (one["state"], one["attempts"], one["worker"]) == ("arrived", 0, None)
    assert serve(place, store).tally.done == 1
    assert len(list((place / "survey" / "results").iterdir())) == 1


def test_results_that_cannot_be_written(
    skies: list[Path], place: Path, store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder where a file has taken the name: the queue waits until it is mended, or says so with ``once``."""
    # Other tests leave handlers of commands and of Prefect, which decides what goes on to the root.
    monkeypatch.setattr(logging.getLogger("skysift"), "handlers", [caplog.handler])
    put(skies[0], place / "in" / "sky.fits")
    service = Service(options(place, attempts=2), store, detect=THRESHOLD)
    folder = place / "survey" / "results"
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(OutputError, match="results"):
        service.run()
    assert store.observation(1)["state"] == "arrived"
    with pytest.raises(OutputError, match="expected a folder that can be written"):
        serve(place, store)
    folder.unlink()
    waiting = Service(options(place, once=False), store, detect=THRESHOLD)
    folder.rmdir()
    folder.write_text("in the way")
    thread = threading.Thread(target=waiting.run)
    thread.start()
    try:
        wait_for(lambda: "waiting until they can" in caplog.text)
        folder.unlink()
        wait_for(lambda: store.counts()["observations"]["done"] == 1)
    finally:
        waiting.stop()
        thread.join(20)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_results_left_by_a_service_that_died_are_replaced(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[0], place / "in" / "sky.fits")
    first = serve(place, store).tally.outcomes[0]
    orphan = results.folder_name(Path("sky.fits"), "f" * 64)
    assert orphan == "sky-ffffffffffff"
    # As after a kill between the move of the results and their record, in a catalogue that is new.
    with open_store(place / "other") as other:
        again = Service(
            options(place, catalogue=str(place / "other"), output=place / "survey"), other, detect=THRESHOLD
        ).run()
        assert again.outcomes[0].folder == first.folder and len(other.sources(again.outcomes[0].run)) == first.rows


def test_a_file_that_goes_before_its_turn(skies: list[Path], place: Path, store: Any) -> None:
    put(skies[0], place / "in" / "sky.fits")
    put(skies[1], place / "in" / "other.fits")
    assert serve(place, store, workers=0).tally.arrived == 2
    (place / "in" / "sky.fits").rename(place / "in" / "renamed.fits")
    (place / "in" / "other.fits").unlink()
    assert serve(place, store, workers=0).tally.duplicates == 1
    tally = serve(place, store).tally
    assert (tally.done, tally.failed) == (1, 1) and "gone" in store.observation(2)["error"]


def test_options_that_cannot_work(place: Path, store: Any) -> None:
    with pytest.raises(OptionError, match="lies in it"):
        serve(place, store, output=place / "in" / "out")
    with pytest.raises(OptionError, match="nothing to do"):
        Service(ServeOptions(workers=0, output=place / "out"), store)


def test_what_a_killed_service_had_taken_is_taken_back_at_once_and_only_that(place: Path, store: Any) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine = machine_name()
    names = [f"{machine}:{ended.pid}:0", f"{machine}:{os.getpid()}:0", f"{machine}:{os.getppid()}:0", "elsewhere:1:0"]
    for number, name in enumerate(names):
        store.enqueue(place / f"{number}.fits", sha256=f"{number}" * 64)
        assert store.claim(name)["id"] == number + 1
    assert take_back(store) == 2
    assert [one["state"] for one in store.observations()] == ["arrived", "arrived", "running", "running"]
    # A try is a try: what kills its service each time is not tried for ever.
    assert store.claim("another:1:0")["attempts"] == 2
