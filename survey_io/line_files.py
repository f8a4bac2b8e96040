"""The files that spectroscopists keep lines in: CDMS and JPL catalogues, their partition functions, LAMDA molecules.

Catalogues: Pickett et al. 1998, JQSRT 60, 883; Mueller et al. 2005, J. Mol. Struct. 742, 215. LAMDA: Schoeier et al.
2005, A&A 432, 369.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from survey_io.errors import InputError
from survey_io.line_lists import LIGHT_CM, PER_GHZ, PER_WAVENUMBER, TEMPERATURES, Ladder, LineList

# Fixed columns of a catalogue: freq, err, lgint, dr, elo, gup, tag; quantum numbers follow at 51.
FIELDS = {
    "freq": (0, 13), "err": (13, 21), "lgint": (21, 29), "dr": (29, 31), "elo": (31, 41), "gup": (41, 44),
    "tag": (44, 51),
}  # fmt: skip
# Temperature of a catalogue's intensities, K; einstein A = constant x I nu^2 Q / g / (difference of populations).
CATALOGUE_TEMPERATURE, EINSTEIN = 300.0, 2.7964e-16
JPL_TEMPERATURES = (300.0, 225.0, 150.0, 75.0, 37.5, 18.75, 9.375)
# Molecules of ortho over molecules of para at high temperature: three to one where two hydrogens can be exchanged.
ORTHO_RATIO, ORTHO_RATIOS = 3.0, {"NH3": 1.0, "H3O+": 1.0, "C2": 1.0}
# Where the highest level of a LAMDA file lies lower, K, its partition function is approximate.
LEVELS_TO = 300.0
# LAMDA leaves out what tells isomers apart.
FULL_NAMES = {"C3H2": "c-C3H2"}


@dataclass(frozen=True)
class Molecule:
    """What a LAMDA file says of one ladder.

    Attributes
    ----------
    species : str
    kind : str
        "ortho", "para" or empty.
    energy : ndarray, shape (N,)
        Of the levels, K.
    weight : ndarray, shape (N,)
    upper, lower : ndarray of int, shape (L,)
        Levels of each line, counted from 0.
    frequency : ndarray, shape (L,)
        GHz.
    einstein_a : ndarray, shape (L,)
        1/s.
    hyperfine : bool
        Whether the file is one with hyperfine levels, by its name.
    source : str
    """

    species: str
    kind: str
    energy: np.ndarray
    weight: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    frequency: np.ndarray
    einstein_a: np.ndarray
    hyperfine: bool
    source: str

    def partition(self) -> np.ndarray:
        """Sum over the levels at `TEMPERATURES`."""
        return (self.weight * np.exp(-self.energy / TEMPERATURES[:, None])).sum(1)


def read_catalogue_file(path: Path, known: dict[int, tuple[str, np.ndarray]]) -> LineList:
    """Read a catalogue of CDMS or JPL.

    Intensities become Einstein coefficients by the partition function at 300 K. A frequency whose error is negative
    is in cm^-1 instead of MHz.

    Parameters
    ----------
    path : path
    known : dict
        Name and partition function by species tag, of `read_partition_file`; of a species that is not in it the name is
        that of the file, and the partition function is the sum over the levels listed, marked as approximate.

    Raises
    ------
    InputError
        With the number of the line that breaks the layout.
    """
    rows, numbers, tags = [], [], []
    for number, text in _lines(path):
        if not text.strip():
            continue
        try:
            values = [float(text[slice(*FIELDS[name])]) for name in ("freq", "err", "lgint", "elo")]
            weight, tag = _weight(text[slice(*FIELDS["gup"])]), abs(int(text[slice(*FIELDS["tag"])]))
        except ValueError:
            raise InputError(
                f"{path}, line {number}: expected freq, err, lgint, dr, elo, gup and tag in the columns of CDMS and JPL"
                f" (13, 8, 8, 2, 10, 3 and 7 wide), came {text[:51]!r}"
            ) from None
        rows.append((*values, weight))
        numbers.append(text[51:].ljust(28))
        tags.append(tag)
    if not rows:
        raise InputError(f"{path}: expected lines of a CDMS or JPL catalogue, the file is empty")
    first = next((place for place, tag in enumerate(tags) if tag != tags[0]), None)
    if first is not None:
        raise InputError(f"{path}: expected one species, came tags {tags[0]} and {tags[first]}: part the file")
    frequency, error, strength, lower, weight = np.array(rows).T
    frequency = np.where(error < 0, frequency * LIGHT_CM * 1e-6, frequency)
    energy = lower * PER_WAVENUMBER + PER_GHZ * 1e-3 * frequency
    name, partition = known.get(tags[0], (path.stem, None))
    approximate = partition is None
    if partition is None:
        partition = _listed_levels(energy, lower * PER_WAVENUMBER, weight, [text[4:16] for text in numbers])
    warm = _at(partition, CATALOGUE_TEMPERATURE)
    fall = np.exp(-lower * PER_WAVENUMBER / CATALOGUE_TEMPERATURE) - np.exp(-energy / CATALOGUE_TEMPERATURE)
    einstein = EINSTEIN * 10.0**strength * frequency**2 * warm / weight / fall
    order = np.argsort(frequency, kind="stable")
    maker = "CDMS" if tags[0] % 1000 > 500 else "JPL"
    ladder = Ladder(name, "", 1.0, partition, f"{maker} tag {tags[0]:06d}", approximate)
    unknown = np.full(len(order), np.nan)
    return LineList(
        (ladder,), np.zeros(len(order), np.int64), frequency[order] * 1e-3, energy[order], einstein[order],
        weight[order], unknown,
    )  # fmt: skip


def read_lamda_file(path: Path) -> Molecule:
    """Read levels and lines of a LAMDA file; collision rates are left.

    Raises
    ------
    InputError
        With the number of the line that breaks the layout.
    """
    lines = _lines(path)

    def take(what: str) -> tuple[int, list[str]]:
        number, text = next(lines, (0, ""))
        if not number:
            raise InputError(f"{path}: ends where {what} was expected: the file is cut off or is not of LAMDA")
        return number, text.split("!")[0].split() if what not in ("a label", "the molecule") else [text]

    def count(what: str) -> int:
        number, words = take(what)
        if not words or not words[0].isdigit():
            raise InputError(f"{path}, line {number}: expected {what} as in LAMDA files, came {' '.join(words)[:60]!r}")
        return int(words[0])

    def rows(many: int, what: str, columns: int) -> np.ndarray:
        values = []
        for _ in range(many):
            number, words = take(what)
            try:
                values.append([float(word.replace("D", "E")) for word in words[:columns]])
            except ValueError:
                values.append([])
            if len(values[-1]) < columns:
                raise InputError(
                    f"{path}, line {number}: expected {what}, {columns} numbers, came {' '.join(words)[:60]!r}"
                )
        return np.array(values).reshape(many, columns)

    take("a label")
    title = take("the molecule")[1][0].strip()
    take("a label")
    take("the molecular weight")
    take("a label")
    number_of_levels = count("the number of energy levels")
    take("a label")
    level = rows(number_of_levels, "a level with energy and weight", 3)
    take("a label")
    number_of_lines = count("the number of radiative transitions")
    take("a label")
    line = rows(number_of_lines, "a transition with levels, Einstein coefficient and frequency", 5)
    place = {int(one): row for row, one in enumerate(level[:, 0])}
    try:
        upper, lower = (np.array([place[int(one)] for one in line[:, column]], np.int64) for column in (1, 2))
    except KeyError as error:
        raise InputError(f"{path}: a transition names level {error}, the file has {number_of_levels}") from None
    species, kind = _species(title)
    return Molecule(
        species, kind, level[:, 1] * PER_WAVENUMBER, level[:, 2], upper, lower, line[:, 4], line[:, 3],
        "hfs" in path.stem.lower() or "hyperfine" in title.lower(), f"LAMDA {path.name}",
    )  # fmt: skip


def join_molecules(molecules: Sequence[Molecule]) -> list[LineList]:
    """Lists of lines, one a species: ortho and para joined at their fixed ratio, one file chosen of several.

    Of two files of a ladder the one with hyperfine structure gives the lines, and then the one with more levels; the
    larger of their partition functions is taken where their statistical weights are the same.
    """
    chosen: dict[tuple[str, str], list[Molecule]] = {}
    for one in molecules:
        chosen.setdefault((one.species, one.kind), []).append(one)
    kinds: dict[str, set[str]] = {}
    for species, kind in chosen:
        kinds.setdefault(species, set()).add(kind)
    found: dict[str, list[tuple[Ladder, Molecule]]] = {}
    for (species, kind), several in chosen.items():
        best = max(several, key=lambda one: (one.hyperfine, len(one.energy)))
        partition, highest = best.partition(), best.energy.max()
        for other in several:
            more = other.partition()
            if abs(more[0] / partition[0] - 1) < 0.02:
                partition, highest = np.maximum(partition, more), max(highest, other.energy.max())
        ratio = ORTHO_RATIOS.get(species, ORTHO_RATIO)
        split = {"ortho", "para"} <= kinds[species]
        share = {"ortho": ratio / (1 + ratio), "para": 1 / (1 + ratio)}.get(kind, 1.0) if split else 1.0
        # Below this highest level the sum lacks more than a few per cent at 60 K.
        ladder = Ladder(species, kind if split else "", share, partition, best.source, bool(highest < LEVELS_TO))
        found.setdefault(species, []).append((ladder, best))
    return [_as_lines(parts) for parts in found.values()]


def _as_lines(parts: Sequence[tuple[Ladder, Molecule]]) -> LineList:
    ladder = np.concatenate([np.full(len(one.frequency), row) for row, (_, one) in enumerate(parts)])
    columns = [
        np.concatenate([values(one) for _, one in parts])
        for values in (
            lambda one: one.frequency, lambda one: one.energy[one.upper], lambda one: one.einstein_a,
            lambda one: one.weight[one.upper], lambda one: one.weight[one.lower],
        )
    ]  # fmt: skip
    order = np.argsort(columns[0], kind="stable")
    return LineList(tuple(one for one, _ in parts), ladder[order], *(column[order] for column in columns))


def is_partition_file(path: Path) -> bool:
    """Whether a ``.cat`` file holds partition functions, by its name."""
    return path.suffix.lower() == ".cat" and re.match(r"(catdir|part)", path.stem.lower()) is not None


def read_partition_file(path: Path) -> dict[int, tuple[str, np.ndarray]]:
    """Names and partition functions at `TEMPERATURES` by species tag.

    Two layouts: the directory of JPL (tag, name, number of lines, lg Q at 300, 225, 150, 75, 37.5, 18.75 and 9.375 K,
    version), and that of CDMS, whose head names the temperatures as ``lg(Q(300))``, with bars between columns or
    without. Beyond the temperatures told, lg Q goes on straight over lg T.

    Raises
    ------
    InputError
        With the number of the line that breaks the layout.
    """
    temperatures, tail = np.array(JPL_TEMPERATURES), True
    found: dict[int, tuple[str, np.ndarray]] = {}
    for number, text in _lines(path):
        heads = re.findall(r"Q\((\d+\.?\d*)\)", text)
        if heads:
            temperatures, tail = np.array([float(value) for value in heads]), False
            continue
        words = text.replace("|", " ").split()
        if not words or not words[0].isdigit():
            continue
        end = 3 + len(temperatures)
        # Names may hold blanks; numbers are counted from the end, where JPL has a version.
        values = words[2 if len(words) < end else len(words) - len(temperatures) - tail :][: len(temperatures)]
        try:
            logs = np.array([np.nan if value.strip("-") in ("", "nan") else float(value) for value in values])
            told = np.isfinite(logs)
            if len(logs) != len(temperatures) or told.sum() < 2:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}, line {number}: expected tag, name, number of lines and lg Q at {len(temperatures)} "
                f"temperatures, came {text.strip()[:60]!r}"
            ) from None
        name = " ".join(words[1 : len(words) - len(temperatures) - tail - 1]).rstrip(",")
        found[int(words[0])] = (name, 10.0 ** _straight(np.log10(temperatures[told]), logs[told]))
    if not found:
        raise InputError(f"{path}: expected species tags with partition functions, found none")
    return found


def _straight(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values at `TEMPERATURES` of a line through points in lg T, with its end slopes beyond them."""
    order = np.argsort(x)
    x, y, at = x[order], y[order], np.log10(TEMPERATURES)
    left = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
    return y[left] + (y[left + 1] - y[left]) / (x[left + 1] - x[left]) * (at - x[left])


