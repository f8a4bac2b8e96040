"""Retrained weights are kept by version, never changed, and a name stands for one of them at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import store, weights
from models.detectors.light import LightDetector
from models.in_use import InUseChanged, promote, rollback, usage
from models.store import add_version, get_version, list_stored, list_versions
from models.weights import Card, exact_name, find_weights, load_weights, needs_weights, read_card, save_weights
from survey_io.errors import InputError, OptionError, OutputError

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


def trained(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_weights(LightDetector(**OPTIONS), Card(model="light", options=OPTIONS, seed=seed), path)
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two sets of weights in the store as versions 1 and 2 of "light"."""
    made = [trained(tmp_path / f"run{seed}" / "any.safetensors", seed) for seed in (1, 2)]
    for path in made:
        add_version("light", path, {"evaluation.json": b"{}\n"})
    return made


def test_versions_are_counted_and_hold_what_came_with_them(two: list[Path], folder: Path) -> None:
    assert list_stored() == {"light": [1, 2]}
    second = get_version("light", 2)
    assert second.label == "light@2" and second.folder == folder / "light" / "2"
    assert second.weights.read_bytes() == two[1].read_bytes()
    assert sorted(path.name for path in second.folder.iterdir()) == [
        "evaluation.json", "light.json", "light.safetensors", "record.json"
    ]  # fmt: skip
    assert {"evaluation.json", "light.json", "light.safetensors"} == set(second.files)
    assert not os.access(second.weights, os.W_OK) or os.getuid() == 0
    second.verify()
    # Nothing but versions and the lock is left behind.
    assert sorted(path.name for path in (folder / "light").iterdir()) == [".lock", "1", "2"]


def test_the_same_weights_stay_the_version_that_they_are(two: list[Path]) -> None:
    assert add_version("light", two[0], {}).version == 1
    assert list_versions("light") == [1, 2]


def test_a_number_is_not_given_twice(two: list[Path], folder: Path, tmp_path: Path) -> None:
    promote("light", 2, why="good")
    rollback("light")
    (folder / "light" / "2").rename(tmp_path / "gone")
    assert add_version("light", two[1], {}).version == 3


def test_a_name_stands_for_the_version_in_use(two: list[Path]) -> None:
    shipped = weights.WEIGHTS_FOLDER / "light.safetensors"
    assert find_weights("light") == find_weights("light@shipped") == shipped and exact_name("light") == "light"
    promote("light", 2, why="better by 0.1")
    assert exact_name("light") == "light@2" and exact_name("light@1") == "light@1"
    assert find_weights("light") == get_version("light", 2).weights and find_weights("light@shipped") == shipped
    module, card = load_weights("light")
    assert card.seed == 2 and read_card("light@1").seed == 1
    assert card.sha256 == weights.file_sha256(two[1])
    expected = load_weights(two[1])[0].state_dict()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_promotion_and_return_with_their_history(two: list[Path]) -> None:
    promote("light", 1, why="first")
    promote("light", 2, why="second")
    assert [rollback("light").version for _ in range(2)] == [1, None]
    with pytest.raises(OptionError, match="nothing to go back to"):
        rollback("light")
    assert promote("light", 2, why="again").version == 2
    # Going back from a return leads to what was in use before, not to what was left.
    promote("light", None, why="shipped once more")
    assert rollback("light", why="no").version == 2
    history = usage("light").history
    assert [(entry["action"], entry["version"], entry["previous"]) for entry in history] == [
        ("promote", 1, None), ("promote", 2, 1), ("rollback", 1, 2), ("rollback", None, 1), ("promote", 2, None),
        ("promote", None, 2), ("rollback", 2, None),
    ]  # fmt: skip
    assert history[1]["why"] == "second" and history[-1]["why"] == "no" and history[0]["at"].endswith("+00:00")


def test_a_promotion_that_rests_on_another_one_is_refused(two: list[Path]) -> None:
    promote("light", 1, why="first", instead_of=None)
    with pytest.raises(InUseChanged, match="expected light@shipped in use, found light@1"):
        promote("light", 2, why="better than the shipped", instead_of=None)
    assert usage("light").version == 1
    # A run that was killed after its promotion makes it once.
    promote("light", 1, why="first", instead_of=None)
    assert len(usage("light").history) == 1


@pytest.mark.parametrize("file", ["light.safetensors", "light.json"])
def test_damage_is_refused(two: list[Path], file: str) -> None:
    path = get_version("light", 2).folder / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    for call in (lambda: load_weights("light@2"), lambda: promote("light", 2, why="")):
        with pytest.raises(InputError, match="the file is damaged; go back with") as caught:
            call()
        assert "\n" not in str(caught.value)
    load_weights("light@1")
    path.unlink()
    with pytest.raises((InputError, OptionError)):
        load_weights("light@2")


