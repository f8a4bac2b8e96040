"""Lists of spectral lines with all that their intensities follow from, read from CDMS, JPL and LAMDA files.

A species may consist of ladders that radiation and collisions do not connect: its ortho and para molecules. Each has
a fixed share of the molecules and a partition function of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from survey_io.errors import InputError, OptionError

if TYPE_CHECKING:
    from astropy.table import Table

# h/k in K per GHz, hc/k in K cm, speed of light in cm/s and km/s (CODATA 2018, exact).
PER_GHZ, PER_WAVENUMBER = 0.04799243073366221, 1.438776877
LIGHT_CM, LIGHT_KMS = 2.99792458e10, 299792.458
# Temperatures of tabulated partition functions, K: the background's to that of hot cores, 15% apart.
TEMPERATURES = np.geomspace(2.725, 500.0, 36)
TABLE = Path(__file__).with_name("data") / "molecular_lines.ecsv"
COLUMNS = ("species", "ladder", "frequency", "upper_energy", "einstein_a", "upper_weight", "lower_weight")
UNITS = {"frequency": "GHz", "upper_energy": "K", "einstein_a": "1/s"}


@dataclass(frozen=True)
class Ladder:
    """Molecules of a species that share one partition function.

    Attributes
    ----------
    species : str
    name : str
        "ortho", "para", or empty for a species of one kind.
    share : float
        Of the species' molecules, 0..1.
    partition : ndarray, shape (T,)
        Partition function at `TEMPERATURES`, with the statistical weights of this ladder's lines.
    source : str
        Where the facts come from.
    approximate : bool
        Whether the partition function is a sum over the levels that happen to be listed, which may be too few.
    """

    species: str
    name: str
    share: float
    partition: np.ndarray
    source: str = ""
    approximate: bool = False

    def __post_init__(self) -> None:
        if self.partition.shape != TEMPERATURES.shape or not (self.partition > 0).all() or not 0 < self.share <= 1:
            raise OptionError(
                f"{self.species} {self.name}: expected a share in (0, 1] and {TEMPERATURES.size} positive values of the"
                f" partition function, came {self.share:g} and {np.shape(self.partition)}"
            )


@dataclass(frozen=True)
class LineList:
    """Lines of one or several species, by species and frequency.

    Attributes
    ----------
    ladders : tuple of Ladder
    ladder : ndarray of int, shape (L,)
        Row of ``ladders`` of each line.
    frequency : ndarray, shape (L,)
        At rest, GHz.
    upper_energy : ndarray, shape (L,)
        Of the upper level above the species' ground state, K.
    einstein_a : ndarray, shape (L,)
        1/s.
    upper_weight, lower_weight : ndarray, shape (L,)
        Statistical weights; ``lower_weight`` is NaN where the file does not tell.
    """

    ladders: tuple[Ladder, ...]
    ladder: np.ndarray
    frequency: np.ndarray
    upper_energy: np.ndarray
    einstein_a: np.ndarray
    upper_weight: np.ndarray
    lower_weight: np.ndarray

    def __len__(self) -> int:
        return len(self.frequency)

    @cached_property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of their first ladder."""
        return tuple(dict.fromkeys(one.species for one in self.ladders))

    @cached_property
    def ladder_species(self) -> np.ndarray:
        """Place in ``species`` of each ladder, shape (ladders,)."""
        place = {name: row for row, name in enumerate(self.species)}
        return np.array([place[one.species] for one in self.ladders], np.int64)

    @cached_property
    def line_species(self) -> np.ndarray:
        """Place in ``species`` of each line, shape (L,)."""
        return self.ladder_species[self.ladder]

    @cached_property
    def lower_energy(self) -> np.ndarray:
        """Of the lower level, K, shape (L,)."""
        return self.upper_energy - PER_GHZ * self.frequency

    def partition(self, temperature: np.ndarray) -> np.ndarray:
        """Partition function over the ladder's share, shape (ladders,): N g exp(-E/kT) over it is a level's column.

        Parameters
        ----------
        temperature : ndarray, shape (species,) or scalar
            Of excitation, K; interpolated in ln Q over ln T, and the end slopes go on outside the table.
        """
        temperature = np.broadcast_to(np.asarray(temperature, np.float64), (len(self.species),))[self.ladder_species]
        table, grid, x = self._logs, np.log(TEMPERATURES), np.log(temperature)
        row = np.arange(len(table))
        left = np.clip(np.searchsorted(grid, x) - 1, 0, len(grid) - 2)
        part = (x - grid[left]) / (grid[left + 1] - grid[left])
        return np.exp(table[row, left] * (1 - part) + table[row, left + 1] * part)

    @cached_property
    def _logs(self) -> np.ndarray:
        return np.stack([np.log(one.partition / one.share) for one in self.ladders])

    def select(self, keep: np.ndarray) -> LineList:
        """The lines where ``keep`` is True; ladders without a line are dropped."""
        keep = np.flatnonzero(keep)
        used = np.unique(self.ladder[keep])
        lines = (getattr(self, name)[keep] for name in COLUMNS[2:])
        return LineList(tuple(self.ladders[row] for row in used), np.searchsorted(used, self.ladder[keep]), *lines)

    def in_band(self, low: float, high: float) -> LineList:
        """The lines between two frequencies in GHz."""
        return self.select((self.frequency >= low) & (self.frequency <= high))

    def of(self, names: Sequence[str]) -> LineList:
        """The lines of some species, in the order given.

        Raises
        ------
        OptionError
            For a species that has no line here.
        """
        missing = [name for name in names if name not in self.species]
        if missing:
            raise OptionError(f"no lines of {', '.join(missing)}: expected some of {', '.join(self.species)}")
        own = self.line_species
        return merge([self.select(own == self.species.index(name)) for name in names])

    def to_table(self) -> Table:
        """As a table of one row a line; the partition functions are in ``meta["ladders"]``."""
        from astropy.table import Table

        rows = [self.ladders[row] for row in self.ladder]
        table = Table({"species": [one.species for one in rows], "ladder": [one.name for one in rows]})
        for name in COLUMNS[2:]:
            # As many digits as a float of 32 bits has, but for frequencies.
            digits = 10 if name == "frequency" else 7
            table[name] = [float(f"{value:.{digits}g}") for value in getattr(self, name)]
            table[name].unit = UNITS.get(name)
        table["source"] = [one.source for one in rows]
        table.meta["temperatures"] = [round(float(value), 3) for value in TEMPERATURES]
        table.meta["ladders"] = [
            {
                "species": one.species, "ladder": one.name, "share": float(one.share), "source": one.source,
                "approximate": bool(one.approximate), "partition": [float(f"{value:.6g}") for value in one.partition],
            }
            for one in self.ladders
        ]  # fmt: skip
        return table


