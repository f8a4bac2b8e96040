"""Exported files compute what torch does, in any shape, and carry their card."""

import json

import numpy as np
import pytest
import torch

from models import export as export_module
from models.detectors.light import LightDetector
from models.engines.openvino_engine import import_openvino
from models.export import export
from models.weights import Card, load_weights, save_weights
from survey_io.errors import InputError, OptionError, OutputError, SkysiftError

OPTIONS = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_weights(LightDetector(**OPTIONS), Card(model="light", options=OPTIONS, threshold=0.3), path)
    return path


def given(batch):
    rng = np.random.default_rng(batch)
    snr = rng.normal(scale=4, size=(batch, 1, 20, 28)).astype(np.float32)
    return {"snr": snr, "beam": rng.normal(size=(batch, 4)).astype(np.float32)}


def by_torch(weights, inputs):
    module, _ = load_weights(weights)
    with torch.inference_mode():
        return module(*(torch.from_numpy(inputs[name]) for name in ("snr", "beam"))).numpy()


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_file(weights, tmp_path, batch):
    import onnx
    import onnxruntime

    path = export(weights, tmp_path / "out.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] >= 21
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = by_torch(weights, given(batch))
    came = runtime.run(["raw"], given(batch))[0]
    np.testing.assert_allclose(came, expected, atol=1e-5 * np.abs(expected).max())


def test_openvino_file_in_a_folder(weights, tmp_path):
    folder = tmp_path / "for_others"
    path = export(weights, folder, format="openvino")
    assert path == folder / "small.xml"
    assert sorted(file.name for file in folder.iterdir()) == ["small.bin", "small.xml", "small_card.json"]
    compiled = import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = by_torch(weights, given(2))
    np.testing.assert_allclose(compiled(given(2))["raw"], expected, atol=1e-5 * np.abs(expected).max())


def test_card_tells_what_the_channels_mean(weights, tmp_path):
    export(weights, tmp_path / "out.xml", format="openvino")
    card = json.loads((tmp_path / "out_card.json").read_text())
    assert card["model"] == "light" and card["threshold"] == 0.3
    assert card["stride"] == [4, 4]
    assert "log_flux" in card["head"]["params"]
    assert 0 <= card["agreement_with_torch"] < 1e-5


def test_graph_that_disagrees_is_not_written(weights, tmp_path, monkeypatch):
    suffix, _, run = export_module._FORMATS["openvino"]

    def write_another(module, path):
        with torch.no_grad():
            module.out.bias[0] += 1
        export_module._write_openvino(module, path)
        with torch.no_grad():
            module.out.bias[0] -= 1

    monkeypatch.setitem(export_module._FORMATS, "openvino", (suffix, write_another, run))
    with pytest.raises(SkysiftError, match="differs from torch"):
        export(weights, tmp_path / "new" / "out.xml", format="openvino")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_cannot_be_done_is_said(weights, tmp_path):
    with pytest.raises(OptionError, match="unknown export format 'onx'.*did you mean 'onnx'"):
        export(weights, tmp_path / "out.onnx", format="onx")
    with pytest.raises(OptionError, match="ending in .onnx"):
        export(weights, tmp_path / "out.xml", format="onnx")
    with pytest.raises(InputError, match="no such weights file"):
        export(tmp_path / "gone.safetensors", tmp_path / "out.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the export"):
        export(weights, tmp_path / "file" / "out.xml", format="openvino")