def test_damaged_records_are_said(two: list[Path], folder: Path) -> None:
    (folder / "light" / "in_use.json").write_text("{")
    with pytest.raises(InputError, match="unreadable"):
        find_weights("light")
    find_weights("light@1")
    record = folder / "light" / "1" / "record.json"
    record.chmod(0o644)
    record.write_text("{}")
    with pytest.raises(InputError, match="unreadable record"):
        find_weights("light@1")
    record.unlink()
    with pytest.raises(InputError, match="expected the record"):
        find_weights("light@1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("light@7", "it has versions 1, 2"), ("sdc1@1", "no version of it was registered"), ("light@x", "as light@3"),
        ("light@0", "as light@3"), ("li ght", "expected a name of letters"), ("sdc1@shipped", "no weights are shipped"),
        ("@1", "expected a name of letters"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere(two: list[Path], name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_weights(name)


def test_a_name_of_ones_own(two: list[Path], tmp_path: Path) -> None:
    add_version("light-field7", two[0], {})
    assert needs_weights("light-field7") and needs_weights("light@1")
    with pytest.raises(OptionError, match="none of its 1 versions is in use: name one, as light-field7@1"):
        find_weights("light-field7")
    assert find_weights("light-field7@1").name == "light-field7.safetensors"
    promote("light-field7", 1, why="mine")
    assert load_weights("light-field7")[1].seed == 1
    with pytest.raises(OptionError, match="no weights of that name are shipped"):
        promote("light-field7", None, why="")
    with pytest.raises(OptionError, match="no version of it was registered"):
        rollback("light-field8")
    with pytest.raises(OptionError, match=r"expected one of .*light-field7.*did you mean 'light-field7'"):
        find_weights("light-fild7")


def test_a_store_that_cannot_be_written(
    tmp_path: Path, folder: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYSIFT_MODELS", str(two[0]))
    assert list_stored() == {} and find_weights("light").parent == weights.WEIGHTS_FOLDER
    with pytest.raises(OutputError, match="cannot register"):
        add_version("light", two[0], {})
    with pytest.raises(OutputError, match="cannot change what is in use"):
        promote("light", None, why="")


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store.store_folder() == tmp_path / "store"
    monkeypatch.delenv("SKYSIFT_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store.store_folder() == tmp_path / "skysift" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.store_folder() == tmp_path / ".local" / "share" / "skysift" / "models"


ADDER = """
import sys
from pathlib import Path
from models.in_use import promote
from models.store import add_version
source, me = Path(sys.argv[1]), sys.argv[2]
for i in range(12):
    # Each its own content: the weights are told apart by their bytes.
    weights = source / f"{me}-{i}.safetensors"
    weights.write_bytes((source / "any.safetensors").read_bytes() + f"{me} {i}".encode())
    weights.with_suffix(".json").write_text(f'{{"by": "{me} {i}"}}')
    version = add_version("light", weights, {"evaluation.json": f"{me} {i}".encode()})
    promote("light", version.version, why=f"{me} {i}")
    print(version.version, me, i, flush=True)
"""


def test_processes_at_once_each_get_their_own_versions(tmp_path: Path, folder: Path) -> None:
    trained(tmp_path / "any.safetensors", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SKYSIFT_MODELS": str(folder)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ADDER, str(tmp_path), name], env=environment, stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "c")
    ]
    lines = [line.split() for one in started for line in one.communicate(timeout=120)[0].splitlines()]
    assert [one.returncode for one in started] == [0, 0, 0]
    assert sorted(int(version) for version, *_ in lines) == list(range(1, 37)) == list_versions("light")
    for version, name, i in lines:
        one = get_version("light", int(version))
        one.verify()
        assert one.weights.read_bytes().endswith(f"{name} {i}".encode())
        assert (one.folder / "evaluation.json").read_text() == f"{name} {i}"
    history = usage("light").history
    assert sorted(entry["version"] for entry in history) == list(range(1, 37))
    # A history that was written by one process at a time: each entry goes on from the one before it.
    assert [entry["previous"] for entry in history] == [None, *(entry["version"] for entry in history[:-1])]


def test_a_killed_process_leaves_whole_versions(tmp_path: Path, folder: Path) -> None:
    trained(tmp_path / "any.safetensors", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SKYSIFT_MODELS": str(folder)}
    code = ADDER.replace("range(12)", "range(10_000)")
    for attempt in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), f"k{attempt}"], env=environment, stdout=subprocess.PIPE
        ) as one:
            assert one.stdout is not None
            one.stdout.readline()
            time.sleep(0.003 + 0.011 * attempt)
            one.send_signal(signal.SIGKILL)
    versions = list_versions("light")
    assert len(versions) >= 3 and versions == list(range(1, len(versions) + 1))
    for version in versions:
        get_version("light", version).verify()
    assert usage("light").version in versions
    # The lock died with its holder.
    add_version("light", trained(tmp_path / "next.safetensors", 2), {})


def test_what_a_killed_process_left_is_cleared_after_a_day(two: list[Path], folder: Path, tmp_path: Path) -> None:
    old, young = folder / "light" / ".new-old", folder / "light" / ".new-young"
    for left in (old, young):
        left.mkdir()
        (left / "light.safetensors").write_bytes(b"half")
    os.utime(old, (1, 1))
    add_version("light", trained(tmp_path / "next.safetensors", 3), {})
    assert not old.exists() and young.exists()


def test_a_detection_run_names_the_version(two: list[Path]) -> None:
    from pipeline.default_models import resolve_model
    from pipeline.options import DetectOptions

    assert resolve_model(DetectOptions(), 2).model == "light"
    promote("light", 1, why="")
    assert resolve_model(DetectOptions(), 2).model == resolve_model(DetectOptions(model="light"), 2).model == "light@1"
    assert resolve_model(DetectOptions(model="light@2"), 2).model == "light@2"
    with pytest.raises(OptionError, match="'light@2' reads images, and these are cubes"):
        resolve_model(DetectOptions(model="light@2"), 3)


def test_card_of_a_version_is_read_without_its_weights(two: list[Path]) -> None:
    one = get_version("light", 1)
    assert json.loads((one.folder / "light.json").read_text())["seed"] == 1
    assert replace(read_card("light@1"), sha256="") == replace(read_card(two[0]), sha256="")
