"""The light detector: what it costs, how far it sees, and that tiles do not show in its answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.beam import beam_vector
from models.detectors.light import KNEES, LightDetector, build_light
from models.layers import compress

BEAM = torch.from_numpy(beam_vector((4.0, 3.0, 0.7)))[None]


@pytest.fixture(scope="module")
def net() -> LightDetector:
    torch.manual_seed(0)
    made = LightDetector().eval()
    with torch.no_grad():
        # An untrained head hardly looks at its input: make it speak.
        made.out.weight.mul_(20)
    return made


@torch.inference_mode()
def answer(net: LightDetector, snr: torch.Tensor, beam: torch.Tensor = BEAM) -> torch.Tensor:
    return net(snr, beam.expand(len(snr), -1))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("h", "w"), [(64, 96), (4, 4), (100, 52)])
def test_shape_of_the_answer(net: LightDetector, h: int, w: int) -> None:
    raw = answer(net, noise(2, 1, h, w))
    assert raw.shape == (2, net.head.channels, h // 4, w // 4) and net.head.channels == 4 * 16
    assert torch.isfinite(raw).all()


def test_multiply_accumulates_per_pixel(net: LightDetector) -> None:
    total = 0

    def count(layer: torch.nn.Conv2d, _: tuple, out: torch.Tensor) -> None:
        nonlocal total
        total += out[0].numel() * layer.in_channels // layer.groups * np.prod(layer.kernel_size)

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    answer(net, noise(1, 1, 128, 192))
    for hook in hooks:
        hook.remove()
    per_pixel = total / (128 * 192)
    assert 2_000 < per_pixel < 10_000
    # The figure that the module's text names.
    assert per_pixel == pytest.approx(4_600, rel=0.05)


def test_a_cell_sees_its_receptive_field_and_no_further() -> None:
    torch.manual_seed(1)
    net = LightDetector()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    # With nothing negative no path is closed.
    snr = torch.rand(1, 1, 128, 128, requires_grad=True)
    net(snr, BEAM)[0, :, 16, 15].sum().backward()
    rows, columns = (torch.nonzero(snr.grad[0, 0].abs().sum(dim=d))[:, 0] for d in (1, 0))
    field = net.receptive_field
    # Centred on the cell's own four pixels.
    assert (rows.min().item(), rows.max().item()) == (66 - field // 2, 66 + field // 2 - 1)
    assert (columns.min().item(), columns.max().item()) == (62 - field // 2, 62 + field // 2 - 1)


@pytest.mark.parametrize(("y", "x"), [(0, 0), (24, 60), (68, 8)])
def test_answers_do_not_depend_on_the_tile(net: LightDetector, y: int, x: int) -> None:
    image = noise(1, 1, 200, 220)
    whole = answer(net, image)
    size, halo = 120, -(-net.receptive_field // 2 // 4)
    tile = answer(net, image[..., y : y + size, x : x + size])
    inner = slice(halo, size // 4 - halo)
    expected = whole[..., y // 4 : y // 4 + size // 4, x // 4 : x // 4 + size // 4][..., inner, inner]
    torch.testing.assert_close(tile[..., inner, inner], expected, rtol=1e-4, atol=1e-4)
    # Without the halo they do differ.
    edge = slice(halo - 2, None)
    if y and x:
        assert not torch.allclose(
            tile[..., edge, edge], whole[..., y // 4 + halo - 2 : y // 4 + 30, x // 4 + halo - 2 : x // 4 + 30]
        )


def test_images_of_a_batch_do_not_mix(net: LightDetector) -> None:
    images = noise(3, 1, 64, 64)
    beams = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    together = answer(net, images, beams)
    for i in range(3):
        torch.testing.assert_close(
            together[i], answer(net, images[i : i + 1], beams[i : i + 1])[0], rtol=1e-4, atol=1e-4
        )


def test_the_beam_matters(net: LightDetector) -> None:
    image = noise(1, 1, 64, 64)
    wide = torch.from_numpy(beam_vector((8.0, 8.0, 0.0)))[None]
    assert (answer(net, image) - answer(net, image, wide)).abs().max() > 1e-3


def test_compression_is_odd_bounded_and_rising() -> None:
    snr = torch.linspace(-300, 300, 2001).reshape(1, 1, 1, -1)
    out = compress(snr, KNEES)
    assert out.shape == (1, len(KNEES), 1, 2001) and out.abs().max() <= 1
    assert (out.diff(dim=-1) > 0).all()
    assert compress(torch.full((1, 1, 1, 1), 1e30), KNEES).max() <= 1
    torch.testing.assert_close(out, -out.flip(-1))
    half = compress(torch.tensor(KNEES).reshape(1, 1, 1, -1), KNEES)[0, :, 0].diagonal()
    torch.testing.assert_close(half, torch.full((len(KNEES),), 0.5))


def test_an_untrained_net_expects_few_sources() -> None:
    torch.manual_seed(2)
    fresh = LightDetector()
    raw = answer(fresh, noise(1, 1, 64, 64)).reshape(4, -1, 16, 16)
    presence = torch.sigmoid(raw[:, fresh.head.slot("presence").start])
    assert 0.002 < presence.mean() < 0.05


def test_options_rebuild_the_net(net: LightDetector) -> None:
    small = build_light(stem=8, width=16, wide=32, dilations=(1, 3))
    again = build_light(**small.options)
    again.load_state_dict(small.state_dict())
    assert small.receptive_field == 8 + 16 + 32
    torch.testing.assert_close(answer(again, noise(1, 1, 32, 32)), answer(small, noise(1, 1, 32, 32)))
