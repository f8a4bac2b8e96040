"""A retraining from its data to the weights in use: what is promoted, what is kept, and how a killed run goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.in_use import promote, rollback, usage
from models.store import add_version, get_version, list_versions
from models.train_options import TrainOptions
from models.weights import WEIGHTS_FOLDER, file_sha256, load_weights, read_card
from pipeline.retrain import STAGES, retrain
from pipeline.retrain_decision import reference_of
from pipeline.retrain_options import RetrainOptions
from pipeline.retrain_run import Retraining
from pipeline.stages import Stages
from survey_io.errors import InputError, OptionError, OutputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in noise in two folders: brighter above, or below."""
    data = tmp_path_factory.mktemp("shades")
    rng = np.random.default_rng(1)
    for k in range(160):
        name, rows = ("above", slice(0, 18)) if k % 2 else ("below", slice(18, 36))
        pixels = rng.integers(0, 160, (36, 36, 3))
        pixels[rows] += 60
        (data / name).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(data / name / f"{k}.png")
    return data


def options(output: Path, data: Path, /, **changes) -> TrainOptions:
    """Two steps of a small network: as good as nothing."""
    values = {
        "output": output, "name": "photographs", "lesson": "images", "data": data, "steps": 2, "batch": 16,
        "model_options": {"classes": ["above", "below"], "side": 32, "width": 4}, "lesson_options": {"test": 0.4},
        "precision": "f32", "loaders": 0, "save_every": 1, "picture_every": 1000, "warm_up": 1, "device": "cpu",
        "threads": 1, "ema": 0.9,
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def good(output: Path, data: Path, /, **changes) -> TrainOptions:
    """Steps enough to tell most of them."""
    return options(output, data, **{"steps": 50, "learning_rate": 1e-2, "save_every": 25, **changes})


def asked(**changes) -> RetrainOptions:
    return RetrainOptions(**{"registry": "field", "export": False, **changes})


@pytest.fixture(scope="module")
def trained(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders "poor" and "good" of runs that end before their weights are registered."""
    folder = tmp_path_factory.mktemp("trained")
    retrain(options(folder / "poor", shades), asked(keep=False), report=lambda _: None)
    retrain(good(folder / "good", shades), asked(keep=False), report=lambda _: None)
    return folder


def go_on(trained: Path, name: str, folder: Path, data: Path, *, lines: list[str] | None = None, **changes) -> None:
    """Go on with a copy of the trained run as another recipe says."""
    shutil.copytree(trained / name, folder)
    begun = (good if name == "good" else options)(folder, data, resume=True)
    retrain(begun, asked(**changes), report=(lambda _: None) if lines is None else lines.append)


def decision(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())["decision"]


def test_worse_is_kept_and_better_is_promoted(tmp_path: Path, trained: Path, shades: Path) -> None:
    lines: list[str] = []
    go_on(trained, "poor", tmp_path / "a", shades, export=True, lines=lines)
    assert "fit: done before" in lines and any("differs from torch by" in line for line in lines)
    assert (tmp_path / "a" / "photographs.onnx").is_file()
    first = decision(tmp_path / "a")
    assert first["promoted"] and "nothing was in use" in first["why"] and usage("field").version == 1

    go_on(trained, "good", tmp_path / "b", shades)
    second = decision(tmp_path / "b")
    assert second["promoted"] and "of field@1, gain" in second["why"]
    assert usage("field").version == 2 and usage("field").history[-1]["why"] == second["why"]
    assert load_weights("field")[1].sha256 == file_sha256(tmp_path / "b" / "photographs.safetensors")

    retrain(options(tmp_path / "c", shades, seed=5), asked(), report=lines.append)
    third = decision(tmp_path / "c")
    assert not third["promoted"] and third["line"].startswith("field@3 is kept, not promoted: accuracy ")
    assert "not beyond 1 standard errors" in third["why"] and usage("field").version == 2
    assert any(": train: " in line for line in lines)

    kept = get_version("field", 3)
    assert {"options.json", "evaluation.json", "comparison.json", "data_report.json", "field.json"} <= set(kept.files)
    compared = json.loads((kept.folder / "comparison.json").read_text())
    assert compared["against"] == "field@2" and compared["gain"] < 0 and not compared["better"]
    report = (tmp_path / "c" / "report.md").read_text()
    for words in (
        "# Retraining field", "learning_curve.png", "| field@2 |", "registered as `field@3`", "- fit: ", "- train: ",
        "evaluation/confusion.png", "macs per example",
    ):  # fmt: skip
        assert words in report
    for picture in ("learning_curve.png", "evaluation/confusion.png"):
        assert (tmp_path / "c" / picture).stat().st_size > 1000


def test_a_gain_within_its_error_and_the_same_weights(tmp_path: Path, trained: Path, shades: Path) -> None:
    go_on(trained, "poor", tmp_path / "a", shades)
    go_on(trained, "good", tmp_path / "b", shades, sigma=1e9)
    assert "not beyond 1e+09 standard errors" in decision(tmp_path / "b")["why"] and usage("field").version == 1
    # The same weights again are the same version, and no better than themselves.
    promote("field", 2, why="by hand")
    go_on(trained, "good", tmp_path / "c", shades)
    assert list_versions("field") == [1, 2] and usage("field").version == 2
    assert "of field@1, gain" in decision(tmp_path / "c")["why"]


def test_a_baseline_and_the_shipped_weights_are_compared_with(tmp_path: Path) -> None:
    """Two steps of a small detector of lines against the shipped one."""
    sky = {
        "name": "lines", "lesson": "", "data": None, "lesson_options": {}, "batch": 1, "channels": 256, "pool": 8,
        "calibration_skies": 0, "model_options": {"stem": 8, "width": 8, "wide": 8, "dilations": [[1, 2]]},
    }  # fmt: skip
    plain = RetrainOptions(judge_options={"spectra": 12}, export=False)
    retrain(options(tmp_path / "a", tmp_path, **sky), plain, report=lambda _: None)
    assert "of lines@shipped" in decision(tmp_path / "a")["why"] and usage("lines").version is None
    assert list_versions("lines") == [1]
    card = read_card("lines@1")
    assert card.trained_on.startswith("2 fields of 256 channels of simulated") and card.threshold == 0.5
    assert card.command.startswith("skysift train lines ") and "--set batch=1" in card.command
    own = plain.with_changes(registry="mine", baseline="lines")
    with Retraining(options(tmp_path / "b", tmp_path, **sky), own) as run:
        assert reference_of(run) == ("lines@shipped", WEIGHTS_FOLDER / "lines.safetensors")
        promote("lines", 1, why="")
        assert reference_of(run) == ("lines@1", get_version("lines", 1).weights)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"promote": "never"}, "promote: never"), ({"evaluate": False}, "not judged"), ({"keep": False}, "keep: false"),
        ({"baseline": "lines"}, "cannot be compared with lines@shipped: expected a classifier of photograph in 2D"),
    ],
)  # fmt: skip
def test_why_weights_are_kept(tmp_path: Path, trained: Path, shades: Path, changes: dict, why: str) -> None:
    go_on(trained, "poor", tmp_path / "a", shades, **changes)
    found = decision(tmp_path / "a")
    assert not found["promoted"] and why in found["line"] and "\n" not in found["line"]
    assert usage("field").version is None and list_versions("field") == ([] if "keep" in changes else [1])


def test_a_run_that_resumes_does_nothing_twice(tmp_path: Path, shades: Path) -> None:
    lines: list[str] = []
    retrain(options(tmp_path / "a", shades), asked(), report=lines.append)
    before = (tmp_path / "a" / "last.pt").stat().st_mtime_ns
    rollback("field")
    lines.clear()
    retrain(options(tmp_path / "a", shades, resume=True), asked(), report=lines.append)
    for stage in ("check", "prepare", "fit", "publish", "evaluate", "compare", "export", "promote"):
        assert f"{stage}: done before" in lines
    assert (tmp_path / "a" / "last.pt").stat().st_mtime_ns == before
    # What was taken back by hand stays so, and the weights stay the version that they are.
    assert usage("field").version is None and list_versions("field") == [1]
    # Other draws: judged anew, not trained anew. Lost weights: published anew. Other data or no --resume: all anew.
    lines.clear()
    retrain(options(tmp_path / "a", shades, resume=True), asked(draws=30), report=lines.append)
    assert "publish: done before" in lines and "evaluate: done before" not in lines
    lines.clear()
    (tmp_path / "a" / "photographs.safetensors").unlink()
    retrain(options(tmp_path / "a", shades, resume=True), asked(draws=30), report=lines.append)
    assert "fit: done before" in lines and "publish: done before" not in lines
    lines.clear()
    (shades / "above" / "notes.txt").write_text("")
    retrain(options(tmp_path / "a", shades, resume=True), asked(draws=30), report=lines.append)
    (shades / "above" / "notes.txt").unlink()
    assert "check: done before" not in lines and "fit: done before" not in lines
    lines.clear()
    retrain(options(tmp_path / "a", shades), asked(), report=lines.append)
    assert not any("done before" in line for line in lines)


RUNNER = """
import json, sys
from pathlib import Path
from models.train_options import TrainOptions
from pipeline.retrain import retrain
from pipeline.retrain_options import RetrainOptions
given = json.loads(sys.argv[1])
options, wanted = TrainOptions(**given["options"]), RetrainOptions(**given["retrain"])
retrain(options, wanted, report=lambda line: print(line, flush=True))
"""


def start(given: TrainOptions, wanted: RetrainOptions, store: Path) -> subprocess.Popen:
    text = json.dumps({"options": given.model_dump(mode="json"), "retrain": wanted.model_dump(mode="json")})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SKYSIFT_MODELS": str(store), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, text], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_weights(
    tmp_path: Path, shades: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed inside and between stages, told by what it says; each time started again with --resume."""
    wanted, whole = asked(), tmp_path / "whole"
    retrain(options(whole, shades, steps=3), wanted, report=lambda _: None)
    expected = load_weights(whole / "photographs.safetensors")[0].state_dict()
    store = tmp_path / "other"
    cut = tmp_path / "cut"
    moments = ("step 2 held-out", "photographs.safetensors: thr", "held out: ", "registered as", "is promoted")
    for number, moment in enumerate(moments):
        with start(options(cut, shades, steps=3, resume=number > 0), wanted, store) as process:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                if moment in line:
                    process.send_signal(signal.SIGKILL)
                    break
            else:
                pytest.fail(f"the run ended without {moment!r}: {process.stderr.read()}")
        assert process.returncode == -signal.SIGKILL
    with start(options(cut, shades, steps=3, resume=True), wanted, store) as process:
        text, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "fit: done before" in text and "publish: done before" in text and "evaluate: done before" in text
    monkeypatch.setenv("SKYSIFT_MODELS", str(store))
    assert list_versions("field") == [1] and len(usage("field").history) == 1
    assert decision(cut)["promoted"]
    found = load_weights("field@1")[0].state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    judged = [json.loads((folder / "evaluation.json").read_text())["value"] for folder in (whole, cut)]
    assert judged[0] == judged[1]


@pytest.mark.slow
def test_two_runs_at_once(tmp_path: Path, store: Path, shades: Path) -> None:
    """In folders of their own both are registered; in one folder the second is refused."""
    both = [start(options(tmp_path / name, shades, seed=seed), asked(), store) for seed, name in ((1, "a"), (2, "b"))]
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "stages" / "check.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(OutputError, match="another run is writing here"):
        retrain(options(tmp_path / "a", shades), asked(), report=lambda _: None)
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert list_versions("field") == [1, 2]
    for version in (1, 2):
        get_version("field", version).verify()
    assert usage("field").version in (1, 2)
    assert sorted(decision(tmp_path / name)["line"][:7] for name in "ab") == ["field@1", "field@2"]


def test_what_came_into_use_meanwhile_is_compared_with(tmp_path: Path, trained: Path, shades: Path) -> None:
    """Another run promotes its weights between the comparison of this one and its decision."""
    lines: list[str] = []
    shutil.copytree(trained / "poor", tmp_path / "a")
    with Retraining(options(tmp_path / "a", shades, resume=True), asked(), report=lines.append) as run:
        for name, stage in STAGES.items():
            if name == "promote":
                other = add_version("field", trained / "good" / "photographs.safetensors", {})
                promote("field", other.version, why="faster")
            stage(run)
    assert any("comparing again" in line for line in lines)
    found = decision(tmp_path / "a")
    assert not found["promoted"] and "of field@2" in found["why"] and usage("field").version == 2


@pytest.mark.parametrize(
    ("changes", "retraining", "error", "message"),
    [
        ({"name": "threshold"}, {}, OptionError, "has no weights to train"),
        ({"model_options": {"depth": 3}}, {}, OptionError, "cannot be built with"),
        ({"lesson": "imags"}, {}, OptionError, "unknown lesson 'imags'.*did you mean 'images'"),
        ({"lesson_options": {"layuot": "folders"}}, {}, OptionError, "lesson option of 'images' 'layuot'.*'layout'"),
        ({}, {"registry": "a@1"}, OptionError, "without a version"),
        ({}, {"registry": "sdc1"}, OptionError, "is that of another model"),
        ({"start": Path("gone.safetensors")}, {}, InputError, "no such weights file"),
        ({"data": Path("gone")}, {}, InputError, "gone"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_before_it_is_begun(
    tmp_path: Path, shades: Path, changes: dict, retraining: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        retrain(options(tmp_path / "a", shades, **changes), asked(**retraining), report=lambda _: None)
    assert "\n" not in str(caught.value) and not (tmp_path / "a" / "last.pt").exists()


def test_refused_data_stops_with_its_report_written(tmp_path: Path) -> None:
    """Every picture lies in two classes: nothing is left to learn from."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(6):
            (tmp_path / "data" / name / f"{k}.png").write_bytes(b"no picture")
    bad = options(tmp_path / "out", tmp_path / "data")
    with pytest.raises((InputError, OptionError)):
        retrain(bad, asked(), report=lambda _: None)
    assert not (tmp_path / "out" / "last.pt").exists()


def test_options_that_a_judge_has_not(tmp_path: Path, trained: Path, shades: Path) -> None:
    with pytest.raises(OptionError, match="unknown judge option of 'images' 'skies'"):
        go_on(trained, "poor", tmp_path / "a", shades, judge_options={"skies": 3})


def test_stages_keep_their_results_only_whole(tmp_path: Path) -> None:
    lines: list[str] = []
    calls: list[str] = []

    def work(text: str) -> dict:
        calls.append(text)
        (tmp_path / "file").write_text(text)
        return {"text": text, "nan": float("nan"), "files": ["file"]}

    with Stages(tmp_path, resume=False, report=lines.append) as stages:
        first = stages.run("one", {"a": 1}, lambda: work("x"))
        assert first == {"text": "x", "nan": None, "files": ["file"]} == stages.result("one")
        assert stages.run("one", {"a": 1}, lambda: work("y")) == first and calls == ["x"]
        assert stages.run("one", {"a": 2}, lambda: work("y"))["text"] == "y"
        (tmp_path / "file").write_text("changed")
        assert stages.run("one", {"a": 2}, lambda: work("z"))["text"] == "z"
        with pytest.raises(OutputError, match="expected the result of stage 'two'"):
            stages.result("two")
    (tmp_path / "stages" / "one.json").write_text('{"key": ')
    with Stages(tmp_path, resume=True, report=lines.append) as stages:
        assert stages.run("one", {"a": 2}, lambda: work("w"))["text"] == "w"
    with Stages(tmp_path, resume=False, report=lines.append) as stages:
        assert stages.seconds() == {}
