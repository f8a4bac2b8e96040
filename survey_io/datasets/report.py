"""What a look at training data found: how much there is of what, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from survey_io.errors import InputError

# What was done with the faulty entries: left out, mended (a box clipped), kept as they are, or the data is refused.
ACTIONS = ("dropped", "mended", "kept", "refused")


@dataclass(frozen=True)
class Problem:
    """One kind of fault.

    Attributes
    ----------
    kind : str
        What is wrong, in words: "image cannot be decoded", "box of no area", "in train and test".
    count : int
        How many entries have it.
    examples : tuple of str
        The first few, by name.
    action : str
        One of `ACTIONS`.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    action: str

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action must be one of {ACTIONS}, got {self.action!r}")


@dataclass
class DataReport:
    """Counts and faults of one dataset.

    Attributes
    ----------
    name : str
        What it is, for listings.
    counts : dict of dict of int
        Entries per split and class (or per split and kind of entry).
    problems : list of Problem
    """

    name: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, entries: list[str], action: str, *, shown: int = 5) -> None:
        """Note a fault of these entries; nothing is noted for none."""
        if entries:
            self.problems.append(Problem(kind, len(entries), tuple(entries[:shown]), action))

    def lines(self) -> list[str]:
        """The report for a reader, a line per split and per fault."""
        text = [
            f"{self.name}: {split}: {sum(classes.values()):,} ("
            + ", ".join(f"{name} {count:,}" for name, count in classes.items()) + ")"
            for split, classes in self.counts.items()
        ]  # fmt: skip
        for one in self.problems:
            more = ", ..." if one.count > len(one.examples) else ""
            text.append(f"{self.name}: {one.kind}: {one.count:,} {one.action} ({', '.join(one.examples)}{more})")
        return text

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"name": self.name, "counts": self.counts, "problems": [vars(one) for one in self.problems]}

    def require(self) -> None:
        """Refuse data with a fault that forbids training.

        Raises
        ------
        InputError
            Naming the first such fault.
        """
        for one in self.problems:
            if one.action == "refused":
                raise InputError(
                    f"{self.name}: {one.kind}: {one.count:,} entries, such as {', '.join(one.examples)}; mend the data "
                    "or tell the recipe how to handle it"
                )
