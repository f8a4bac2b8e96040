"""Every column of a table of classified spectra and every quality flag, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntFlag
from typing import Any

import numpy as np
from astropy.table import Table

from .columns import Column

__all__ = ["CLASS_COLUMNS", "SpectrumFlag", "make_class_table", "probability_column", "spectrum_flags_text"]


class SpectrumFlag(IntFlag):
    """Quality flags of a spectrum: ``flags`` is the sum of those that hold. 0 is a spectrum without remarks."""

    PARTIAL_COVERAGE = 1
    LITTLE_COVERAGE = 2
    GAPS = 4
    COARSE = 8
    LOW_SNR = 16
    AMBIGUOUS = 32
    ASSUMED = 64
    LONGER = 128

    @property
    def meaning(self) -> str:
        """What the flag says about a spectrum; several flags are joined."""
        return "; ".join(_MEANINGS[flag] for flag in SpectrumFlag if flag in self)


_MEANINGS = {
    SpectrumFlag.PARTIAL_COVERAGE: "the spectrum covers less than nine tenths of what the model reads",
    SpectrumFlag.LITTLE_COVERAGE: "the spectrum covers less than a third of what the model reads",
    SpectrumFlag.GAPS: "stretches within the spectrum are missing",
    SpectrumFlag.COARSE: "the spectrum's bins are more than twice as wide as the model's",
    SpectrumFlag.LOW_SNR: "the S/N of a bin is below 5",
    SpectrumFlag.AMBIGUOUS: "no class is likelier than not",
    SpectrumFlag.ASSUMED: "something was assumed in reading the file; the run's manifest says what",
    SpectrumFlag.LONGER: "the light curve is longer than what the model reads; the row is of its most telling window",
}

CLASS_COLUMNS = [
    Column("spectrum_id", None, "meta.id;meta.main", "int64", "number of the spectrum in this table, from 1"),
    Column("name", None, "meta.id", "U", "what the file calls the object, else the name of the file"),
    Column("file", None, "meta.dataset", "U", "file it was read from"),
    Column("row", None, "meta.record", "int64", "row or extension of the file, from 0; -1 where the file holds one"),
    Column("class", None, "src.class", "U", "likeliest class; of classes that may hold together all that are named"),
    Column("p_class", None, "stat.probability;src.class", "float32", "calibrated probability of the likeliest class"),
    Column("entropy", None, "stat.value", "float32", "of the probabilities, in bits: 0 is certain"),
    Column("snr", None, "stat.snr", "float32", "median flux over noise, per bin of the model's grid"),
    Column("peak_snr", None, "stat.snr;stat.max", "float32", "largest deviation from the median over noise, per bin"),
    Column("coverage", None, "stat.filling", "float32", "observed share of what the model reads"),
    Column("coverage_low", "unit", "em.wl;stat.min", "float64", "first bin that was used, on the model's grid"),
    Column("coverage_high", "unit", "em.wl;stat.max", "float64", "last bin that was used, on the model's grid"),
    Column("flags", None, "meta.code.qual", "int32", "sum of quality flags; see SpectrumFlag"),
]
# What axes are in, as UCDs say it.
_AXIS_UCD = {"length": "em.wl", "frequency": "em.freq", "speed": "spect.dopplerVeloc", "time": "time"}


def probability_column(name: str) -> str:
    """The column that holds a class's probability: ``p_`` and its name, without what would trouble a query."""
    return "p_" + "".join(char if char.isalnum() else "_" for char in name)


def make_class_table(
    values: Mapping[str, Any], *, classes: Sequence[str], probability: np.ndarray, unit: Any,
    regressed: Mapping[str, tuple[str, np.ndarray, np.ndarray]],
) -> Table:  # fmt: skip
    """A table with all columns in their order.

    Parameters
    ----------
    values : mapping of str to array (N,)
        By the names of `CLASS_COLUMNS`.
    classes : sequence of str
    probability : ndarray, shape (N, classes)
    unit : astropy Unit
        Of the model's grid.
    regressed : mapping of str to (unit, array (N,), array (N,))
        By name, unit, value and standard error.
    """
    table = Table()
    place = _AXIS_UCD.get(str(unit.physical_type), "em.wl")
    for column in CLASS_COLUMNS:
        kind = None if column.dtype == "U" else column.dtype
        table[column.name] = np.asarray(values[column.name], dtype=kind)
        table[column.name].description = column.meaning
        table[column.name].meta["ucd"] = column.ucd.replace("em.wl", place)
        if column.unit:
            table[column.name].unit = unit
        if column.name == "p_class":
            for name, chance in zip(classes, probability.T, strict=True):
                _add(table, probability_column(name), chance, "", "stat.probability", f"probability of class {name}")
            for name, (own, value, error) in regressed.items():
                _add(table, name, value, own, _VALUE_UCDS.get(name, "phys"), f"{name} by the network")
                _add(table, f"{name}_err", error, own, "stat.error", f"standard error of {name}")
    return table


_VALUE_UCDS = {
    "teff": "phys.temperature.effective", "logg": "phys.gravity", "feh": "phys.abund.Z", "period": "time.period",
    "depth": "src.var.amplitude", "duration": "time.duration",
}  # fmt: skip


def _add(table: Table, name: str, value: np.ndarray, unit: str, ucd: str, meaning: str) -> None:
    table[name] = np.asarray(value, np.float32)
    table[name].description, table[name].meta["ucd"] = meaning, ucd
    if unit:
        table[name].unit = unit


def spectrum_flags_text(flags: int) -> str:
    """Names of the flags that are set, as "GAPS|LOW_SNR"; empty for 0."""
    return "|".join(flag.name for flag in SpectrumFlag if flag in SpectrumFlag(int(flags)))