def merge(lists: Iterable[LineList]) -> LineList:
    """Several lists in one, lines by species and frequency.

    Raises
    ------
    OptionError
        Where two of them hold the same ladder of the same species, whose lines would count twice.
    """
    lists = list(lists)
    ladders = [one for entry in lists for one in entry.ladders]
    seen: set[tuple[str, str]] = set()
    for one in ladders:
        if (one.species, one.name) in seen:
            raise OptionError(f"two lists of lines hold {one.species} {one.name}".rstrip() + ": leave one out")
        seen.add((one.species, one.name))
    if not lists:
        empty = np.zeros(0)
        return LineList((), np.zeros(0, np.int64), empty, empty, empty, empty, empty)
    start = np.cumsum([0, *(len(entry.ladders) for entry in lists)])
    ladder = np.concatenate([entry.ladder + first for entry, first in zip(lists, start, strict=False)])
    columns = [np.concatenate([getattr(entry, name) for entry in lists]) for name in COLUMNS[2:]]
    joined = LineList(tuple(ladders), ladder.astype(np.int64), *columns)
    order = np.lexsort((joined.frequency, joined.line_species))
    return LineList(joined.ladders, joined.ladder[order], *(column[order] for column in columns))


def read_lines(path: str | os.PathLike[str], *, band: tuple[float, float] | None = None) -> LineList:
    """Read lines of a CDMS, JPL or LAMDA file, of a table written from a `LineList`, or of a folder of such files.

    Parameters
    ----------
    path : path
        A file (``.cat`` of CDMS and JPL, ``.dat`` of LAMDA, ``.ecsv``), or a folder, where a ``catdir.cat`` or
        ``partition_function.cat`` names the catalogues' species and gives their partition functions. Of several
        LAMDA files of one species the one that resolves hyperfine structure gives the lines.
    band : (float, float), optional
        Lowest and highest frequency in GHz; species without a line there are left out.

    Raises
    ------
    InputError
        For a path that does not exist, a folder without line lists, or a line of a file that breaks the layout; the
        message names file and line number.
    """
    from survey_io.line_files import is_partition_file, read_catalogue_file, read_lamda_file, read_partition_file

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: expected a line list or a folder of them, there is no such path")
    folder = path if path.is_dir() else path.parent
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in (".cat", ".dat", ".ecsv") and not is_partition_file(file)]
    if not files:
        raise InputError(f"{path}: expected line lists (.cat of CDMS or JPL, .dat of LAMDA, .ecsv), found none")
    names = [file for file in sorted(folder.glob("*.cat")) if is_partition_file(file)]
    known: dict[int, tuple[str, np.ndarray]] = {}
    for file in names:
        known |= read_partition_file(file)
    found, molecules = [], []
    for file in files:
        if file.suffix.lower() == ".ecsv":
            found.append(read_table(file))
        elif file.suffix.lower() == ".cat":
            found.append(read_catalogue_file(file, known))
        else:
            molecules.append(read_lamda_file(file))
    from survey_io.line_files import join_molecules

    lines = merge([*found, *join_molecules(molecules)])
    return lines if band is None else lines.in_band(*band)


