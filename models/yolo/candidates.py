"""From a raw map to candidate detections: local maxima of P, each averaged over cells that agree with it."""

from __future__ import annotations

import numpy as np

from models.detections import Detections
from models.yolo.head import HeadSpec, decode
from models.yolo.maps import RawMaps, WholeMaps

# A neighbouring cell speaks for the same source if its own centre lies within this many beams (or line extents along a
# spectral axis) of the maximum's.
AGREE_BEAMS = 0.35
# What is averaged over the cells that agree.
MEANS = ("centre", "log_size", "classes", "params", "scales")


def fine_counts(spec: HeadSpec) -> tuple[int, ...] | None:
    """Boxes of a cell along each axis, where they form a regular sub-grid in order; else None."""
    per_axis = [sorted({anchor[axis] for anchor in spec.anchors}) for axis in range(spec.ndim)]
    counts = tuple(len(values) for values in per_axis)
    regular = int(np.prod(counts)) == spec.boxes and all(
        np.allclose(values, (np.arange(n) + 0.5) / n) for values, n in zip(per_axis, counts, strict=True)
    )
    in_order = [tuple(a) for a in spec.anchors] == sorted(tuple(a) for a in spec.anchors)
    return counts if regular and in_order else None


def _fine_grid(presence: np.ndarray, spec: HeadSpec) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """P logits on the grid of anchors where a cell's boxes form a regular sub-grid; else None."""
    counts = fine_counts(spec)
    if counts is None:
        return None
    grid = presence.shape[1:]
    split = presence.reshape(*counts, *grid)
    order = [i for axis in range(spec.ndim) for i in (spec.ndim + axis, axis)]
    fine = split.transpose(order).reshape([g * c for g, c in zip(grid, counts, strict=True)])
    return np.ascontiguousarray(fine), counts


def find_candidates(
    raw: RawMaps | np.ndarray, spec: HeadSpec, *, beam_px: float, min_logit: float
) -> Detections:
    """Candidate detections of one window.

    Parameters
    ----------
    raw : RawMaps or ndarray of float32, shape (channels, *grid)
    spec : HeadSpec
    beam_px : float
        FWHM of the beam in px (geometric mean).
    min_logit : float
        Candidates below this are not worth carrying.

    Returns
    -------
    Detections
        In window pixels. A cell is a candidate when no neighbour on the grid of anchors has a higher P.
    """
    maps = WholeMaps(raw, spec) if isinstance(raw, np.ndarray) else raw
    fine = _fine_grid(maps.presence, spec)
    if fine is None:
        return _all_boxes(maps, spec, beam_px, min_logit)
    logits, counts = fine
    units = spec.units(beam_px)
    padded = np.pad(logits, 1, constant_values=-np.inf)
    where = np.nonzero(logits > min_logit)
    value = logits[where]
    peak = np.ones(len(value), bool)
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * spec.ndim, indexing="ij"), -1).reshape(-1, spec.ndim)
    for step in steps:
        if not step.any():
            continue
        other = padded[tuple(w + 1 + s for w, s in zip(where, step, strict=True))]
        # Of two equal neighbours the first in raster order is the maximum.
        earlier = tuple(step) < (0,) * spec.ndim
        peak &= (value > other) if earlier else (value >= other)
    index = np.stack([w[peak] for w in where], -1)
    if len(index) == 0:
        return Detections.empty(spec.ndim, _param_names(spec))
    pitch = np.array(spec.stride) / np.array(counts)

    # A candidate's own cell and its neighbours, all at once: (steps, candidates, ndim).
    limits = np.array(logits.shape)
    cells = index + steps[:, None]
    inside = ((cells >= 0) & (cells < limits)).all(axis=-1)
    within = np.clip(cells, 0, limits - 1).reshape(-1, spec.ndim)
    box = np.ravel_multi_index(tuple((within % counts).T), counts)
    vectors = maps.vectors(box, within // counts)
    priors = np.array(spec.priors, np.float32)[box] * units
    out = decode(vectors, (within + 0.5) * pitch - 0.5, priors, spec)
    # Priors may differ from box to box, so that means are taken of sizes in px.
    out["log_size"] = out["log_size"] + np.log(priors)
    own = len(steps) // 2
    best_logit = vectors[:, spec.slot("presence").start].reshape(inside.shape)[own]
    centre = out["centre"].reshape(*inside.shape, spec.ndim)
    distance = np.linalg.norm((centre - centre[own]) / units, axis=-1)
    # Smooth weights, so that rounding cannot switch a neighbour in or out.
    weight = inside * out["presence"].reshape(inside.shape) * np.clip(1.5 - distance / AGREE_BEAMS, 0, 1)
    total = weight.sum(axis=0)
    mean = {name: np.einsum("sn,snk->nk", weight, out[name].reshape(*inside.shape, -1)) for name in MEANS}
    mean = {name: value / total[:, None] for name, value in mean.items()}
    anchor = np.floor((index + 0.5) * pitch).astype(np.int64)
    return Detections(
        mean["centre"],
        np.exp(mean["log_size"]).astype(np.float32),
        best_logit.astype(np.float32),
        anchor,
        named_params(mean, spec),
    )


def _all_boxes(maps: RawMaps, spec: HeadSpec, beam_px: float, min_logit: float) -> Detections:
    """Every box above the limit, for heads whose boxes share an anchor; suppression sorts them out."""
    box, *cell = np.nonzero(maps.presence > min_logit)
    cells = np.stack(cell, -1)
    vectors = maps.vectors(box, cells)
    anchors = (cells + np.array(spec.anchors)[box]) * np.array(spec.stride) - 0.5
    out = decode(vectors, anchors, np.array(spec.priors, np.float32)[box] * spec.units(beam_px), spec)
    return Detections(
        out["centre"].astype(np.float64),
        out["size"].astype(np.float32),
        vectors[:, spec.slot("presence").start].astype(np.float32),
        np.floor(anchors + 0.5).astype(np.int64),
        named_params(out, spec),
    )


def _param_names(spec: HeadSpec) -> list[str]:
    return [*spec.params, *(f"{name}_scale" for name in spec.scales), *(f"is_{name}" for name in spec.classes)]


def named_params(out: dict[str, np.ndarray], spec: HeadSpec) -> dict[str, np.ndarray]:
    """Parameters, the scales of their errors (e-folded) and probabilities of classes, by name."""
    named = {name: out["params"][:, i].astype(np.float32) for i, name in enumerate(spec.params)}
    for i, name in enumerate(spec.scales):
        named[f"{name}_scale"] = np.exp(out["scales"][:, i]).astype(np.float32)
    for i, name in enumerate(spec.classes):
        named[f"is_{name}"] = out["classes"][:, i].astype(np.float32)
    return named
