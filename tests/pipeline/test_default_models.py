"""Which model serves which data."""

from __future__ import annotations

import pytest
import torch

from models.engines.base import available_engines
from models.registry import get_model
from models.weights import Card, save_weights
from pipeline.default_models import DEFAULT_MODELS, resolve_model
from pipeline.finders import make_finder
from pipeline.options import DetectOptions
from survey_io.errors import OptionError


@pytest.fixture(autouse=True)
def _no_registry(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SKYSIFT_MODELS", str(tmp_path / "models"))


@pytest.mark.parametrize(("ndim", "name"), DEFAULT_MODELS.items())
def test_auto_is_the_shipped_detector_of_so_many_dimensions(ndim, name) -> None:
    assert resolve_model(DetectOptions(), ndim).model == name


def test_what_does_not_fit_is_answered_with_what_does() -> None:
    with pytest.raises(OptionError, match=r"reads cubes, and these are images.*use one of light, sdc1, threshold"):
        resolve_model(DetectOptions(model="light3d"), 2)
    with pytest.raises(OptionError, match=r"classifies, it does not detect.*one of line-clip, lines"):
        resolve_model(DetectOptions(model="stellar"), 1)


def test_a_detector_of_photographs_is_not_for_the_sky(tmp_path) -> None:
    torch.manual_seed(0)
    small = {"widths": 0.1, "size": 64}
    path = tmp_path / "photographs.safetensors"
    save_weights(get_model("voc-yolo-light").build(**small), Card(model="voc-yolo-light", options=small), path)
    with pytest.raises(OptionError, match=r"reads photographs.*one of light, sdc1, threshold$"):
        resolve_model(DetectOptions(model=str(path)), 2)


@pytest.mark.skipif("tensorrt" in available_engines(), reason="this machine runs TensorRT")
def test_engine_for_gpus_is_an_option_and_refused_where_it_cannot_run() -> None:
    options = DetectOptions(engine="tensorrt", precision="fp16")
    with pytest.raises(OptionError, match="engine 'tensorrt' needs .*or use one of openvino"):
        make_finder(
            "light", engine=options.engine, precision=options.precision, threads=1, beam=(3.0, 3.0, 0.0)
        )
