"""Models are found by name, and an unknown name is answered with the known ones."""

import subprocess
import sys

import pytest

from models.registry import get_model, list_models, register_model
from survey_io.errors import OptionError


def test_known_models_are_listed_in_order():
    names = list_models()
    assert names == sorted(names)
    assert {"light", "sdc1", "threshold"} <= set(names)


def test_unknown_name_is_answered_with_known_ones_and_the_nearest():
    with pytest.raises(OptionError) as caught:
        get_model("sdc_1")
    message = str(caught.value)
    assert "'sdc_1'" in message
    assert "light" in message and "threshold" in message
    assert "did you mean 'sdc1'" in message


def test_name_like_nothing_gets_no_suggestion():
    with pytest.raises(OptionError) as caught:
        get_model("xqzwv")
    assert "did you mean" not in str(caught.value)


def test_listing_by_kind_and_dimension():
    assert "sdc1" in list_models(kind="detector", ndim=2)
    assert "sdc1" not in list_models(kind="classifier")
    assert "sdc1" not in list_models(ndim=3)


def test_entry_builds_by_call_and_says_what_it_is():
    entry = get_model("sdc1")
    assert entry.name == "sdc1" and entry.ndim == 2 and entry.has_weights
    assert "\n" not in entry.summary and len(entry.summary) > 10
    assert entry(dropout=0.5).options == {"dropout": 0.5}


def test_taken_name_is_refused():
    with pytest.raises(ValueError, match="already used by models.detectors.sdc1"):
        register_model("sdc1", kind="detector", ndim=2)(lambda: None)
    assert get_model("sdc1").module == "models.detectors.sdc1"


@pytest.mark.parametrize("wrong", [{"kind": "oracle"}, {"ndim": 4}])
def test_wrong_kind_or_dimension_is_refused(wrong):
    with pytest.raises(ValueError, match="kind must be one of"):
        register_model("never", **wrong)


def test_registry_and_engines_import_without_heavy_libraries():
    code = (
        "import sys, models.registry, models.engines.base, models.engines, models.weights, models.export\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


def test_a_method_without_network_comes_without_torch():
    code = (
        "import sys; from models.registry import get_model; from models.weights import needs_weights\n"
        "print(get_model('threshold').has_weights, needs_weights('light'), needs_weights('threshold'), "
        "'torch' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["False", "True", "False", "False"]
