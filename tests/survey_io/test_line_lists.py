"""Lines from files written here in each layout, from real LAMDA files, and from constants; the table that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from survey_io import line_lists
from survey_io.errors import InputError, OptionError
from survey_io.line_lists import PER_GHZ, PER_WAVENUMBER, TEMPERATURES, merge, molecular_lines, read_lines, read_table
from survey_io.molecular_table import CCH, CN, LAMDA_SPECIES, computed_lines
from survey_io.rotors import EINSTEIN, LinearRotor, asymmetric_levels, asymmetric_partition

# Carbon monoxide: rotational constant, distortion (MHz) and dipole moment (D); real values of its catalogue beside.
CO = LinearRotor("CO", 57635.968, 0.18351, 0.11011)
CO_LINES = (
    "  115271.2018  0.0005 -5.0105 2    0.0000  3 -28503 101 1           0          ",
    "  230538.0000  0.0005 -4.1197 2    3.8450  5 -28503 101 2           1          ",
    "  345795.9899  0.0005 -3.6118 2   11.5350  7 -28503 101 3           2          ",
)
JPL_HEAD = " 28001 CO               91 2.0369 1.9123 1.7370 1.4386 1.1429 0.8526 0.5733 4*"


def lamda(levels, lines, *, title="o-H2X  made up", label="!NUMBER OF ENERGY LEVELS"):
    text = ["!MOLECULE", title, "!MOLECULAR WEIGHT", "44.0", label, str(len(levels)), "!LEVEL + ENERGIES + WEIGHT + J"]
    text += [f"{n:5d} {energy:14.6f} {weight:6.1f}   {n - 1}" for n, (energy, weight) in enumerate(levels, 1)]
    text += ["!NUMBER OF RADIATIVE TRANSITIONS", f"  {len(lines)}", "!TRANS + UP + LOW + EINSTEINA + FREQ + E_u"]
    text += [f"{n:4d} {u:3d} {low:3d} {a:11.3e} {f:14.7f} 9.9" for n, (u, low, a, f) in enumerate(lines, 1)]
    return "\n".join([*text, "!NUMBER OF COLL PARTNERS", "1", "what follows is not read"]) + "\n"


@pytest.fixture
def catalogue(tmp_path) -> Path:
    path = tmp_path / "c028503.cat"
    path.write_text("\n".join(CO_LINES) + "\n")
    return path


def test_a_catalogue_gives_the_einstein_coefficients_of_carbon_monoxide(catalogue):
    (catalogue.parent / "catdir.cat").write_text(JPL_HEAD.replace("28001", "28503") + "\n")
    lines = read_lines(catalogue)
    assert lines.species == ("CO",)
    assert lines.frequency == pytest.approx([115.2712018, 230.538, 345.7959899])
    # Known: A(1-0) = 7.20e-8 and A(2-1) = 6.91e-7 per second; upper energies 5.53, 16.60 and 33.19 K.
    assert lines.einstein_a == pytest.approx([7.203e-8, 6.910e-7, 2.497e-6], rel=0.003)
    assert lines.upper_energy == pytest.approx([5.532, 16.596, 33.192], abs=0.003)
    assert lines.upper_weight.tolist() == [3, 5, 7]
    assert lines.lower_energy == pytest.approx(np.array([0, 3.845, 11.535]) * PER_WAVENUMBER, abs=1e-3)
    assert not lines.ladders[0].approximate
    assert lines.partition(75.0) == pytest.approx([10**1.4386], rel=1e-3)
    assert lines.partition(200.0) == pytest.approx([72.67], rel=0.01)


def test_without_a_partition_file_levels_are_summed_and_that_is_told(tmp_path):
    # All lines up to J = 40, so that the levels listed are all there are at 100 K.
    j = np.arange(1, 41)
    frequency = 2 * CO.constant * j - 4 * CO.distortion * j**3
    einstein = EINSTEIN * frequency**3 * CO.dipole**2 * j / (2 * j + 1)
    lower = CO.energy(j - 1)
    every = np.arange(60)
    warm = ((2 * every + 1) * np.exp(-CO.energy(every) / 300)).sum()
    fall = np.exp(-lower / 300) - np.exp(-CO.energy(j) / 300)
    lgint = np.log10(einstein * (2 * j + 1) * fall / (2.7964e-16 * frequency**2 * warm))
    rows = [
        f"{f:13.4f}{0.01:8.4f}{s:8.4f}{2:2d}{e:10.4f}{2 * n + 1:3d}{-28503:7d}{101:4d}{n:2d}{'':10}{n - 1:2d}"
        for f, s, e, n in zip(frequency, lgint, lower / PER_WAVENUMBER, j, strict=True)
    ]
    (tmp_path / "c028503.cat").write_text("\n".join(rows))
    lines = read_lines(tmp_path)
    assert lines.species == ("c028503",)
    assert lines.ladders[0].approximate
    assert lines.einstein_a[:10] == pytest.approx(einstein[:10], rel=0.01)
    for temperature in (5.0, 20.0, 100.0):
        expected = ((2 * every + 1) * np.exp(-CO.energy(every) / temperature)).sum()
        # A table whose temperatures lie 15% apart is good to a few parts in a thousand in between.
        assert lines.partition(temperature) == pytest.approx([expected], rel=0.01)
    assert read_lines(tmp_path, band=(200, 240)).frequency == pytest.approx([230.538], abs=1e-3)


def test_frequencies_in_wavenumbers_and_large_weights(catalogue, tmp_path):
    first = read_lines(catalogue)
    wavenumber = 115271.2018e6 / 2.99792458e10
    text = f"{wavenumber:13.7f}{-0.0001:8.4f}" + CO_LINES[0][21:41] + "A23" + CO_LINES[0][44:]
    other = tmp_path / "deep"
    other.mkdir()
    (other / "c028503.cat").write_text(text + "\n")
    lines = read_lines(other)
    assert lines.frequency == pytest.approx(first.frequency[:1], rel=1e-6)
    assert lines.upper_weight.tolist() == [1023.0]


@pytest.mark.parametrize("bars", [True, False])
def test_partition_functions_with_a_head_of_temperatures(tmp_path, bars):
    cells = [["tag", "molecule", "#lines", "lg(Q(300))", "lg(Q(75))", "lg(Q(9.375))", "lg(Q(5.000))"]]
    cells += [["28503", "CO, v=0", "95", "2.0369", "1.4386", "0.5733", "nan"]]
    cells += [["41505", "CH3CN, v=0", "2423", "4.1798", "3.1030", "1.8068", "1.3977"]]
    between = " | " if bars else "  "
    (tmp_path / "partition_function.cat").write_text("\n".join(between.join(row) for row in cells))
    (tmp_path / "c028503.cat").write_text("\n".join(CO_LINES))
    lines = read_lines(tmp_path)
    assert lines.species == ("CO, v=0",)
    assert lines.partition(75.0) == pytest.approx([10**1.4386], rel=2e-3)
    slope = (1.4386 - 0.5733) / np.log10(75 / 9.375)
    assert lines.partition(5.0) == pytest.approx([10 ** (0.5733 + slope * np.log10(5 / 9.375))], rel=2e-3)


def test_a_lamda_file_by_hand(tmp_path):
    path = tmp_path / "x.dat"
    path.write_text(lamda([(0.0, 1), (3.0, 3), (9.0, 5)], [(2, 1, 1e-5, 89.94), (3, 2, 1e-4, 179.88)], title="XY"))
    lines = read_lines(path)
    assert lines.species == ("XY",) and len(lines) == 2
    assert lines.upper_energy == pytest.approx(np.array([3.0, 9.0]) * PER_WAVENUMBER)
    assert lines.upper_weight.tolist() == [3, 5] and lines.lower_weight.tolist() == [1, 3]
    expected = 1 + 3 * np.exp(-3 * PER_WAVENUMBER / 10) + 5 * np.exp(-9 * PER_WAVENUMBER / 10)
    assert lines.partition(10.0) == pytest.approx([expected], rel=2e-3)
    assert lines.ladders[0].approximate, "levels end at 13 K"


def test_ortho_and_para_join_at_a_fixed_ratio(tmp_path):
    (tmp_path / "oh2x.dat").write_text(lamda([(10.0, 3), (13.0, 5)], [(2, 1, 1e-5, 89.9)]))
    (tmp_path / "ph2x.dat").write_text(lamda([(0.0, 1), (3.0, 3)], [(2, 1, 1e-5, 90.1)], title="p-H2X  made up"))
    lines = read_lines(tmp_path)
    assert lines.species == ("H2X",)
    assert [(one.name, one.share) for one in lines.ladders] == [("ortho", 0.75), ("para", 0.25)]
    # However cold, three quarters of the molecules are ortho: the shares do not follow the Boltzmann factor.
    cold = 4.0
    level = np.exp(-lines.upper_energy / cold) * lines.upper_weight / lines.partition(cold)[lines.ladder]
    ortho = 5 * np.exp(-3 * PER_WAVENUMBER / cold) / (3 + 5 * np.exp(-3 * PER_WAVENUMBER / cold))
    para = 3 * np.exp(-3 * PER_WAVENUMBER / cold) / (1 + 3 * np.exp(-3 * PER_WAVENUMBER / cold))
    # In between temperatures ln Q runs straight in ln T, which is the worse the higher the ground level lies.
    assert level == pytest.approx([0.75 * ortho, 0.25 * para], rel=0.03)
    (tmp_path / "ph2x.dat").unlink()
    alone = read_lines(tmp_path)
    assert [(one.name, one.share) for one in alone.ladders] == [("", 1.0)]


def test_of_two_files_of_a_species_the_one_with_hyperfine_structure_gives_the_lines(tmp_path):
    plain = lamda([(0.0, 3), (3.0, 9), (300.0, 15)], [(2, 1, 1e-5, 90.0)], title="HCX")
    levels, transitions = [(0.0, 3), (3.0, 3), (3.0, 5), (3.0, 1)], [(n, 1, 1e-5, 90 + 0.001 * n) for n in (2, 3, 4)]
    split = lamda(levels, transitions, title="HCX")
    (tmp_path / "hcx.dat").write_text(plain)
    (tmp_path / "hcx@hfs.dat").write_text(split)
    lines = read_lines(tmp_path)
    assert lines.frequency == pytest.approx([90.002, 90.003, 90.004])
    # The partition function has the levels of both, whose weights are the same.
    expected = 3 + 9 * np.exp(-3 * PER_WAVENUMBER / 300) + 15 * np.exp(-PER_WAVENUMBER)
    assert lines.partition(300.0) == pytest.approx([expected], rel=3e-3)
    assert not lines.ladders[0].approximate


def broken(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.cat", CO_LINES[0] + "\n" + CO_LINES[1][:30] + "\n", r"a\.cat, line 2: expected freq"),
        ("a.cat", CO_LINES[0] + "\n" + CO_LINES[1].replace("28503", "29501") + "\n", "tags 28503 and 29501"),
        ("a.cat", "\n", "the file is empty"),
        ("a.dat", lamda([(0, 1), (1, 3)], []).replace("LEVELS\n2", "LEVELS\nmany"), "line 6: expected the number"),
        ("a.dat", lamda([(0, 1), (1, 3)], []).replace("  1.000000", "  oops"), "line 9: expected a level"),
        ("a.dat", lamda([(0, 1), (1, 3)], [(7, 1, 1e-5, 90)]), "names level 7, the file has 2"),
        ("a.dat", "\n".join(lamda([(0, 1), (1, 3)], []).splitlines()[:9]), "cut off"),
        ("a.ecsv", "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: x, datatype: int64}\nx\n1\n", "lacks 'ladders'"),
    ],
)  # fmt: skip
def test_what_breaks_a_layout_is_told_with_file_and_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_lines(broken(tmp_path, name, text))


def test_folders_and_partition_files_that_cannot_be_used(tmp_path, catalogue):
    with pytest.raises(InputError, match="no such path"):
        read_lines(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        read_lines(tmp_path / "empty")
    broken(tmp_path, "catdir.cat", " 28503 CO  91 2.0369 1.9123 x\n")
    with pytest.raises(InputError, match=r"catdir\.cat, line 1: expected tag"):
        read_lines(catalogue)


def test_a_list_goes_into_a_table_and_back(tmp_path):
    lines = computed_lines()
    lines.to_table().write(tmp_path / "lines.ecsv", format="ascii.ecsv")
    again = read_table(tmp_path / "lines.ecsv")
    assert again.species == lines.species
    for name in line_lists.COLUMNS[2:]:
        assert getattr(again, name) == pytest.approx(getattr(lines, name), rel=1e-6), name
    assert again.partition(33.0) == pytest.approx(lines.partition(33.0), rel=1e-5)
    assert read_lines(tmp_path, band=(110, 110.3)).species == ("13CO", "HNCO")


def test_species_are_chosen_in_the_order_asked_for():
    lines = molecular_lines().of(["SO", "c-C3H2", "CS"])
    assert lines.species == ("SO", "c-C3H2", "CS")
    assert set(lines.line_species[lines.frequency > 99.2][:1]) == {0}
    with pytest.raises(OptionError, match="no lines of XYZ"):
        molecular_lines().of(["XYZ"])
    with pytest.raises(OptionError, match="two lists of lines hold CS"):
        merge([lines.of(["CS"]), lines.of(["CS"])])
    assert len(merge([])) == 0


def test_computed_frequencies_are_the_measured_ones():
    """Against frequencies that observers use (Lovas 2004, CDMS), in GHz, to 0.03 MHz; known A to 1%."""
    lines = computed_lines()
    known = {
        "13CO": (110.2013543, 6.33e-8), "C18O": (109.7821734, 6.27e-8), "H13CO+": (86.7542884, 3.85e-5),
        "C34S": (96.4129495, 1.60e-5), "CH3CN": (91.9870876, 6.33e-5), "CH3CCH": (102.547983, 3.56e-6),
        "OCS": (97.3012085, 2.58e-6), "HC3N": (100.0763920, 7.77e-5), "HNCO": (87.9252370, 9.03e-6),
    }  # fmt: skip
    for name, (frequency, einstein) in known.items():
        own = lines.of([name])
        near = int(np.argmin(abs(own.frequency - frequency)))
        assert own.frequency[near] == pytest.approx(frequency, abs=3e-5), name
        assert own.einstein_a[near] == pytest.approx(einstein, rel=0.01), name
    # Hyperfine groups keep the line's centre of intensity.
    ion = lines.of(["N2H+"])
    assert np.average(ion.frequency, weights=ion.upper_weight) == pytest.approx(93.1734, abs=2e-5)
    assert ion.upper_weight.sum() == pytest.approx(27)


def test_the_radicals_hyperfine_lines_add_up_to_one_rotational_line():
    for rows, dipole, weight in ((CN, 1.45, 18), (CCH, 0.77, 12)):
        frequency, _, einstein, upper, _ = np.array(rows).T
        expected = weight * EINSTEIN * np.average(frequency, weights=upper * einstein) ** 3 * dipole**2 / 3
        assert (einstein * upper).sum() == pytest.approx(expected, rel=0.01)


def test_levels_of_a_rigid_asymmetric_rotor():
    # J = 1 in closed form: B + C, A + C, A + B.
    energy, j, ka, kc = asymmetric_levels(50e3, 30e3, 20e3, 2)
    assert energy[:4] / (PER_GHZ * 1e-3) == pytest.approx([0, 50e3, 70e3, 80e3])
    assert list(zip(j[:4], ka[:4], kc[:4], strict=True)) == [(0, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0)]
    # Two of J = 2: 4A + B + C and A + 4B + C.
    assert {110e3 + 140e3, 50e3 + 140e3} <= set(np.round(energy[4:] / (PER_GHZ * 1e-3)))
    whole = asymmetric_partition(50e3, 30e3, 20e3, highest_j=60, counted=lambda ka, kc: np.ones(len(ka)))
    warm = TEMPERATURES[24]
    classical = np.sqrt(np.pi / (50e3 * 30e3 * 20e3) * (warm / (PER_GHZ * 1e-3)) ** 3)
    assert whole[24] == pytest.approx(classical, rel=0.01)


def test_the_table_that_ships_agrees_with_catalogued_partition_functions():
    """lg Q at 75 and 9.375 K from CDMS (2023), ground states; c-C3H2 with ortho and para weights 3 and 1."""
    lines = molecular_lines()
    catalogued = {
        "13CO": (1.7589, 0.8919), "C18O": (1.4595, 0.5924), "H13CN": (2.0399, 1.1650), "HN13C": (1.5590, 0.6844),
        "H13CO+": (1.5607, 0.6859), "N2H+": (2.4842, 1.6116), "HCN": (2.0286, 1.1545), "HNC": (1.5419, 0.6683),
        "HCO+": (1.5488, 0.6748), "CN": (2.2238, 1.3579), "CCH": (2.1605, 1.2852),
    }  # fmt: skip
    for name, expected in catalogued.items():
        own = lines.of([name])
        found = [float(np.log10(own.partition(temperature)[0])) for temperature in (75.0, 9.375)]
        assert found == pytest.approx(expected, abs=3e-3), name
    ring = [one.partition for one in lines.ladders if one.species == "c-C3H2"]
    for temperature, expected in ((300, 4.106), (75, 3.2035), (18.75, 2.305)):
        assert np.log10(np.interp(temperature, TEMPERATURES, sum(ring))) == pytest.approx(expected, abs=3e-3)


def test_the_table_that_ships_is_fit_for_the_network():
    lines = molecular_lines()
    assert len(lines.species) >= 20
    assert lines.frequency.min() > 80 and lines.frequency.max() < 115
    assert (lines.lower_energy > -0.05).all()
    # Every species has a line that 20 K excite.
    for row, name in enumerate(lines.species):
        assert lines.upper_energy[lines.line_species == row].min() < 45, name
    assert all(one.source for one in lines.ladders) and not any(one.approximate for one in lines.ladders)
    assert line_lists.TABLE.stat().st_size < 300_000


def test_real_lamda_files(shared_data):
    lines = read_lines(shared_data / "lamda", band=(80, 115))
    assert set(LAMDA_SPECIES) < set(lines.species)
    assert {one.name for one in lines.ladders if one.species in ("H2CS", "c-C3H2")} == {"ortho", "para"}
    silicon = lines.of(["SiO"])
    assert silicon.frequency == pytest.approx([86.84696]) and silicon.einstein_a == pytest.approx([2.927e-5], rel=1e-3)
    assert len(lines.of(["HCN"])) == 3, "the file with hyperfine structure"
    shipped = molecular_lines()
    for name in LAMDA_SPECIES:
        own, again = lines.of([name]), shipped.of([name])
        assert set(again.frequency) <= {float(f"{value:.10g}") for value in own.frequency}
        # Warm gas fills levels that LAMDA leaves out; cold gas does not.
        assert again.partition(6.0) == pytest.approx(own.partition(6.0), rel=0.01), name


def test_the_command_makes_the_table(shared_data, tmp_path, capsys):
    out = tmp_path / "made.ecsv"
    assert line_lists.main([str(shared_data / "lamda"), str(out)]) == 0
    assert "24 species" in capsys.readouterr().out
    assert out.read_text() == line_lists.TABLE.read_text()
    assert line_lists.main([]) == 2
