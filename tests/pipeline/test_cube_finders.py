"""What is said beside a network of lines in cubes."""

from __future__ import annotations

import numpy as np

from models.detections import Detections
from pipeline.cube_finders import BRIGHT_LOGIT, trust_bright_lines

HALO = (60, 20, 20)


def found(*rows) -> Detections:
    """Rows are (z, y, x, channels, logit)."""
    values = np.array(rows, float)
    size = np.column_stack([values[:, 3], np.full(len(rows), 4.0), np.full(len(rows), 4.0)]).astype(np.float32)
    return Detections(values[:, :3], size, values[:, 4].astype(np.float32), np.rint(values[:, :3]).astype(int))


def test_what_is_too_bright_for_noise_is_trusted_once():
    snr = np.zeros((120, 40, 40), np.float32)
    # Horns of a wide line, and a faint piece between them.
    snr[30, 20, 18], snr[80, 20, 22], snr[55, 20, 20] = 20.0, 22.0, 6.0
    rows = found((55, 20, 20, 90, -0.9), (58, 20, 20, 10, -2.0), (100, 5, 5, 20, -1.0), (55, 20, 21, 88, -1.5))
    logit = trust_bright_lines(rows, snr, HALO)
    assert logit[0] > logit[3] > BRIGHT_LOGIT - 0.1
    assert logit[1] == rows.logit[1] and logit[2] == rows.logit[2]


def test_what_is_sure_stays_as_it_is_and_noise_is_not_raised():
    snr = np.zeros((60, 30, 30), np.float32)
    snr[30, 15, 15], snr[10, 5, 5] = 30.0, 7.0
    logit = trust_bright_lines(found((30, 15, 15, 8, 9.0), (10, 5, 5, 8, 0.5)), snr, HALO)
    assert logit.tolist() == [9.0, 0.5]


def test_nothing_found_raises_nothing():
    assert len(trust_bright_lines(Detections.empty(3), np.zeros((8, 8, 8), np.float32), HALO)) == 0
