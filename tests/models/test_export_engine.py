"""Engines as files: what is written beside them, and what is refused before anything is."""

import json

import pytest
import torch

from models.detectors.light import LightDetector
from models.engines.tensorrt_build import installed_libraries
from models.engines.tensorrt_engine import has_gpu
from models.export_engine import export_engine
from models.weights import Card, save_weights
from survey_io.errors import OptionError, OutputError

OPTIONS = {"stem": 4, "width": 4, "wide": 8, "dilations": [1]}
needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in installed_libraries(), reason="tensorrt_rtx is not installed (Linux on x86-64)"
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_weights(LightDetector(**OPTIONS), Card(model="light", options=OPTIONS, threshold=0.3), path)
    return path


@needs_rtx
@pytest.mark.skipif(has_gpu(), reason="without a target the engine is for the GPU here")
def test_without_a_target_the_engine_is_for_every_rtx_card(weights, tmp_path):
    path = export_engine(weights, tmp_path / "out", precision="bf16", batch=(1, 2, 4), tile=(64, 64, 128)).path
    assert path.name == "small_bf16_portable.engine"
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["bytes"] == path.stat().st_size and told["profiles"][0]["shapes"][1][1:] == [[1, 4], [2, 4], [4, 4]]
    card = json.loads((tmp_path / "out" / "small_bf16_card.json").read_text())
    assert card["threshold"] == 0.3 and 1e-6 < card["agreement_with_torch"] < 2e-2


@needs_rtx
def test_what_cannot_be_built_is_said_and_leaves_nothing(weights, tmp_path):
    folder = tmp_path / "new"
    for options, message in [
        ({"engine": "tensort"}, "unknown engine to export 'tensort'.*did you mean 'tensorrt'"),
        ({"precision": "int3"}, "precision 'int3': expected one of f32, bf16, fp16, int8, fp8"),
        ({"targets": ["sm90"]}, "target 'sm90'.*build for data-centre GPUs with tensorrt on that GPU"),
        ({"targets": ["sm89"], "batch": (4, 2, 1)}, "profile of input 'snr'"),
    ]:
        with pytest.raises(OptionError, match=message):
            export_engine(weights, folder, **options)
    assert not folder.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the export"):
        export_engine(weights, tmp_path / "file", targets=["sm89"])


@pytest.mark.skipif("tensorrt_rtx" in installed_libraries() or has_gpu(), reason="tensorrt_rtx is installed, or a GPU")
def test_missing_package_is_said(weights, tmp_path):
    with pytest.raises(OptionError, match=r"need the Python package tensorrt_rtx.*pip install skysift\[tensorrt-rtx\]"):
        export_engine(weights, tmp_path)
