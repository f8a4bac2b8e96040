"""Parts of an image for training, for thresholds and for the report, apart by more than a network sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from survey_io.errors import OptionError

GUARD, TRAIN, VALIDATION, TEST = range(4)
PARTS = ("guard", "train", "validation", "test")
# Rows of training that are too few to learn anything from, in guard bands.
LEAST_TRAIN = 1.0


@dataclass(frozen=True)
class SkySplit:
    """Strips across the longer axis of an area: which part each place belongs to.

    The area is cut into ``folds`` strips of equal width; one of them is the test. What lies on its sides is validation,
    then a guard band, then training, so that nothing that a network was trained on reaches into pixels of the other
    two, and neither do their sources into its fields. Guard bands are nobody's.

    Attributes
    ----------
    area : tuple of slice
        (rows, columns) that the truth covers.
    axis : int
        0: strips of rows, 1: strips of columns.
    edges : tuple of float
        Pixel edges of the strips along the axis, from the area's first to its last.
    parts : tuple of int
        GUARD, TRAIN, VALIDATION or TEST of each strip.
    """

    area: tuple[slice, slice]
    axis: int
    edges: tuple[float, ...]
    parts: tuple[int, ...]

    def part_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Part of each position in px, array of int; GUARD outside the area."""
        y, x = np.asarray(y, float), np.asarray(x, float)
        strip = np.searchsorted(self.edges, (y, x)[self.axis], side="right") - 1
        inside = np.ones(np.shape(y), bool)
        for place, span in zip((y, x), self.area, strict=True):
            inside &= (place >= span.start - 0.5) & (place < span.stop - 0.5)
        return np.where(inside, np.array(self.parts)[np.clip(strip, 0, len(self.parts) - 1)], GUARD)

    def windows(self, part: int) -> list[tuple[slice, slice]]:
        """Windows (rows, columns) of a part, whole pixels."""
        found = []
        for low, high, one in zip(self.edges[:-1], self.edges[1:], self.parts, strict=True):
            span = slice(int(np.ceil(low)), int(np.ceil(high)))
            if one == part and span.stop > span.start:
                found.append((span, self.area[1]) if self.axis == 0 else (self.area[0], span))
        return found

    def blocks(self, part: int, side: int) -> list[tuple[slice, slice]]:
        """A part's windows cut into blocks of about ``side`` px: what errors are drawn over."""
        found = []
        for window in self.windows(part):
            spans = []
            for span in window:
                count = max(1, round((span.stop - span.start) / side))
                edges = np.linspace(span.start, span.stop, count + 1).round().astype(int)
                spans.append([slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)])
            found += [(rows, columns) for rows in spans[0] for columns in spans[1]]
        return found


def split_sky(
    area: tuple[slice, slice], *, fold: int, folds: int, guard: int, validation: float = 0.2, name: str = ""
) -> SkySplit:
    """Split an area by the fixed rule of `SkySplit`.

    Parameters
    ----------
    area : tuple of slice
        (rows, columns), whole pixels.
    fold, folds : int
        Which of how many strips is the test; over all folds every pixel is tested once. One fold: a third is tested.
    guard : int
        Width of the guard bands, px: the receptive field of the network and a beam.
    validation : float
        Share of what is not tested that chooses thresholds, at least half a guard band on each side of the test.
    name : str
        Of the image, for messages.

    Raises
    ------
    OptionError
        For a fold that does not exist, or an area too small for its guard bands.
    """
    if not 0 <= fold < folds:
        raise OptionError(f"fold: expected 0 to {folds - 1} of {folds} folds, got {fold}")
    sides = [span.stop - span.start for span in area]
    axis = 0 if sides[0] >= sides[1] else 1
    first, last = area[axis].start - 0.5, area[axis].stop - 0.5
    width = (last - first) / max(folds, 3)
    low, high = first + fold * width, first + (fold + 1) * width
    free = [low - first, last - high]
    wide = [one > guard for one in free]
    total = sum(one for one, use in zip(free, wide, strict=True) if use)
    strips: list[tuple[float, int]] = []
    train = 0.0
    for side in (0, 1):
        share = free[side] / total if wide[side] else 0.0
        held = min(free[side], max(validation * total * share, guard / 2)) if wide[side] else free[side]
        band = min(guard, free[side] - held)
        rest = free[side] - held - band
        train += rest
        parts = [(held, VALIDATION), (band, GUARD), (rest, TRAIN)]
        strips += reversed(parts) if side == 0 else [(width, TEST), *parts]
    if train < LEAST_TRAIN * guard:
        raise OptionError(
            f"{name or 'image'}: {sides[axis]} px are too few for {folds} folds with guard bands of {guard} px: "
            f"{max(train, 0):.0f} px are left to train on; give a larger image, a network that sees less, or "
            "fewer folds"
        )
    edges, kinds = [first], []
    for extent, kind in strips:
        if extent > 0:
            edges.append(edges[-1] + extent)
            kinds.append(kind)
    edges[-1] = last
    return SkySplit(area, axis, tuple(edges), tuple(kinds))
