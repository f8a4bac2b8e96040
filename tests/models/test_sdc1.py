"""The reference network: size, receptive field and independence of the tiling."""

import pytest
import torch
from torch import nn

from models.detectors.sdc1 import LAYERS, Sdc1Detector
from models.fold import fold_batchnorm


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    made = Sdc1Detector()
    with torch.no_grad():
        norm = next(part for part in made.modules() if isinstance(part, nn.BatchNorm2d))
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    return made.eval()


def test_layers_are_those_of_the_reference(net):
    convs = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert len(convs) == 17
    # yolo.md's table gives 12,381,128 for layers 1 to 16 with one input channel; here there are three.
    trunk = sum(weight.numel() for conv in convs[:-1] for weight in conv.parameters())
    assert trunk == 12_381_128 + 2 * 25 * 32
    assert convs[-1].out_channels == net.head.channels == 9 * net.head.box_channels


def test_multiply_accumulates_per_pixel(net):
    total, pixels, width = 0.0, 1.0, 1
    for channels, kernel, stride in LAYERS:
        pixels /= stride**2
        total += pixels * channels * width * kernel**2
        width = channels
    assert total == pytest.approx(87_784 - 936)


def test_output_shape(net):
    raw = net(torch.zeros(2, 1, 48, 80), torch.zeros(2, 4))
    assert raw.shape == (2, net.head.channels, 3, 5)


def test_cell_sees_exactly_its_receptive_field(net):
    # Double precision: the corners of the field weigh so little that single precision rounds them to nothing.
    wide = Sdc1Detector().double().eval()
    snr = torch.randn(1, 1, 160, 160, dtype=torch.float64, requires_grad=True)
    wide(snr, torch.zeros(1, 4, dtype=torch.float64))[0, :, 5, 4].square().sum().backward()
    seen = snr.grad[0, 0] != 0
    rows, columns = torch.where(seen.any(1))[0], torch.where(seen.any(0))[0]
    assert (rows[0].item(), rows[-1].item()) == (5 * 16 - 42, 6 * 16 + 42 - 1)
    assert (columns[0].item(), columns[-1].item()) == (4 * 16 - 42, 5 * 16 + 42 - 1)
    assert net.receptive_field == 16 + 2 * 42


def test_tiles_with_half_a_receptive_field_of_halo_agree(net):
    torch.manual_seed(0)
    halo = 64  # 50 rounded up to a multiple of 16
    sky = 4 * torch.randn(1, 1, 256, 240)
    sky[0, 0, 100:104, 90:94] += 3000  # a bright source outside the small tile's core must not leak in
    beam = torch.tensor([[1.2, 1.0, 0.1, -0.05]])
    with torch.no_grad():
        whole = net(sky, beam)
        tile = net(sky[:, :, 48:240, 32:208], beam)
    cells = halo // 16
    core = whole[:, :, 3 + cells : 15 - cells, 2 + cells : 13 - cells]
    assert core.shape[2:] == (4, 3)
    inside = tile[:, :, cells:-cells, cells:-cells]
    torch.testing.assert_close(inside, core, rtol=0, atol=1e-5 * float(whole.abs().max()))
    # Without the halo the cells do depend on the cut: the comparison above can fail.
    edge = whole[:, :, 3:15, 2:13] - tile
    assert edge.abs().max() > 1e-3 * whole.abs().max()


def test_beam_changes_the_answer(net):
    snr = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        small = net(snr, torch.tensor([[0.9, 0.9, 0.0, 0.0]]))
        large = net(snr, torch.tensor([[2.0, 1.8, 0.1, 0.1]]))
    assert (small - large).abs().max() > 1e-3


def test_presence_starts_rare(net):
    fresh = Sdc1Detector().eval()
    with torch.no_grad():
        raw = fresh(torch.randn(1, 1, 64, 64), torch.zeros(1, 4))
    presence = raw.view(9, fresh.head.box_channels, 4, 4)[:, fresh.head.slot("presence")]
    assert torch.sigmoid(presence).mean() < 0.05


def test_folding_removes_the_normalisation_and_keeps_the_answer(net):
    snr, beam = 5 * torch.randn(2, 1, 64, 96), torch.randn(2, 4)
    folded = fold_batchnorm(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    with torch.no_grad():
        expected, came = net(snr, beam), folded(snr, beam)
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert not any(weight.requires_grad for weight in folded.parameters())


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()], 0),
        ([nn.ReLU(), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 4, 2)], 0),
        ([nn.ReLU(), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 4, 1)], 0),
        # Padding puts zeros where the normalised map would have its shift: not the same, so left alone.
        ([nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)], 1),
        ([nn.BatchNorm2d(3), nn.ReLU()], 1),
    ],
)
def test_folding_of_other_sequences(layers, left):
    torch.manual_seed(1)
    plain = nn.Sequential(*layers)
    for part in plain:
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    plain.eval()
    folded = fold_batchnorm(plain)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == left
    x = torch.randn(2, 3, 8, 9)
    torch.testing.assert_close(folded(x), plain(x), rtol=1e-5, atol=1e-5)
