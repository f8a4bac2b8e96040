"""Training fields of spectra: targets lie on their lines, also flipped and negated; batches are whole and repeat."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.line_loader import (
    DEMANDED,
    IGNORED_BELOW,
    LineField,
    SpectrumFields,
    crop_field,
    draw_field,
    draw_line_model,
    encode_line_targets,
    hidden_lines,
    seen_lines,
)
from models.registry import get_model
from models.yolo.assign import BACKGROUND, IGNORED
from survey_io.simulate.line_shapes import gaussian_profile


@pytest.fixture(scope="module")
def head():
    return get_model("lines").build(stem=4, width=8, wide=8).head


@pytest.fixture(scope="module")
def planted() -> LineField:
    """Two lines of different strength, width and sign, no noise."""
    lines = {
        "z": np.array([210.3, 431.8]), "width": np.array([9.0, 30.0]), "flux": np.array([400.0, -900.0]),
        "snr": np.array([50.0, 80.0]), "ignore": np.zeros(2, bool),
    }  # fmt: skip
    snr = np.full(700, 1e-6, np.float32)
    for z, width, flux in zip(lines["z"], lines["width"], lines["flux"], strict=True):
        low, part = gaussian_profile().paint(700, z, width)
        snr[low : low + len(part)] += flux * part
    return LineField(snr, lines)


def test_what_is_told_is_what_lies_there_however_the_field_is_turned(planted):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        snr, lines = crop_field(planted, 512, rng)
        for z, width, flux in zip(lines["z"], lines["width"], lines["flux"], strict=True):
            if not 2 * width < z < 511 - 2 * width:
                continue
            span = np.arange(int(z - 1.5 * width), int(z + 1.5 * width) + 1)
            part = snr[span].astype(float)
            if (part == 0).any():
                continue
            assert part.sum() == pytest.approx(flux, rel=0.01)
            assert (part * span).sum() / part.sum() == pytest.approx(z, abs=0.05)
            seen.add((width, bool(flux > 0)))
        assert len(snr) == 512 and np.isfinite(snr).all()
    # Each line in emission and in absorption.
    assert len(seen) == 4


def test_targets_say_what_the_lines_are(planted, head):
    target = encode_line_targets(planted.lines, head)
    np.testing.assert_allclose(target["centre"][:, 0], [210.3, 431.8])
    np.testing.assert_allclose(target["size"][:, 0], [9, 30])
    np.testing.assert_allclose(np.exp(target["params"][:, 0]), [400, 900])
    np.testing.assert_allclose(np.exp(target["params"][:, 1]) * head.line_channels, [9, 30])
    assert target["classes"].tolist() == [[1, 0], [0, 1]]


def test_a_line_under_a_higher_one_is_not_demanded():
    lines = {
        "z": np.array([100.0, 103.0, 150.0, 162.0, 200.0, 201.0]),
        "width": np.array([10.0, 10.0, 10.0, 10.0, 3.0, 60.0]),
        "flux": np.array([50.0, 100.0, 50.0, 100.0, 90.0, -300.0]),
    }
    # Nearer than 0.8 widths: hidden. Farther apart, of the other sign, or far narrower: not.
    assert hidden_lines(lines).tolist() == [True, False, False, False, False, False]


def test_lines_in_gaps_are_not_seen():
    seen = np.ones(50, bool)
    seen[10:20] = False
    found = seen_lines(np.array([9.0, 10.2, 15.0, 19.0, 30.0, 60.0]), seen)
    assert found.tolist() == [True, True, False, True, True, True]


def test_batches_are_whole_and_repeat(head):
    def first(seed):
        source = iter(SpectrumFields(head, batch=4, size=512, seed=seed, pool=16))
        return [next(source) for _ in range(2)]

    one, same, other = first(1), first(1), first(2)
    snr, _, assigned, targets = one[1]
    assert snr.shape == (4, 1, 512) and torch.isfinite(snr).all()
    assert assigned.shape == (4, 2, 128) and assigned.min() >= IGNORED
    rows = assigned[assigned >= 0].unique()
    assert len(rows) <= len(targets["centre"]) and (assigned == BACKGROUND).float().mean() > 0.5
    anchors = head.anchor_positions((128,))
    for _, box, cell in torch.nonzero(assigned >= 0).tolist():
        assert np.isfinite(anchors[box, cell]).all()
    for field, box, cell in torch.nonzero(assigned >= 0).tolist():
        row = assigned[field, box, cell]
        apart = abs(float(anchors[box, cell, 0]) - float(targets["centre"][row, 0]))
        # Within what the head can reach, and within the line.
        assert apart <= max(1.6, 0.22 * float(targets["size"][row, 0])) + 1e-3
        assert apart < head.reach * head.stride[0]
    assert (targets["classes"].sum(dim=1) == 1).all()
    assert torch.equal(one[1][0], same[1][0]) and not torch.equal(one[1][0], other[1][0])


def test_spectra_cover_the_training_range():
    rng = np.random.default_rng(0)
    models = [draw_line_model(2048, rng) for _ in range(300)]
    density = np.array([m.density for m in models])
    assert 0.03 < (density == 0).mean() < 0.2 and density.max() > 25
    widths = np.array([m.width for m in models])
    assert widths.min() < 2.5 and widths.max() > 90
    assert {m.smoothing for m in models} == {"none", "hanning", "resampled"}
    assert {m.absorbing for m in models} >= {0.0, 1.0}


def test_a_field_is_in_units_of_its_noise():
    rng = np.random.default_rng(3)
    fields = [draw_field(1500, rng) for _ in range(12)]
    quiet = [np.median(np.abs(f.snr[f.snr != 0])) * 1.4826 for f in fields]
    assert np.median(quiet) == pytest.approx(1, abs=0.25)
    lines = {name: np.concatenate([f.lines[name] for f in fields]) for name in fields[0].lines}
    assert (lines["snr"] > IGNORED_BELOW).all() and lines["ignore"][lines["snr"] < DEMANDED].all()
