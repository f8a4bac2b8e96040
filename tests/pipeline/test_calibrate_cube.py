"""Calibration of finders of lines: what is real, what is recommended, which threshold."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from pipeline.best_estimates import FACTORS
from pipeline.calibrate import Sample
from pipeline.calibrate_cube import _match, _part, choose_cube_threshold, choose_factors
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


def test_factors_tell_how_far_errors_of_the_measurement_are_to_be_believed():
    rng = np.random.default_rng(2)
    table, truth = tables(rng, good=COUNT)
    table["truth"], table["snr"], table["flags"] = np.arange(COUNT), 8.0, 0
    true = {name: np.asarray(table[name], float) for name in ("line_flux", "w20", "inclination")}
    for name, (measured, stated) in {"line_flux": (0.3, 0.06), "w20": (0.3, 0.3), "inclination": (90.0, 0.1)}.items():
        relative = 1.0 if name == "inclination" else true[name]
        table[name] = np.abs(true[name] + measured * relative * rng.standard_normal(COUNT))
        table[f"{name}_err"] = stated * relative
        table[f"{name}_net"] = np.abs(true[name] + (10.0 if name == "inclination" else 0.3 * relative)
                                      * rng.standard_normal(COUNT))
        table[f"{name}_net_err"] = 10.0 if name == "inclination" else 0.3 * relative
    chosen = choose_factors(Sample([(table, truth, np.empty(0), 1.0, 1e6)]))
    assert 2.0 <= chosen["line_flux"] <= 1e9 and chosen["w20"] <= 2.0
    assert chosen["inclination"] == FACTORS[-1]


def test_parts_are_those_of_the_challenge():
    table, truth = tables(np.random.default_rng(3), good=COUNT)
    table["line_flux"] *= 1.2
    table["kin_pa"] = (table["kin_pa"] + 350) % 360
    table["hi_size"] = np.nan
    assert _part(np.asarray(table["line_flux"]), truth, "line_flux") == pytest.approx(0.5)
    assert _part(np.asarray(table["kin_pa"]), truth, "kin_pa") == pytest.approx(1.0)
    assert (_part(np.asarray(table["hi_size"]), truth, "hi_size") == 0).all()
