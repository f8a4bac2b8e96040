"""From a raw map to candidate detections: local maxima of P, each averaged over cells that agree with it."""

from __future__ import annotations

import numpy as np

from models.detections import Detections
from models.yolo.head import HeadSpec, decode

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


def _fine_grid(raw: np.ndarray, spec: HeadSpec) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """P logits on the grid of anchors where a cell's boxes form a regular sub-grid; else None."""
    counts = fine_counts(spec)
    if counts is None:
        return None
    grid = raw.shape[1:]
    logits = raw.reshape(spec.boxes, spec.box_channels, *grid)[:, spec.slot("presence").start]
    split = logits.reshape(*counts, *grid)
    order = [i for axis in range(spec.ndim) for i in (spec.ndim + axis, axis)]
    fine = split.transpose(order).reshape([g * c for g, c in zip(grid, counts, strict=True)])
    return np.ascontiguousarray(fine), counts


def find_candidates(raw: np.ndarray, spec: HeadSpec, *, beam_px: float, min_logit: float) -> Detections:
    """Candidate detections of one window.

    Parameters
    ----------
    raw : ndarray of float32, shape (channels, *grid)
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
    fine = _fine_grid(raw, spec)
    if fine is None:
        return _all_boxes(raw, spec, beam_px, min_logit)
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
    values = raw.reshape(spec.boxes, spec.box_channels, *raw.shape[1:])
    pitch = np.array(spec.stride) / np.array(counts)

    def gather(cells: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        box = np.ravel_multi_index(tuple((cells % counts).T), counts)
        vectors = values[(box, slice(None), *(cells // counts).T)]
        anchors = (cells + 0.5) * pitch - 0.5
        priors = np.array(spec.priors, np.float32)[box] * units
        out = decode(vectors, anchors, priors, spec)
        # Priors may differ from box to box, so that means are taken of sizes in px.
        out["log_size"] = out["log_size"] + np.log(priors)
        return out, vectors[:, spec.slot("presence").start]

    best, best_logit = gather(index)
    limits = np.array(logits.shape)
    total = np.zeros(len(index))
    mean = {name: np.zeros_like(best[name], dtype=np.float64) for name in MEANS}
    for step in steps:
        cells = index + step
        inside = ((cells >= 0) & (cells < limits)).all(axis=1)
        part, logit = gather(np.clip(cells, 0, limits - 1))
        distance = np.linalg.norm((part["centre"] - best["centre"]) / units, axis=1)
        # Smooth weights, so that rounding cannot switch a neighbour in or out.
        weight = inside * part["presence"] * np.clip(1.5 - distance / AGREE_BEAMS, 0, 1)
        total += weight
        for name in mean:
            mean[name] += weight[:, None] * part[name]
    mean = {name: value / total[:, None] for name, value in mean.items()}
    anchor = np.floor((index + 0.5) * pitch).astype(np.int64)
    return Detections(
        mean["centre"],
        np.exp(mean["log_size"]).astype(np.float32),
        best_logit.astype(np.float32),
        anchor,
        named_params(mean, spec),
    )


def _all_boxes(raw: np.ndarray, spec: HeadSpec, beam_px: float, min_logit: float) -> Detections:
    """Every box above the limit, for heads whose boxes share an anchor; suppression sorts them out."""
    values = raw.reshape(spec.boxes, spec.box_channels, *raw.shape[1:])
    box, *cell = np.nonzero(values[:, spec.slot("presence").start] > min_logit)
    vectors = values[(box, slice(None), *cell)]
    cells = np.stack(cell, -1)
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