def read_table(path: str | os.PathLike[str]) -> LineList:
    """Read a table that `LineList.to_table` made.

    Raises
    ------
    InputError
        When it is no such table.
    """
    from survey_io.catalogue import read_catalogue

    table = read_catalogue(path, format="ecsv")
    try:
        meta: list[dict[str, Any]] = table.meta["ladders"]
        if not np.allclose(table.meta["temperatures"], TEMPERATURES, atol=1e-2):
            raise InputError(f"{path}: partition functions at other temperatures than expected: write the table again")
        ladders = tuple(
            Ladder(
                str(one["species"]), str(one["ladder"]), float(one["share"]), np.array(one["partition"], np.float64),
                str(one["source"]), bool(one["approximate"]),
            )
            for one in meta
        )  # fmt: skip
        place = {(one.species, one.name): row for row, one in enumerate(ladders)}
        # Of a species of one kind the ladder is an empty string, which readers take for a missing value.
        kinds = [str(value) if value else "" for value in np.ma.filled(table["ladder"], "").tolist()]
        rows = zip(table["species"].tolist(), kinds, strict=True)
        ladder = np.array([place[str(name), kind] for name, kind in rows], np.int64)
        columns = [np.asarray(np.ma.filled(table[name], np.nan), np.float64) for name in COLUMNS[2:]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a table of spectral lines as skysift makes it, it lacks {error}") from error
    return LineList(ladders, ladder, *columns)


@lru_cache(maxsize=1)
def molecular_lines() -> LineList:
    """The lines between 80 and 115 GHz that ship; the same object at every call."""
    return read_table(TABLE)


def main(arguments: Sequence[str]) -> int:
    """``python -m survey_io.line_lists FOLDER OUT.ecsv``: make the table that ships from a folder of LAMDA files."""
    from survey_io.molecular_table import make_molecular_table

    if len(arguments) != 2:
        print("usage: python -m survey_io.line_lists FOLDER OUT.ecsv", file=sys.stderr)
        return 2
    lines = make_molecular_table(arguments[0])
    lines.to_table().write(arguments[1], format="ascii.ecsv", overwrite=True)
    print(f"{arguments[1]}: {len(lines)} lines of {len(lines.species)} species")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
