"""Whatever the numbers: decoding undoes encoding, and suppression is the classic loop in any order of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.boxes import diou_pairs, from_centres, iou_pairs, nms
from models.yolo.head import HeadSpec, decode


@given(st.data(), st.integers(1, 3))
@settings(deadline=None, max_examples=80)
def test_decoding_undoes_encoding(data: st.DataObject, ndim: int) -> None:
    stride = data.draw(st.tuples(*[st.integers(1, 16)] * ndim))
    spec = HeadSpec(stride, ((0.5,) * ndim,), ((1.0,) * ndim,), ("a", "b"), ("position",), ("x",))
    grid = data.draw(st.tuples(*[st.integers(1, 5)] * ndim))
    anchors = spec.anchor_positions(grid).reshape(-1, ndim).astype(float)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = len(anchors)
    centre = anchors + rng.uniform(-spec.reach, spec.reach, (n, ndim)) * stride
    size, priors = rng.uniform(0.5, 20, (n, ndim)), rng.uniform(0.5, 20, (n, ndim))
    presence, quality, kind = (rng.uniform(0.01, 0.99, n) for _ in range(3))
    params, scales = rng.normal(0, 5, (n, 2)), rng.uniform(-5, 3, (n, 1))
    odds = [np.log(p / (1 - p))[:, None] for p in (presence, quality, kind)]
    values = np.concatenate([(centre - anchors) / stride, np.log(size / priors), *odds, params, scales], axis=1)
    out = decode(values, anchors, priors, spec)
    for name, expected in {
        "centre": centre, "size": size, "presence": presence, "objectness": quality,
        "classes": kind[:, None], "params": params, "scales": scales,
    }.items():  # fmt: skip
        np.testing.assert_allclose(out[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def classic(centre: np.ndarray, radius: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Best first; keep it unless one already kept lies within the radius of either."""
    kept: list[int] = []
    for i in sorted(range(len(score)), key=lambda i: (-score[i], *centre[i][::-1])):
        if all(np.linalg.norm(centre[i] - centre[k]) >= max(radius[i], radius[k]) for k in kept):
            kept.append(i)
    return np.isin(np.arange(len(score)), kept)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ndim, n = draw(st.integers(1, 3)), draw(st.integers(0, 40))
    # Coarse positions and scores, so that ties and distances right at the radius occur.
    centre = draw(hnp.arrays(np.int64, (n, ndim), elements=st.integers(0, 12), unique=False))
    radius = draw(hnp.arrays(np.int64, n, elements=st.integers(1, 4)))
    score = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 6)))
    return centre.astype(float), radius.astype(float), score.astype(float)


@given(crowds(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_suppression_is_the_classic_loop_in_any_order(crowd, random) -> None:
    centre, radius, score = crowd
    got = nms(centre, radius, score)
    # Rows alike in position and score but not in radius have no order of their own.
    distinct = len(np.unique(np.column_stack([centre, score]), axis=0)) == len(score)
    if distinct:
        np.testing.assert_array_equal(got, classic(centre, radius, score))
        order = np.array(random.sample(range(len(score)), len(score)), int)
        np.testing.assert_array_equal(nms(centre[order], radius[order], score[order]), got[order])
    for i in np.flatnonzero(~got):
        near = np.linalg.norm(centre - centre[i], axis=1) < np.maximum(radius, radius[i])
        assert (got & near & (score >= score[i])).any()
    for i in np.flatnonzero(got):
        near = np.linalg.norm(centre - centre[i], axis=1) < np.maximum(radius, radius[i])
        assert (got & near).sum() == 1


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_overlap_is_symmetric_bounded_and_blind_to_shifts(ndim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (from_centres(rng.normal(0, 3, (20, ndim)), rng.uniform(0.1, 6, (20, ndim))) for _ in range(2))
    iou, diou = iou_pairs(a, b), diou_pairs(a, b)
    assert ((iou >= 0) & (iou <= 1)).all() and ((diou > -1) & (diou <= iou)).all()
    np.testing.assert_allclose(iou, iou_pairs(b, a))
    np.testing.assert_allclose(diou_pairs(a + 7.0, b + 7.0), diou, atol=1e-9)
    np.testing.assert_allclose(iou_pairs(2.5 * a, 2.5 * b), iou, atol=1e-9)
    np.testing.assert_allclose(diou_pairs(a, a), 1.0)
