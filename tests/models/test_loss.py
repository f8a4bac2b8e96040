"""The loss: what it ignores, how it is normalised, and that it can be brought down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.boxes import diou_pairs
from models.yolo.assign import BACKGROUND, IGNORED
from models.yolo.head import HeadSpec
from models.yolo.loss import LossWeights, diou, laplace_nll, yolo_loss

PARAMS = ("log_flux", "cos_2theta", "sin_2theta")
GRIDS = {1: (12,), 2: (5, 4), 3: (3, 2, 4)}


def spec_of(ndim: int) -> HeadSpec:
    return HeadSpec(
        (4,) * ndim, ((0.25,) * ndim, (0.75,) * ndim), ((1.0,) * ndim, (2.0,) * ndim), PARAMS,
        ("position", "log_flux", "angle"),
    )  # fmt: skip


def make(ndim: int, *, batch: int = 2, targets: int = 3, seed: int = 0):
    """Raw maps, assignment and targets: each target answered for by two or so anchors somewhere in the batch."""
    spec, rng = spec_of(ndim), np.random.default_rng(seed)
    grid = GRIDS[ndim]
    raw = torch.from_numpy(rng.normal(0, 1, (batch, spec.channels, *grid)).astype(np.float32))
    assigned = np.full((batch, spec.boxes, *grid), BACKGROUND)
    anchors = spec.anchor_positions(grid)
    centre = np.zeros((targets, ndim), np.float32)
    for t in range(targets):
        where = tuple(rng.integers(0, s) for s in assigned.shape)
        assigned[where] = t
        assigned[(where[0], 1 - where[1], *where[2:])] = t
        centre[t] = anchors[where[1:]] + rng.uniform(-1, 1, ndim)
    columns = {
        "centre": centre,
        "size": rng.uniform(2, 9, (targets, ndim)),
        "beam": rng.uniform(2, 5, targets),
        "params": rng.normal(0, 1, (targets, 3)),
        "param_weight": np.ones((targets, 3)),
    }
    table = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in columns.items()}
    return spec, raw, torch.from_numpy(assigned), table


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_term_is_there_finite_and_differentiable(ndim: int) -> None:
    spec, raw, assigned, targets = make(ndim)
    raw.requires_grad_()
    loss, parts = yolo_loss(raw, assigned, targets, spec)
    assert set(parts) == {
        "background", "objectness_background", "presence", "position", "size", "objectness", "log_flux", "angle",
    }  # fmt: skip
    assert loss.item() == pytest.approx(sum(parts.values()), rel=1e-5)
    loss.backward()
    assert torch.isfinite(raw.grad).all()
    channels = raw.grad.reshape(2, spec.boxes, spec.box_channels, -1).abs().sum(dim=(0, 1, 3))
    assert (channels > 0).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_ignored_cells_get_no_gradient_and_background_only_on_presence(ndim: int) -> None:
    spec, raw, assigned, targets = make(ndim)
    assigned[(assigned == BACKGROUND) & (torch.rand(assigned.shape) < 0.5)] = IGNORED
    raw.requires_grad_()
    yolo_loss(raw, assigned, targets, spec)[0].backward()
    gradient = raw.grad.reshape(2, spec.boxes, spec.box_channels, *GRIDS[ndim]).movedim(2, -1)
    assert (assigned == IGNORED).any() and (gradient[assigned == IGNORED] == 0).all()
    background = gradient[assigned == BACKGROUND]
    two = slice(spec.slot("presence").start, spec.slot("objectness").stop)
    assert (background[:, two] > 0).all()
    background[:, two] = 0
    assert (background == 0).all()
    positive = gradient[assigned >= 0]
    assert (positive[:, spec.slot("presence")] < 0).all()


@pytest.mark.parametrize("ndim", [1, 3])
def test_a_batch_without_targets_has_a_finite_loss(ndim: int) -> None:
    spec, raw, _, targets = make(ndim)
    none = {name: value[:0] for name, value in targets.items()}
    assigned = torch.full((2, spec.boxes, *GRIDS[ndim]), BACKGROUND)
    loss, parts = yolo_loss(raw, assigned, none, spec)
    assert torch.isfinite(loss) and set(parts) == {"background", "objectness_background"} and loss > 0
    assert float(yolo_loss(raw, torch.full_like(assigned, IGNORED), none, spec)[0]) == 0


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_loss_is_per_target(ndim: int) -> None:
    spec, raw, assigned, targets = make(ndim)
    shifted = torch.where(assigned >= 0, assigned + len(targets["centre"]), assigned)
    doubled = {name: torch.cat([value, value]) for name, value in targets.items()}
    once, parts = yolo_loss(raw, assigned, targets, spec)
    twice, parts_twice = yolo_loss(torch.cat([raw, raw]), torch.cat([assigned, shifted]), doubled, spec)
    assert float(twice) == pytest.approx(float(once), rel=1e-5)
    assert parts_twice == pytest.approx(parts, rel=1e-4)


def test_anchors_of_a_target_share_one_vote() -> None:
    spec, raw, _, targets = make(2, targets=1)
    raw[:] = 0.3
    anchors = spec.anchor_positions(GRIDS[2])
    targets["centre"][0] = torch.from_numpy(anchors[:, 2, 2].mean(axis=0))
    assigned = torch.full((2, spec.boxes, *GRIDS[2]), BACKGROUND)
    sums = []
    for images in (1, 2):
        assigned[:images, 0, 2, 2] = 0
        sums.append(yolo_loss(raw, assigned, targets, spec)[1])
    for name in ("position", "size", "log_flux", "angle"):
        assert sums[1][name] == pytest.approx(sums[0][name], rel=1e-5)
    assert sums[1]["presence"] == pytest.approx(2 * sums[0]["presence"], rel=1e-5)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_perfect_answer_costs_only_its_log_scales(ndim: int) -> None:
    spec, raw, assigned, targets = make(ndim, targets=1)
    grid, beam = GRIDS[ndim], float(targets["beam"][0])
    values = raw.reshape(2, spec.boxes, spec.box_channels, *grid).movedim(2, -1)
    values[:] = 0
    values[..., spec.slot("presence")] = torch.where(assigned >= 0, 40.0, -40.0)[..., None]
    for image, box, *cell in torch.nonzero(assigned >= 0).tolist():
        anchor = spec.anchor_positions(grid)[(box, *cell)]
        one = values[(image, box, *cell)]
        one[spec.slot("offset")] = (targets["centre"][0] - torch.from_numpy(anchor)) / 4
        one[spec.slot("size")] = torch.log(
            targets["size"][0] / torch.from_numpy(spec.units(beam)) / torch.tensor(spec.priors[box])
        )
        one[spec.slot("params")] = targets["params"][0]
    perfect = values.movedim(-1, 2).reshape(raw.shape)
    _, parts = yolo_loss(perfect, assigned, targets, spec)
    for name in ("background", "presence", "position", "size", "log_flux", "angle"):
        assert parts[name] == pytest.approx(0, abs=1e-5), name


def test_param_weight_scales_its_parameter_alone() -> None:
    spec, raw, assigned, targets = make(2)
    full = yolo_loss(raw, assigned, targets, spec)[1]
    targets["param_weight"][:, 1:] = 0.0
    no_angle = yolo_loss(raw, assigned, targets, spec)[1]
    assert no_angle["angle"] == 0 and no_angle["log_flux"] == full["log_flux"] != 0


def test_weights_scale_their_terms() -> None:
    spec, raw, assigned, targets = make(2)
    base = yolo_loss(raw, assigned, targets, spec)[1]
    other = yolo_loss(raw, assigned, targets, spec, weights=LossWeights(size=0.4, background=0.0))[1]
    assert other["size"] == pytest.approx(2 * base["size"]) and other["background"] == 0
    assert other["presence"] == base["presence"]


def test_a_laplace_law_is_cheapest_at_its_own_scale() -> None:
    error = torch.tensor([0.3])
    scales = torch.linspace(-4, 2, 601)
    best = scales[laplace_nll(error, scales).argmin()]
    assert float(best) == pytest.approx(np.log(0.3), abs=0.01)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_diou_of_tensors_is_that_of_arrays(ndim: int) -> None:
    rng = np.random.default_rng(ndim)
    low = rng.uniform(0, 6, (2, 50, ndim))
    a, b = np.concatenate([low, low + rng.uniform(0.5, 5, low.shape)], axis=-1)
    np.testing.assert_allclose(diou(*(torch.from_numpy(v) for v in (a, b))).numpy(), diou_pairs(a, b), atol=1e-6)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_few_steps_bring_the_loss_down(ndim: int) -> None:
    spec, raw, assigned, targets = make(ndim)
    raw.requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.1)
    losses = []
    for _ in range(60):
        loss, parts = yolo_loss(raw, assigned, targets, spec)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert parts["size"] < 0.1


def test_classes_have_a_term_of_their_own() -> None:
    spec = HeadSpec((4,), ((0.25,), (0.75,)), ((1.0,), (2.0,)), ("log_flux",), ("position",), classes=("up", "down"))
    raw, assigned = torch.zeros(1, spec.channels, 6), torch.full((1, 2, 6), BACKGROUND)
    assigned[0, 1, 2] = assigned[0, 0, 3] = 0
    targets = {
        "centre": torch.tensor([[11.0]]), "size": torch.tensor([[4.0]]), "beam": torch.ones(1),
        "params": torch.zeros(1, 1), "param_weight": torch.ones(1, 1), "classes": torch.tensor([[0.0, 1.0]]),
    }  # fmt: skip
    raw.requires_grad_()
    loss, parts = yolo_loss(raw, assigned, targets, spec, weights=LossWeights(classes=0.5))
    # Both classes are as likely as not, and two anchors share a vote.
    assert parts["classes"] == pytest.approx(0.5 * 2 * np.log(2), rel=1e-5)
    loss.backward()
    gradient = raw.grad.reshape(2, spec.box_channels, 6)[1, spec.slot("classes"), 2]
    assert gradient[0] > 0 > gradient[1]
