"""Calibration of finders of lines: what is real, what is recommended, which threshold."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from pipeline.calibrate import Sample
from pipeline.calibrate_cube import _match, _part, choose_cube_threshold, recommend_measurements
from pipeline.reliability import Calibration

COUNT = 60


def tables(rng: np.random.Generator, *, good: int) -> tuple[Table, Table]:
    """A truth of well separated galaxies and a list whose first rows are them, the others false."""
    n = COUNT
    truth = Table({
        "id": np.arange(n), "ra": 180 + (np.arange(n) % 10 - 5) * 0.01, "dec": -30 + (np.arange(n) // 10 - 3) * 0.01,
        "hi_size": np.full(n, 8.0), "line_flux_integral": rng.uniform(20, 90, n),
        "central_freq": 1.0e9 + 3e6 * np.arange(n) / n, "pa": rng.uniform(0, 360, n), "i": rng.uniform(20, 80, n),
        "w20": np.full(n, 200.0), "snr": rng.uniform(5, 30, n),
    })  # fmt: skip
    table = Table({
        "source_id": np.arange(1, n + 1), "ra": truth["ra"], "dec": truth["dec"], "frequency": truth["central_freq"],
        "snr": truth["snr"], "line_flux": truth["line_flux_integral"], "line_flux_net": truth["line_flux_integral"],
        "w20": truth["w20"], "w20_net": truth["w20"], "hi_size": truth["hi_size"], "hi_size_net": truth["hi_size"],
        "kin_pa": truth["pa"], "kin_pa_net": truth["pa"], "inclination": truth["i"], "inclination_net": truth["i"],
        "score": np.where(np.arange(n) < good, 0.9, 0.1),
    })  # fmt: skip
    table["line_flux"].unit = "Jy Hz"
    # False rows lie off every galaxy, by far more than a beam.
    table["dec"][good:] += 0.5
    return table, truth


def test_rows_are_matched_one_to_one():
    table, truth = tables(np.random.default_rng(0), good=40)
    match = _match(table, truth)
    assert (match[:40] == np.arange(40)).all() and (match[40:] == -1).all()
    table["ra"][1], table["dec"][1], table["frequency"][1] = table["ra"][0], table["dec"][0], table["frequency"][0]
    assert np.count_nonzero(_match(table, truth) == 0) == 1


def test_threshold_keeps_the_true_and_drops_the_false():
    rng = np.random.default_rng(1)
    skies = []
    for _ in range(3):
        table, truth = tables(rng, good=45)
        skies.append((table, truth, np.empty(0), 1.0, 1e6))
    threshold, figures = choose_cube_threshold(Sample(skies), Calibration(shift_width=1e-3))
    assert 0.1 < threshold < 0.92
    assert figures["reliability"] == 1 and figures["rows"] == 135
    assert figures["sdc2_score"] == pytest.approx(135, abs=0.5)


def test_measurement_takes_over_where_it_is_as_good():
    rng = np.random.default_rng(2)
    table, truth = tables(rng, good=COUNT)
    table["truth"] = np.arange(COUNT)
    faint = np.asarray(table["snr"]) < 13
    table["line_flux"] = np.where(faint, 2.0, 1.0) * table["line_flux"]
    table["kin_pa"] = (table["kin_pa"] + 90) % 360
    chosen = recommend_measurements(Sample([(table, truth, np.empty(0), 1.0, 1e6)]))
    assert chosen["line_flux"] == 13.0
    assert chosen["kin_pa"] >= 30.0
    # Equal: the measurement is preferred everywhere.
    assert chosen["w20"] == 6.0


def test_parts_are_those_of_the_challenge():
    table, truth = tables(np.random.default_rng(3), good=COUNT)
    table["line_flux"] *= 1.2
    table["kin_pa"] = (table["kin_pa"] + 350) % 360
    table["hi_size"] = np.nan
    assert _part(table, truth, "line_flux", "line_flux") == pytest.approx(0.5)
    assert _part(table, truth, "kin_pa", "kin_pa") == pytest.approx(1.0)
    assert (_part(table, truth, "hi_size", "hi_size") == 0).all()