def _at(partition: np.ndarray, temperature: float) -> float:
    return float(np.exp(np.interp(np.log(temperature), np.log(TEMPERATURES), np.log(partition))))


def _listed_levels(upper: np.ndarray, lower: np.ndarray, weight: np.ndarray, numbers: list[str]) -> np.ndarray:
    """Partition function as a sum over the distinct upper levels of a catalogue and over its ground level."""
    levels = {(round(float(e), 3), text): g for e, g, text in zip(upper, weight, numbers, strict=True)}
    energy = np.array([key[0] for key in levels])
    total = (np.array(list(levels.values())) * np.exp(-energy / TEMPERATURES[:, None])).sum(1)
    # The ground level is upper to none; a third of the first excited level's weight is right for a rotor.
    first = weight[np.argmin(upper)] / 3.0
    return total + first * np.exp(-float(lower.min()) / TEMPERATURES)


def _weight(text: str) -> float:
    """A statistical weight of three characters, where A00 stands for 1000, B00 for 1100."""
    text = text.strip()
    if text[:1].isalpha():
        return float((ord(text[0].upper()) - ord("A") + 10) * 100 + int(text[1:]))
    return float(int(text))


def _species(title: str) -> tuple[str, str]:
    """Name and kind of a LAMDA file's molecule: "o-H2CS  spectroscopy from CDMS" is H2CS, ortho."""
    name = (title.split() or ["?"])[0]
    kind = ""
    for prefix, long in (("o-", "ortho"), ("p-", "para")):
        if name.lower().startswith(prefix):
            name, kind = name[2:], long
    return FULL_NAMES.get(name, name), kind


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    yield from enumerate(text.splitlines(), 1)
