"""Truth catalogues of any make end as the same table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

from survey_io.datasets.truth import read_truth
from survey_io.errors import InputError, OptionError

RA, DEC = [359.99, 0.25, 10.5], [-30.0, -29.5, 12.0]


def test_a_table_with_units(tmp_path: Path) -> None:
    table = Table({"RAJ2000": RA * u.deg, "DEJ2000": DEC * u.deg, "Total_flux": [1.0, 2.0, 3.0] * u.mJy})
    table["DC_Maj"], table["DC_Min"] = [2.0, 1.0, 0.5] * u.arcsec, [1 / 60, 1 / 60, 0.2 / 60] * u.arcmin
    table["DC_PA"] = [10.0, 190.0, -20.0] * u.deg
    table.write(tmp_path / "list.ecsv")
    truth = read_truth(tmp_path / "list.ecsv")
    np.testing.assert_allclose(truth.ra, RA)
    np.testing.assert_allclose(truth.flux, [1e-3, 2e-3, 3e-3])
    np.testing.assert_allclose(truth.major, [2, 1, 0.5])
    np.testing.assert_allclose(truth.pa, [10, 10, 160])
    assert not truth.apparent and len(truth[np.array([True, False, True])]) == 2


def test_plain_columns_with_names_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("lon,lat,S,a,b\n10,-20,0.1,3,5\n11,-21,,2,1\n")
    named = {"ra": "lon", "dec": "lat", "flux": "S"}
    truth = read_truth(tmp_path / "list.csv", columns=named)
    # Fitted axes are those seen through the beam, the larger first.
    assert truth.apparent and truth.major.tolist() == [5, 2] and truth.minor.tolist() == [3, 1]
    assert truth.flux[0] == 0.1 and np.isnan(truth.flux[1])
    with pytest.raises(InputError, match="expected a column for ra"):
        read_truth(tmp_path / "list.csv")
    with pytest.raises(OptionError, match="no column 'Q' for flux"):
        read_truth(tmp_path / "list.csv", columns={**named, "flux": "Q"})
    with pytest.raises(OptionError, match="unknown entry 'fluxes'"):
        read_truth(tmp_path / "list.csv", columns={"fluxes": "S"})


def test_positions_alone_are_points(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("ra,dec,flux\n10,-20,0.1\n")
    truth = read_truth(tmp_path / "list.csv")
    assert truth.major.tolist() == [0.0] and not truth.apparent


def test_a_training_list_of_sdc1(tmp_path: Path) -> None:
    """18 lines of text; sizes by type, angles by the challenge, and only what was injected."""
    header = "\n".join(f"COLUMN{i}: something [unit] 1" for i in range(18))
    rows = [
        "1 -0.1 -29.7 -0.2 -29.8 1e-5 0 2.0 1.0 30 2 3 1 10 20",
        "2 -0.1 -29.7 -0.2 -29.8 1e-5 0 2.0 1.0 30 3 3 1 10 20",
        "3 -0.1 -29.7 -0.2 -29.8 1e-5 0 1.0 2.0 -40 1 1 1 10 20",
        "4 -0.1 -29.7 -0.2 -29.8 1e-9 0 1.0 2.0 30 1 1 0 10 20",
    ]
    (tmp_path / "TrainingSet_B1_v2.txt").write_text(header + "\n" + "\n".join(rows) + "\n")
    truth = read_truth(tmp_path / "TrainingSet_B1_v2.txt")
    assert truth.table["id"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(truth.ra, 359.8)
    np.testing.assert_allclose(truth.major, [2, 2 * 2**0.5, 2 * 0.471])
    np.testing.assert_allclose(truth.minor, [1, 2**0.5, 0.471])
    # 90 - pa; where b_maj is the smaller one, the angle is that of the larger.
    np.testing.assert_allclose(truth.pa, [60, 60, 40])
