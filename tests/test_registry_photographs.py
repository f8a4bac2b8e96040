"""Whatever reads photographs works: models build, answer, train; engines agree with torch."""

import numpy as np
import pytest
import torch

from models.engines.base import available_engines, load_engine
from models.registry import get_model, list_models
from models.signature import network_inputs, random_input

CLASSIFIERS = list_models(kind="classifier", reads="photograph")
DETECTORS = list_models(kind="detector", reads="photograph")
OTHER_ENGINES = [name for name in available_engines() if name != "torch"]


def build(name):
    """A model as it comes; one with a factor of its filters takes a quarter of them: the same layers, faster."""
    entry = get_model(name)
    net = entry.build()
    return entry.build(widths=0.25) if "widths" in net.options else net


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYSIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def shapes(net):
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


def a_few_steps(net, given):
    target = torch.randn(net(*given).shape)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(net(*given), target)
        loss.backward()
        for key, weight in net.named_parameters():
            assert weight.grad is not None and torch.isfinite(weight.grad).all(), key
        optimiser.step()
        losses.append(loss.item())
    return losses


def photographs(net, count):
    """Pictures of 0 to 1 in the shape that a network takes."""
    arrays = random_input(net, batch=count, cells=2, seed=count)
    return tuple(torch.from_numpy(one).sigmoid() for one in arrays)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_answers_as_promised_and_is_rebuilt_by_its_options(name):
    net = build(name).eval()
    channels, side, _ = network_inputs(net)[0].shape
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, channels), dtype=np.uint8)
    given = net.prepare(pixels)
    assert given.dtype == np.float32 and given.shape == (3, *network_inputs(net)[0].shape)
    assert given.min() >= 0 and given.max() <= 1
    assert given[0, 0, 2, 5] == np.float32(pixels[0, 2, 5, 0] / 255)
    with torch.inference_mode():
        raw = net(torch.from_numpy(given))
    assert raw.shape == (3, net.answers.outputs) and torch.isfinite(raw).all()
    assert shapes(net) == shapes(get_model(name).build(**net.options))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_learns(name):
    torch.manual_seed(0)
    net = build(name)
    losses = a_few_steps(net, photographs(net, 4))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["digits", "galaxy", "galaxy-course", "photographs"])
def test_classifier_takes_the_classes_of_its_data(name):
    net = build(name)
    net.take_classes([f"class {k}" for k in range(17)])
    again = get_model(name).build(**net.options)
    assert again.answers.classes == net.answers.classes and len(net.answers.classes) == 17
    assert shapes(again) == shapes(net)
    assert again(*photographs(again, 2)).shape == (2, 17)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_every_engine_agrees_with_torch_on_classifiers(cache, name, engine):
    torch.manual_seed(0)
    net = build(name)
    reference, tested = load_engine("torch", net), load_engine(engine, net)
    for batch in (1, 3):
        given = [one.numpy() for one in photographs(net, batch)]
        expected = reference(*given)
        came = tested(*given)
        assert came.shape == expected.shape == (batch, net.answers.outputs)
        assert np.abs(came - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_has_the_promised_shape_and_is_rebuilt_by_its_options(name):
    net = build(name).eval()
    given = photographs(net, 2)
    with torch.inference_mode():
        raw = net(*given)
    assert raw.shape[:2] == (2, net.head.channels) and torch.isfinite(raw).all()
    assert tuple(raw.shape[2:]) == tuple(
        side // stride for side, stride in zip(given[0].shape[2:], net.head.stride, strict=True)
    )
    assert shapes(net) == shapes(get_model(name).build(**net.options))


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_learns(name):
    torch.manual_seed(0)
    net = build(name)
    losses = a_few_steps(net, photographs(net, 2))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("engine", OTHER_ENGINES)
def test_every_engine_agrees_with_torch_on_detectors(cache, name, engine):
    torch.manual_seed(0)
    net = build(name)
    reference, tested = load_engine("torch", net), load_engine(engine, net)
    for batch in (1, 2):
        given = [one.numpy() for one in photographs(net, batch)]
        expected = reference(*given)
        came = tested(*given)
        assert came.shape == expected.shape
        assert np.abs(came - expected).max() <= 1e-4 * np.abs(expected).max()
