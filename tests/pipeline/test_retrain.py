"""A retraining from its data to the weights in use: what is promoted, what is kept, and how a killed run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.in_use import promote, rollback, usage
from models.store import add_version, get_version, list_versions
from models.train_options import TrainOptions
from models.weights import WEIGHTS_FOLDER, file_sha256, load_weights, read_card
from pipeline.retrain import STAGES, retrain
from pipeline.retrain_options import RetrainOptions
from pipeline.retrain_run import Retraining
from survey_io.errors import InputError, OptionError, OutputError

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"stem": 8, "width": 8, "wide": 8, "dilations": [[1, 2]]}
SHIPPED = WEIGHTS_FOLDER / "lines.safetensors"
JUDGE = {"spectra": 12}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


def options(output: Path, **changes) -> TrainOptions:
    """Two steps of a small network, uncalibrated."""
    values = {
        "output": output, "name": "lines", "steps": 2, "batch": 1, "channels": 256, "precision": "f32", "loaders": 0,
        "pool": 8, "save_every": 1, "picture_every": 1000, "warm_up": 1, "device": "cpu", "calibration_skies": 0,
        "model_options": SMALL,
    }  # fmt: skip
    return TrainOptions(**{**values, **changes})


def good(output: Path, **changes) -> TrainOptions:
    """Steps that hardly move from the shipped weights: far better than any two steps from nothing."""
    return options(output, start=SHIPPED, learning_rate=1e-7, model_options={}, **changes)


def asked(**changes) -> RetrainOptions:
    return RetrainOptions(**{"registry": "field", "judge_options": JUDGE, "draws": 50, "export": False, **changes})


def decision(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())["decision"]


def test_worse_is_kept_and_better_is_promoted(tmp_path: Path) -> None:
    lines: list[str] = []
    weights = retrain(options(tmp_path / "a"), asked(export=True), report=lines.append)
    assert weights == tmp_path / "a" / "lines.safetensors"
    first = decision(tmp_path / "a")
    assert first["promoted"] and "nothing was in use" in first["why"] and usage("field").version == 1
    assert any("differs from torch by" in line for line in lines) and (tmp_path / "a" / "lines.onnx").is_file()

    retrain(good(tmp_path / "b"), asked(), report=lambda _: None)
    second = decision(tmp_path / "b")
    assert second["promoted"] and "against" in second["why"] and "field@1, gain" in second["why"]
    assert usage("field").version == 2 and usage("field").history[-1]["why"] == second["why"]
    assert load_weights("field")[1].sha256 == file_sha256(tmp_path / "b" / "lines.safetensors")

    retrain(options(tmp_path / "c", seed=5), asked(), report=lambda _: None)
    third = decision(tmp_path / "c")
    assert not third["promoted"] and third["line"].startswith("field@3 is kept, not promoted: f1 ")
    assert "not beyond 1 standard errors" in third["why"] and usage("field").version == 2

    kept = get_version("field", 3)
    assert {"options.json", "evaluation.json", "comparison.json", "field.json"} <= set(kept.files)
    compared = json.loads((kept.folder / "comparison.json").read_text())
    assert compared["against"] == "field@2" and compared["gain"] < 0 and not compared["better"]
    report = (tmp_path / "c" / "report.md").read_text()
    for words in ("# Retraining field", "learning_curve.png", "| field@2 |", "registered as `field@3`", "- fit: "):
        assert words in report
    assert (tmp_path / "c" / "learning_curve.png").stat().st_size > 1000


def test_the_weights_in_use_may_be_the_shipped_ones_or_a_baseline(tmp_path: Path) -> None:
    retrain(options(tmp_path / "a"), RetrainOptions(judge_options=JUDGE, export=False), report=lambda _: None)
    assert "of lines@shipped" in decision(tmp_path / "a")["why"] and usage("lines").version is None
    assert list_versions("lines") == [1]
    retrain(options(tmp_path / "b"), asked(baseline="lines"), report=lambda _: None)
    assert "of lines@shipped" in decision(tmp_path / "b")["why"] and usage("field").version is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"promote": "never"}, "promote: never"), ({"evaluate": False}, "not judged"), ({"keep": False}, "keep: false"),
        ({"baseline": str(SHIPPED.with_name("stellar.safetensors"))}, "cannot be compared with"),
        ({"sigma": 1e9, "baseline": "lines"}, "not beyond 1e+09 standard errors"),
    ],
)  # fmt: skip
def test_why_weights_are_kept(tmp_path: Path, changes: dict, why: str) -> None:
    retrain(options(tmp_path / "a", steps=1), asked(**changes), report=lambda _: None)
    found = decision(tmp_path / "a")
    assert not found["promoted"] and why in found["line"] and "\n" not in found["line"]
    assert usage("field").version is None and list_versions("field") == ([] if "keep" in changes else [1])


def test_a_run_that_resumes_does_nothing_twice(tmp_path: Path) -> None:
    lines: list[str] = []
    retrain(options(tmp_path / "a"), asked(), report=lines.append)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("*.*t*")}
    rollback("field")
    lines.clear()
    retrain(options(tmp_path / "a", resume=True), asked(), report=lines.append)
    for stage in ("check", "prepare", "fit", "publish", "evaluate", "compare", "export", "promote"):
        assert f"{stage}: done before" in lines
    assert {path: path.stat().st_mtime_ns for path in before if path.suffix != ".json"} == {
        path: when for path, when in before.items() if path.suffix != ".json"
    }
    # What was taken back by hand stays so, and the weights stay the version that they are.
    assert usage("field").version is None and list_versions("field") == [1]
    # Other judge: judged anew, not trained anew. Lost weights: published anew. Without --resume: all anew.
    lines.clear()
    retrain(options(tmp_path / "a", resume=True), asked(judge_options={"spectra": 11}), report=lines.append)
    assert "publish: done before" in lines and "evaluate: done before" not in lines
    lines.clear()
    (tmp_path / "a" / "lines.safetensors").unlink()
    retrain(options(tmp_path / "a", resume=True), asked(judge_options={"spectra": 11}), report=lines.append)
    assert "fit: done before" in lines and "publish: done before" not in lines
    lines.clear()
    retrain(options(tmp_path / "a"), asked(), report=lines.append)
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
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_weights(tmp_path: Path, store: Path) -> None:
    """Killed inside and between stages, told by what it says; each time started again with --resume."""
    wanted, whole = asked(), tmp_path / "whole"
    retrain(options(whole, steps=3), wanted, report=lambda _: None)
    expected = load_weights(whole / "lines.safetensors")[0].state_dict()
    store = tmp_path / "other"
    cut = tmp_path / "cut"
    moments = ("step 2 held-out", "lines.safetensors: thr", "12 spectra:", "held out: ", "registered as", "is promoted")
    for number, moment in enumerate(moments):
        with start(options(cut, steps=3, resume=number > 0), wanted, store) as process:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                if moment in line:
                    process.send_signal(signal.SIGKILL)
                    break
            else:
                pytest.fail(f"the run ended without {moment!r}: {process.stderr.read()}")
        assert process.returncode == -signal.SIGKILL
    with start(options(cut, steps=3, resume=True), wanted, store) as process:
        text, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "fit: done before" in text and "publish: done before" in text and "evaluate: done before" in text
    os.environ["SKYSIFT_MODELS"] = str(store)
    assert list_versions("field") == [1] and len(usage("field").history) == 1
    assert decision(cut)["promoted"]
    found = load_weights("field@1")[0].state_dict()
    assert found.keys() == expected.keys()
    assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.mark.slow
def test_two_runs_at_once(tmp_path: Path, store: Path) -> None:
    """In folders of their own both are registered; in one folder the second is refused."""
    both = [start(options(tmp_path / name, seed=seed), asked(), store) for seed, name in ((1, "a"), (2, "b"))]
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "stages" / "check.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(OutputError, match="another run is writing here"):
        retrain(options(tmp_path / "a"), asked(), report=lambda _: None)
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert list_versions("field") == [1, 2]
    for version in (1, 2):
        get_version("field", version).verify()
    assert usage("field").version in (1, 2)
    assert sorted(decision(tmp_path / name)["line"][:7] for name in "ab") == ["field@1", "field@2"]


def test_what_came_into_use_meanwhile_is_compared_with(tmp_path: Path) -> None:
    """Another run promotes its weights between the comparison of this one and its decision."""
    lines: list[str] = []
    with Retraining(options(tmp_path / "a"), asked(), report=lines.append) as run:
        for name, stage in STAGES.items():
            if name == "promote":
                other = add_version("field", SHIPPED, {})
                promote("field", other.version, why="faster")
            stage(run)
    assert any("comparing again" in line for line in lines)
    found = decision(tmp_path / "a")
    assert not found["promoted"] and "of field@2" in found["why"] and usage("field").version == 2


@pytest.mark.parametrize(
    ("train", "retraining", "error", "message"),
    [
        ({"name": "threshold"}, {}, OptionError, "has no weights to train"),
        ({"model_options": {"depth": 3}}, {}, OptionError, "cannot be built with"),
        ({}, {"registry": "a@1"}, OptionError, "without a version"),
        ({}, {"registry": "sdc1"}, OptionError, "is that of another model"),
        ({"start": Path("gone.safetensors")}, {}, InputError, "no such weights file"),
        ({"name": "stellar", "model_options": {}}, {}, OptionError, "data"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_is_begun(
    tmp_path: Path, train: dict, retraining: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        retrain(options(tmp_path / "a", **train), asked(**retraining), report=lambda _: None)
    assert "\n" not in str(caught.value) and not (tmp_path / "a" / "last.pt").exists()


def test_options_that_a_judge_has_not(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="judge option of 'default:detector1d'.*did you mean 'spectra'"):
        retrain(options(tmp_path / "a", steps=1), asked(judge_options={"spectre": 3}), report=lambda _: None)


def test_card_of_a_retrained_network(tmp_path: Path) -> None:
    retrain(options(tmp_path / "a", steps=1), asked(command="skysift train x"), report=lambda _: None)
    card = read_card("field")
    assert card.command == "skysift train x" and card.trained_on.startswith("1 fields of 256 channels of simulated")
    assert card.threshold == 0.5 and card.options == {**card.options, **SMALL}
