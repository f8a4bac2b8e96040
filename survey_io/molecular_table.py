"""The table of molecular lines that ships: what it holds of LAMDA, and the constants of the species it adds.

Dipole moments and constants are those of the Cologne database (Mueller et al. 2005, J. Mol. Struct. 742, 215) unless a
source says otherwise; of linear molecules B is the one that gives the measured frequency in the band.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from survey_io.errors import InputError
from survey_io.line_lists import PER_GHZ, TEMPERATURES, Ladder, LineList, merge, read_lines
from survey_io.rotors import LinearRotor, SymmetricTop, as_list, asymmetric_partition

BAND = (80.0, 115.0)
# Lines fainter than this share of their species' brightest at any of three excitation temperatures are left out.
FAINTEST, WARMTH = 5e-3, (8.0, 30.0, 120.0)
CDMS = "CDMS (Mueller et al. 2005) constants"
# What is taken of a folder of LAMDA files.
LAMDA_SPECIES = ("CS", "HCN", "HNC", "HCO+", "SiO", "SO", "SO2", "SiC2", "H2CS", "c-C3H2")
LINEAR = (
    LinearRotor("13CO", 55101.0282, 0.1755, 0.11046, 2.0, source=CDMS),
    LinearRotor("C18O", 54891.4333, 0.1733, 0.11079, source=CDMS),
    LinearRotor("C34S", 24103.549, 0.0389, 1.958, source=CDMS),
    LinearRotor(
        "H13CN", 43170.133, 0.0863, 2.9852, 3.0, ((-1.186, 3 / 9), (0.245, 5 / 9), (2.333, 1 / 9)), source=CDMS
    ),
    LinearRotor("HN13C", 43545.613, 0.094, 3.05, source=CDMS),
    LinearRotor("H13CO+", 43377.3008, 0.0783, 3.90, source=CDMS),
    LinearRotor(
        "N2H+", 46586.877, 0.088, 3.40, 9.0,
        (
            (-1.781, 1 / 27), (-1.485, 5 / 27), (-1.352, 3 / 27), (0.075, 5 / 27), (0.373, 7 / 27), (0.565, 3 / 27),
            (2.863, 3 / 27),
        ),
        source=CDMS,
    ),
    LinearRotor("OCS", 6081.4925, 1.301e-3, 0.7152, source=CDMS),
    LinearRotor("HC3N", 4549.0586, 5.443e-4, 3.7317, source=CDMS),
)  # fmt: skip
TOPS = (
    SymmetricTop("CH3CN", 158099.0, 9198.8991, 3.8079e-3, 0.177408, 3.92197, 5, source=CDMS),
    SymmetricTop("CH3CCH", 158590.0, 8545.8771, 2.9422e-3, 0.163423, 0.7839, 4, source=CDMS),
)
# MHz, upper energy (K), Einstein A (1/s), upper and lower weight.
CN = (
    (113123.370, 5.43, 1.29e-6, 2, 2), (113144.157, 5.43, 1.05e-5, 2, 4), (113170.492, 5.43, 5.14e-6, 4, 2),
    (113191.279, 5.43, 6.68e-6, 4, 4), (113488.120, 5.45, 6.73e-6, 4, 2), (113490.970, 5.45, 1.19e-5, 6, 4),
    (113499.644, 5.45, 1.06e-5, 2, 2), (113508.907, 5.45, 5.19e-6, 4, 4), (113520.432, 5.45, 1.30e-6, 2, 4),
)  # fmt: skip
CCH = (
    (87284.105, 4.19, 2.60e-7, 3, 3), (87316.898, 4.19, 1.53e-6, 5, 3), (87328.585, 4.19, 1.27e-6, 3, 1),
    (87401.989, 4.20, 1.27e-6, 3, 3), (87407.165, 4.20, 1.54e-6, 1, 3), (87446.470, 4.20, 2.61e-7, 3, 1),
)  # fmt: skip
# MHz, upper energy, J, Ka of HNCO's lines along its a axis.
HNCO = (
    (87597.330, 53.79, 4, 1), (87925.237, 10.55, 4, 0), (88239.020, 53.86, 4, 1), (109495.996, 59.04, 5, 1),
    (109905.749, 15.82, 5, 0), (110298.089, 59.15, 5, 1),
)  # fmt: skip
HNCO_DIPOLE, HNCO_CONSTANTS = 1.602, (918417.0, 11071.0, 10910.6)
# Rotational constants (MHz) and highest J of species whose LAMDA levels end too low for a partition function of warm
# gas, and which levels each ladder has.
ROTORS = {
    ("SO2", ""): (60778.55, 10318.07, 8799.81, 90, lambda ka, kc: (ka + kc) % 2 == 0),
    ("SiC2", ""): (52474.2, 13158.7, 10441.6, 90, lambda ka, kc: ka % 2 == 0),
    ("H2CS", "ortho"): (291613.3, 17698.99, 16651.83, 75, lambda ka, kc: ka % 2 == 1),
    ("H2CS", "para"): (291613.3, 17698.99, 16651.83, 75, lambda ka, kc: ka % 2 == 0),
    ("c-C3H2", "ortho"): (35092.6, 32212.9, 16749.1, 70, lambda ka, kc: (ka + kc) % 2 == 1),
    ("c-C3H2", "para"): (35092.6, 32212.9, 16749.1, 70, lambda ka, kc: (ka + kc) % 2 == 0),
}
# SO's levels are complete up to this N; above, its three fine-structure levels are as good as one.
SO_CONSTANT, SO_HIGHEST = 21523.56, 10


def computed_lines(low: float = BAND[0], high: float = BAND[1]) -> LineList:
    """Lines of the species whose constants are in this file, between two frequencies in GHz."""
    lists = [one.lines(low, high) for one in (*LINEAR, *TOPS)]
    # B of the radicals without fine structure, and (2S + 1)(2I + 1).
    for name, rows, constant, distortion, spin in (
        ("CN", CN, 56693.47, 0.192, 6.0), ("CCH", CCH, 43674.53, 0.1057, 4.0),
    ):  # fmt: skip
        levels = LinearRotor(name, constant, distortion, 0.0, spin).lines(0.0, 1.0).ladders[0].partition
        lists.append(as_list(name, rows, levels, "CDMS (Mueller et al. 2005) hyperfine lines"))
    rows = []
    for frequency, energy, j, k in HNCO:
        einstein = 1.16395e-20 * frequency**3 * HNCO_DIPOLE**2 * (j * j - k * k) / (j * (2 * j + 1))
        rows.append((frequency, energy, einstein, 2 * j + 1, 2 * j - 1))
    every = asymmetric_partition(*HNCO_CONSTANTS, highest_j=90, counted=lambda ka, kc: np.ones(len(ka)))
    lists.append(as_list("HNCO", rows, every, CDMS))
    return merge(one.in_band(low, high) for one in lists)


def make_molecular_table(folder: str | os.PathLike[str]) -> LineList:
    """The lines that ship, from a folder of LAMDA files and from the constants of this file.

    Raises
    ------
    InputError
        When the folder lacks one of the LAMDA species.
    """
    lamda = read_lines(folder, band=BAND)
    missing = [name for name in LAMDA_SPECIES if name not in lamda.species]
    if missing:
        raise InputError(f"{folder}: expected LAMDA files of {', '.join(missing)} among others")
    lamda = lamda.of(LAMDA_SPECIES)
    lamda = replace(lamda, ladders=tuple(completed(one) for one in lamda.ladders))
    lines = merge([lamda, computed_lines()])
    return lines.select(bright_enough(lines))


def completed(ladder: Ladder) -> Ladder:
    """A ladder of LAMDA with the partition function of a rotor with all its levels, in the file's weights."""
    # So cold that no level is missing.
    cold = int(np.searchsorted(TEMPERATURES, 4.0))
    source = ladder.source.replace("LAMDA", "LAMDA (Schoeier et al. 2005)")
    if ladder.species == "SO":
        n = np.arange(SO_HIGHEST + 1, 150)
        energy = PER_GHZ * 1e-3 * SO_CONSTANT * n * (n + 1.0)
        more = (3 * (2 * n + 1) * np.exp(-energy / TEMPERATURES[:, None])).sum(1)
        return replace(ladder, partition=ladder.partition + more, source=source, approximate=False)
    constants = ROTORS.get((ladder.species, ladder.name))
    if constants is None:
        return replace(ladder, source=source)
    *abc, highest, counted = constants
    full = asymmetric_partition(*abc, highest_j=highest, counted=counted)
    full *= ladder.partition[cold] / full[cold]
    return replace(ladder, partition=full, source=source, approximate=False)


def bright_enough(lines: LineList) -> np.ndarray:
    """Which lines reach `FAINTEST` of their species' brightest, optically thin, at one of three temperatures."""
    own = lines.line_species
    keep = np.zeros(len(lines), bool)
    for temperature in WARMTH:
        strength = lines.einstein_a * lines.upper_weight * np.exp(-lines.upper_energy / temperature)
        strength /= lines.frequency**2 * lines.partition(temperature)[lines.ladder]
        best = np.zeros(len(lines.species))
        np.maximum.at(best, own, strength)
        keep |= strength > FAINTEST * best[own]
    return keep
