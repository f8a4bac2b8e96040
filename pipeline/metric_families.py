"""Families of Prometheus metrics: read from a file, added up over processes, written as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric


class Sum:
    """Families of several processes added up; gauges stand side by side, by their label of the worker."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[tuple[str, tuple], float]] = {}

    def add(self, families: Iterable[Metric], *, gauges: bool) -> None:
        """Add a process's; ``gauges`` False leaves out what only a living process has."""
        for family in families:
            if family.type == "gauge" and not gauges:
                continue
            self._families.setdefault(family.name, (family.documentation, family.type))
            values = self._values.setdefault(family.name, {})
            for one in family.samples:
                if not one.name.endswith("_created"):
                    key = (one.name, tuple(sorted(one.labels.items())))
                    values[key] = one.value if family.type == "gauge" else values.get(key, 0.0) + one.value

    def collect(self) -> Iterator[Metric]:
        """Yield the sums."""
        from prometheus_client import Metric

        for name, (text, kind) in self._families.items():
            family = Metric(name, text, kind)
            for (sample, labels), value in self._values[name].items():
                family.add_sample(sample, dict(labels), value)
            yield family


def read_families(path: Path) -> list[Metric]:
    """Families of a text file; none when it is damaged, which costs its own numbers only."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        return list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def families_text(families: Iterable[Metric]) -> bytes:
    """Families as Prometheus' text; those without samples are left out."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Given:
        def collect(self) -> Iterable[Metric]:
            return [one for one in families if one.samples]

    registry = CollectorRegistry()
    registry.register(Given())
    lines = generate_latest(registry).splitlines(keepends=True)
    return b"".join(line for line in lines if b"_created" not in line)
