"""What a check answers with, and how checks are run so that one that breaks does not hide the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"
_RANK = {OK: 0, WARN: 1, FAIL: 2}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer.

    Attributes
    ----------
    check : str
        What was looked at, such as "engine onnx".
    status : str
        "ok", "warn" (works, but not as it could) or "fail" (does not work).
    found : str
        What was seen, with numbers.
    advice : str
        What to do; empty when nothing is to be done.
    """

    check: str
    status: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """A folder of the service.

    Attributes
    ----------
    role : str
        Such as "output".
    path : Path
    """

    role: str
    path: Path


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: dict[str, Check], *, seconds: dict[str, float] | None = None) -> list[Finding]:
    """All findings, in the order of the checks; a check that breaks is a finding too.

    Parameters
    ----------
    checks : dict
        By name.
    seconds : dict, optional
        Receives the wall time of each check.
    """
    found: list[Finding] = []
    for name, check in checks.items():
        began = time.perf_counter()
        try:
            found.extend(check())
        except Exception as error:
            found.append(broken(name, error))
        if seconds is not None:
            seconds[name] = time.perf_counter() - began
    return found


def broken(name: str, error: BaseException) -> Finding:
    """A check that could not be carried out."""
    return Finding(name, FAIL, f"{type(error).__name__}: {one_line(error)}", "mend what this line is about")


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error's text without line breaks, cut where libraries write pages."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def worst(findings: Iterable[Finding]) -> str:
    """The worst status among findings."""
    return max((one.status for one in findings), key=lambda status: _RANK[status], default=OK)


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """What ``--json`` prints."""
    listed = list(findings)
    counts = {status: sum(one.status == status for one in listed) for status in _RANK}
    return {"status": worst(listed), "counts": counts, "findings": [one.as_dict() for one in listed]}
