"""Weights go to a file with their card and come back; whatever is wrong with a file is said in one line."""

import json
from dataclasses import replace

import pytest
import torch

from models import weights
from models.detectors.light import LightDetector
from models.weights import Card, find_weights, load_weights, read_card, save_weights
from survey_io.errors import InputError, OptionError, OutputError

OPTIONS = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    module = LightDetector(**OPTIONS)
    card = Card(
        model="light", options=OPTIONS, trained_on="nothing", seed=7, score={"sdc1": 1.5}, threshold=0.4,
        calibration={"edges": [0.0, 1.0]},
    )  # fmt: skip
    path = tmp_path / "mine.safetensors"
    return module, save_weights(module, card, path), path


def test_round_trip(saved):
    module, card, path = saved
    loaded, read = load_weights(path)
    assert read == card == read_card(str(path))
    assert read.threshold == 0.4 and read.calibration == {"edges": [0.0, 1.0]}
    assert read.sha256 == weights.file_sha256(path)
    assert not loaded.training
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_file_alone_is_enough(saved):
    _, card, path = saved
    path.with_suffix(".json").unlink()
    assert load_weights(path)[1] == card


def test_card_beside_the_file_is_json(saved):
    _, card, path = saved
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == card.sha256


def test_half_precision_weights_are_written_in_single(saved, tmp_path):
    module, card, _ = saved
    save_weights(module.bfloat16(), card, tmp_path / "half.safetensors")
    loaded, _ = load_weights(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}


def test_half_size_only_for_weights_that_it_does_not_change(saved, tmp_path):
    module, card, path = saved
    with pytest.raises(OptionError, match="float16 would change 'stem.weight': round the weights"):
        save_weights(module, card, tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()
    module.half().float()
    save_weights(module, card, path)
    save_weights(module, card, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * path.stat().st_size
    loaded, _ = load_weights(tmp_path / "half.safetensors")
    for name, tensor in module.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32 and torch.equal(loaded.state_dict()[name], tensor)


def test_weights_by_name(saved, tmp_path, monkeypatch):
    _, card, path = saved
    monkeypatch.setattr(weights, "WEIGHTS_FOLDER", tmp_path)
    assert weights.list_weights() == ["mine"]
    assert find_weights("mine") == path
    assert load_weights("mine")[1] == card


def test_named_weights_that_changed_are_refused(saved, tmp_path, monkeypatch):
    module, card, path = saved
    monkeypatch.setattr(weights, "WEIGHTS_FOLDER", tmp_path)
    text = path.with_suffix(".json").read_text()
    save_weights(module, replace(card, seed=8), path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(InputError, match="SHA-256"):
        load_weights("mine")


@pytest.mark.parametrize("name", ["ligth", "no_such"])
def test_unknown_name(name):
    with pytest.raises(OptionError, match=r"expected one of .*light.*threshold"):
        load_weights(name)


def test_model_without_weights():
    with pytest.raises(OptionError, match="'threshold': it has no weights"):
        load_weights("threshold")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such weights file"):
        load_weights(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, -40])
def test_truncated_file(saved, kept):
    _, _, path = saved
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_weights(path)


def test_file_of_another_program(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="no skysift card"):
        load_weights(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {**OPTIONS, "width": 6}}, "tensors do not fit model 'light'.*expected shape"),
        ({"options": {"depth": 3}}, "cannot be built with the options"),
        ({"model": "lihgt"}, "unknown model 'lihgt'.*did you mean 'light'"),
    ],
)
def test_card_that_does_not_fit_its_tensors(saved, change, message):
    module, card, path = saved
    save_weights(module, replace(card, **change), path)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"model": "light", "colour": 1}', "{", "[]", "{}"])
def test_unreadable_card(tmp_path, text):
    from safetensors.torch import save_file

    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(3)}, path, metadata={"skysift": text})
    with pytest.raises(InputError, match="card"):
        load_weights(path)


def test_wrong_ending_and_unwritable_folder(saved, tmp_path):
    module, card, _ = saved
    with pytest.raises(OptionError, match=r"\.safetensors"):
        save_weights(module, card, tmp_path / "mine.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write weights"):
        save_weights(module, card, tmp_path / "file" / "mine.safetensors")


def test_nothing_is_left_behind(saved):
    _, _, path = saved
    assert sorted(file.name for file in path.parent.iterdir()) == ["mine.json", "mine.safetensors"]
