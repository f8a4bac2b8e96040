"""Levels, lines and partition functions of rotating molecules from their constants, where no file gives them.

Frequencies, energies and strengths follow from rotational and distortion constants and the dipole moment: linear
molecules, symmetric tops, and the lowest ladders of nearly symmetric ones (Townes & Schawlow 1955). Rigid asymmetric
rotors serve for partition functions only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from survey_io.line_lists import PER_GHZ, TEMPERATURES, Ladder, LineList

# Einstein A = EINSTEIN nu^3 mu^2 S / g with nu in MHz and mu in debye.
EINSTEIN = 1.16395e-20
# Energies above which levels add less than 1e-4 to a partition function at 500 K, K.
HIGHEST = 6000.0


@dataclass(frozen=True)
class LinearRotor:
    """A linear molecule.

    Attributes
    ----------
    name : str
    constant : float
        Rotational constant B, MHz.
    distortion : float
        D, MHz.
    dipole : float
        Debye.
    spin : float
        Statistical weight of a level is ``spin * (2J + 1)``.
    hyperfine : tuple of (offset, share)
        Groups of hyperfine lines: distance from the line's centre in MHz, and share of its intensity.
    source : str
    """

    name: str
    constant: float
    distortion: float
    dipole: float
    spin: float = 1.0
    hyperfine: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    source: str = ""

    def energy(self, j: np.ndarray) -> np.ndarray:
        """Of levels, K."""
        square = j * (j + 1.0)
        return PER_GHZ * 1e-3 * (self.constant * square - self.distortion * square**2)

    def lines(self, low: float, high: float) -> LineList:
        """Lines between two frequencies in GHz."""
        upper = np.arange(1, 200)
        centre = 2 * self.constant * upper - 4 * self.distortion * upper**3.0
        upper = upper[(centre > low * 1e3) & (centre < high * 1e3)]
        rows = []
        for j in upper.tolist():
            frequency = 2 * self.constant * j - 4 * self.distortion * j**3
            weight = self.spin * (2 * j + 1)
            einstein = EINSTEIN * frequency**3 * self.dipole**2 * j / (2 * j + 1)
            for offset, share in self.hyperfine:
                # Only the product of weight and coefficient counts: the shares go into the weights.
                lower = self.spin * (2 * j - 1) * share
                rows.append((frequency + offset, float(self.energy(j)), einstein, weight * share, lower))
        j = np.arange(0, int(np.sqrt(HIGHEST / (PER_GHZ * 1e-3 * self.constant))) + 2)
        levels = self.spin * (2 * j + 1) * np.exp(-self.energy(j) / TEMPERATURES[:, None])
        return as_list(self.name, rows, levels.sum(1), self.source)


@dataclass(frozen=True)
class SymmetricTop:
    """A prolate symmetric top with three equivalent hydrogens, or the ladders of a nearly symmetric rotor.

    Attributes
    ----------
    name : str
    axial, constant : float
        Rotational constants A (about the axis) and B, MHz.
    distortion, mixed : float
        D_J and D_JK, MHz.
    dipole : float
        Along the axis, debye.
    highest_k : int
        Ladders that lines are listed of.
    source : str
    """

    name: str
    axial: float
    constant: float
    distortion: float
    mixed: float
    dipole: float
    highest_k: int
    source: str = ""

    def energy(self, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        """Of levels, K."""
        square = j * (j + 1.0)
        value = self.constant * square + (self.axial - self.constant) * k**2.0
        return PER_GHZ * 1e-3 * (value - self.distortion * square**2 - self.mixed * square * k**2.0)

    def lines(self, low: float, high: float) -> LineList:
        """Lines between two frequencies in GHz; the weights of K = 3, 6, ... are twice those of the other ladders."""
        rows = []
        for j in range(1, 100):
            for k in range(min(j, self.highest_k + 1)):
                frequency = 2 * j * (self.constant - self.mixed * k**2) - 4 * self.distortion * j**3
                if not low * 1e3 < frequency < high * 1e3:
                    continue
                weight = top_weight(k)
                einstein = EINSTEIN * frequency**3 * self.dipole**2 * (j * j - k * k) / (j * (2 * j + 1))
                energy = float(self.energy(j, k))
                rows.append((frequency, energy, einstein, weight * (2 * j + 1), weight * (2 * j - 1)))
        partition = np.zeros_like(TEMPERATURES)
        for k in range(60):
            j = np.arange(k, 200)
            partition += (top_weight(k) * (2 * j + 1) * np.exp(-self.energy(j, k) / TEMPERATURES[:, None])).sum(1)
        return as_list(self.name, rows, partition, self.source)


def top_weight(k: int) -> float:
    """Weight of both signs of K for three equivalent hydrogens, the nuclear spin's common factor left out."""
    return 4.0 if k and k % 3 == 0 else 2.0


def asymmetric_levels(a: float, b: float, c: float, highest_j: int) -> tuple[np.ndarray, ...]:
    """Levels of a rigid asymmetric rotor.

    Parameters
    ----------
    a, b, c : float
        Rotational constants, MHz, ``a >= b >= c``.
    highest_j : int

    Returns
    -------
    energy, j, ka, kc : ndarray, shape (N,)
        Energies in K.
    """
    energies, js, kas, kcs = [], [], [], []
    for j in range(highest_j + 1):
        k = np.arange(-j, j + 1.0)
        square = j * (j + 1.0)
        diagonal = (b + c) / 2 * (square - k**2) + a * k**2
        beside = np.sqrt((square - k[:-2] * (k[:-2] + 1)) * (square - (k[:-2] + 1) * (k[:-2] + 2))) * (b - c) / 4
        # Only levels two apart in K mix: even and odd ones are two tridiagonal matrices.
        parts = [eigvalsh_tridiagonal(diagonal[first::2], beside[first::2]) for first in range(min(2, 2 * j + 1))]
        energies.append(np.sort(np.concatenate(parts)))
        # In ascending order: 0 J, 1 J, 1 J-1, 2 J-1, ...
        order = np.arange(2 * j + 1)
        js.append(np.full(2 * j + 1, j))
        kas.append((order + 1) // 2)
        kcs.append(j - order // 2)
    return PER_GHZ * 1e-3 * np.concatenate(energies), *(np.concatenate(one) for one in (js, kas, kcs))


def asymmetric_partition(
    a: float, b: float, c: float, *, highest_j: int, counted: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Partition function at `TEMPERATURES` over the levels with ``counted(ka, kc)``, weights ``2J + 1``."""
    energy, j, ka, kc = asymmetric_levels(a, b, c, highest_j)
    weight = (2 * j + 1) * counted(ka, kc)
    return (weight * np.exp(-energy / TEMPERATURES[:, None])).sum(1)


def as_list(name: str, rows: Sequence[tuple[float, ...]], partition: np.ndarray, source: str) -> LineList:
    """Rows of (frequency in MHz, upper energy, Einstein A, weights) as a list of one species."""
    columns = np.array(rows, np.float64).reshape(-1, 5).T
    columns[0] *= 1e-3
    columns = columns[:, np.argsort(columns[0], kind="stable")]
    ladder = np.zeros(columns.shape[1], np.int64)
    return LineList((Ladder(name, "", 1.0, partition, source),), ladder, *columns)
