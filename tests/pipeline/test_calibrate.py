"""Calibration: which detections count as real."""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from pipeline.calibrate import REAL_SNR, match_truth


def tables(found: list, truth: list) -> tuple[Table, Table]:
    """Found rows are (x, y, score), true ones (x, y, peak_snr)."""
    return Table(rows=found, names=("x", "y", "score")), Table(rows=truth, names=("x", "y", "peak_snr"))


def test_the_brightest_within_half_a_beam_is_it() -> None:
    table, truth = tables(
        [(10.0, 10.0, 0.9), (30.0, 10.0, 0.9), (50.0, 10.0, 0.9)],
        [(10.5, 10.0, 3.0), (10.0, 11.9, 8.0), (32.1, 10.0, 9.0), (50.0, 10.0, 0.5)],
    )
    # The second is too far away, the third too faint.
    assert match_truth(table, truth, 4.0, 1.0).tolist() == [1, -1, -1]


def test_of_several_detections_of_one_source_the_best_is_real() -> None:
    table, truth = tables([(10.0, 10.0, 0.3), (10.5, 10.0, 0.8), (9.5, 10.0, 0.6)], [(10.0, 10.0, 9.0)])
    assert match_truth(table, truth, 4.0, 1.0).tolist() == [-1, 0, -1]


def test_a_second_detection_may_be_of_a_second_source() -> None:
    table, truth = tables([(10.0, 10.0, 0.3), (10.5, 10.0, 0.8)], [(10.0, 10.0, 9.0), (10.2, 10.0, 4.0)])
    assert match_truth(table, truth, 4.0, 1.0).tolist() == [1, 0]


def test_detectability_lifts_faint_sources_over_the_limit() -> None:
    table, truth = tables([(10.0, 10.0, 0.9)], [(10.0, 10.0, 0.7 * REAL_SNR)])
    assert match_truth(table, truth, 4.0, 1.0).tolist() == [-1]
    assert match_truth(table, truth, 4.0, 1.5).tolist() == [0]


def test_no_detections_match_nothing() -> None:
    _, truth = tables([(0.0, 0.0, 0.0)], [(10.0, 10.0, 5.0)])
    empty = Table(names=("x", "y", "score"))
    assert len(match_truth(empty, truth, 4.0, np.float64(1.0))) == 0
