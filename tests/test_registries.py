"""Whatever is registered works: models build, run, train; engines agree with torch; no file is forgotten."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from models import weights
from models.engines.base import available_engines, list_engines, load_engine
from models.registry import get_model, list_models
from models.signature import network_inputs, random_input

ROOT = Path(__file__).parents[1]
# Detectors and classifiers of the sky; what reads photographs is tested in test_registry_photographs.py.
TRAINABLE = [
    name for name in list_models(kind="detector")
    if get_model(name).has_weights and get_model(name).reads != "photograph"
]  # fmt: skip
CLASSIFIERS = list_models(kind="classifier", reads="spectrum")


def make_input(net, ndim, *, batch=2, cells=(2, 3, 2)):
    generator = torch.Generator().manual_seed(batch)
    sides = (n * side for n, side in zip(cells[:ndim], net.head.stride, strict=True))
    snr = 4 * torch.randn(batch, 1, *sides, generator=generator)
    return (snr, torch.randn(batch, 4, generator=generator))[: len(network_inputs(net))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYSIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_every_file_registers_a_model_and_every_model_has_a_file(kind):
    files = {path.stem for path in (ROOT / "models" / f"{kind}s").glob("*.py")} - {"__init__"}
    modules = {get_model(name).module for name in list_models(kind=kind)}
    assert modules == {f"models.{kind}s.{stem}" for stem in files}


def test_every_engine_has_its_file_and_runs_here_unless_it_needs_a_gpu():
    files = {path.stem.removesuffix("_engine") for path in (ROOT / "models" / "engines").glob("*_engine.py")}
    assert files == set(list_engines())
    assert set(list_engines()) - set(available_engines()) <= {"tensorrt"}


@pytest.mark.parametrize("name", list_models())
def test_model_builds_and_says_what_it_is(name):
    entry = get_model(name)
    built = entry.build()
    assert built.name == name
    assert entry.summary.endswith((".", ")"))
    assert isinstance(built, torch.nn.Module) == entry.has_weights


@pytest.mark.parametrize("name", TRAINABLE)
def test_model_has_the_promised_shape_and_is_rebuilt_by_its_options(name):
    entry = get_model(name)
    net = entry.build().eval()
    given = make_input(net, entry.ndim)
    with torch.inference_mode():
        raw = net(*given)
    assert raw.shape == (2, net.head.channels, *(2, 3, 2)[: entry.ndim])
    assert torch.isfinite(raw).all()
    assert net.head.ndim == entry.ndim
    assert net.head.stride == tuple(np.broadcast_to(net.stride, entry.ndim))
    again = entry.build(**net.options)
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in again.state_dict().items()}


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_few_training_steps_lower_the_loss(name):
    torch.manual_seed(0)
    net = get_model(name).build()
    given = make_input(net, get_model(name).ndim)
    target = torch.randn(net(*given).shape)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(net(*given), target)
        loss.backward()
        for key, weight in net.named_parameters():
            assert weight.grad is not None and torch.isfinite(weight.grad).all(), key
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", TRAINABLE)
def test_no_cell_sees_beyond_the_receptive_field(name):
    entry = get_model(name)
    net = entry.build().eval()
    stride = np.array(net.head.stride)
    field = np.broadcast_to(net.receptive_field, entry.ndim)
    reach = -(-field // 2 // stride) + 1
    sides = (2 * reach + 1) * stride
    snr = torch.randn(1, 1, *sides.tolist(), requires_grad=True)
    raw = net(*(snr, torch.zeros(1, 4))[: len(network_inputs(net))])
    raw[(0, slice(None), *reach.tolist())].square().sum().backward()
    seen = torch.nonzero(snr.grad[0, 0]).numpy()
    centre = (reach + 0.5) * stride - 0.5
    assert (abs(seen - centre).max(axis=0) <= field / 2).all()


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("engine", [name for name in available_engines() if name != "torch"])
def test_every_engine_agrees_with_torch(cache, name, engine):
    torch.manual_seed(0)
    net = get_model(name).build()
    ndim = get_model(name).ndim
    shapes = [(1, (5, 3, 1)), (2, (3, 4, 2)), (3, (1, 7, 3)), (1, (4, 6, 1))]
    given = [make_input(net, ndim, batch=batch, cells=cells) for batch, cells in shapes]
    given = [tuple(array.numpy() for array in arrays) for arrays in given]
    reference, tested = load_engine("torch", net), load_engine(engine, net)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda pair: tested(*pair), given))
    for pair, came in zip(given, answers, strict=True):
        expected = reference(*pair)
        assert came.shape == expected.shape
        assert np.abs(came - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_answers_as_promised_and_learns(name):
    torch.manual_seed(0)
    net = get_model(name).build()
    again = get_model(name).build(**net.options)
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in again.state_dict().items()}
    flux = 1 + 0.1 * np.random.default_rng(0).standard_normal((3, net.grid.count))
    flux[1, :50] = np.nan
    given = net.prepare(flux, np.isfinite(flux).astype(float))
    assert given.dtype == np.float32 and np.isfinite(given).all()
    assert given.shape[1:] == net.inputs[0].shape and given.shape[2] == net.grid.count
    given = torch.from_numpy(given)
    assert net(given).shape[-2:] == (3, net.answers.outputs)
    assert net.eval()(given).shape == (3, net.answers.outputs)
    target = torch.randn(3, net.answers.outputs)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(net(given), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("engine", [name for name in available_engines() if name != "torch"])
def test_every_engine_agrees_with_torch_on_classifiers(cache, name, engine):
    torch.manual_seed(0)
    net = get_model(name).build()
    reference, tested = load_engine("torch", net), load_engine(engine, net)
    for batch in (1, 3, 2):
        given = random_input(net, batch=batch, seed=batch)
        expected = reference(*given)
        came = tested(*given)
        assert came.shape == expected.shape == (batch, net.answers.outputs)
        assert np.abs(came - expected).max() <= 1e-4 * np.abs(expected).max()


def test_shipped_weights_load_and_have_cards():
    names = weights.list_weights()
    cards = {path.stem for path in weights.WEIGHTS_FOLDER.glob("*.json")}
    assert set(names) == cards
    for name in names:
        module, card = weights.load_weights(name)
        assert module.name == card.model
        assert card.sha256 and card.trained_on and card.command and card.cost and card.score
        assert card.threshold is not None and card.seed is not None
        assert all(torch.isfinite(tensor).all() for tensor in module.state_dict().values())
