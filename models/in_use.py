"""Which version of retrained weights a name stands for: promotion and return, with their history.

``NAME/in_use.json`` in the store (`models.store`) holds both; entries are added to the history, never changed.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from models.store import SHIPPED, get_version, locked, now, split_name, store_folder, sync_folder, to_json, write_synced
from survey_io.errors import InputError, OptionError, OutputError

IN_USE = "in_use.json"


class InUseChanged(OptionError):
    """Another version came into use since the one that a decision rests on."""


@dataclass(frozen=True)
class Usage:
    """Which version a name stands for.

    Attributes
    ----------
    version : int or None
        None: the shipped weights of that name, where there are any.
    history : tuple of dict
        Oldest first: "at", "action" ("promote" or "rollback"), "version" that came into use, "previous", "by", "why".
    """

    version: int | None = None
    history: tuple[dict[str, Any], ...] = ()


def usage(name: str) -> Usage:
    """Which version a name stands for.

    Raises
    ------
    InputError
        When ``in_use.json`` cannot be read.
    """
    path = store_folder() / name / IN_USE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["version"]
        return Usage(None if version is None else int(version), tuple(values["history"]))
    except (FileNotFoundError, NotADirectoryError):
        return Usage()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: unreadable ({error}): delete it to return to the shipped weights, or name a version as {name}@1"
        ) from None


def promote(name: str, version: int | None, *, why: str, instead_of: int | str | None = "any") -> Usage:
    """Let a name stand for a version from now on.

    Parameters
    ----------
    name : str
    version : int or None
        None: the shipped weights.
    why : str
        One line for the history.
    instead_of : int, None or "any"
        The version that must be in use for this to be right.

    Raises
    ------
    OptionError
        When there is no such version.
    InputError
        When its files are damaged.
    InUseChanged
        When another version than ``instead_of`` is in use.
    """
    if version is not None:
        get_version(name, version).verify()
    elif name not in _shipped():
        raise OptionError(f"model {name}@{SHIPPED}: no weights of that name are shipped")
    with _changing(name) as before:
        if before.version == version and before.history:
            return before
        if instead_of != "any" and before.version != instead_of:
            raise InUseChanged(
                f"{name}: expected {_label(name, instead_of)} in use, found {_label(name, before.version)}: it was "
                "promoted meanwhile; compare with it first"
            )
        return _note(name, before, "promote", version, why)


def rollback(name: str, *, why: str = "") -> Usage:
    """Let a name stand for what it stood for before the last promotion that was not rolled back.

    Raises
    ------
    OptionError
        When there was no such promotion.
    """
    with _changing(name) as before:
        stack: list[int | None] = [None]
        for entry in before.history:
            if entry["action"] == "promote":
                stack.append(entry["version"])
            elif len(stack) > 1:
                stack.pop()
        if len(stack) == 1:
            raise OptionError(f"model {name!r}: nothing to go back to: no version of it is in use")
        return _note(name, before, "rollback", stack[-2], why)


@contextlib.contextmanager
def _changing(name: str) -> Iterator[Usage]:
    """Hold the lock of a name, and tell what is in use."""
    split_name(name)
    home = store_folder() / name
    try:
        if not home.is_dir():
            if name not in _shipped():
                raise OptionError(f"model {name!r}: no version of it was registered; see 'skysift models'")
            home.mkdir(parents=True, exist_ok=True)
        with locked(home):
            yield usage(name)
    except OSError as error:
        raise OutputError(f"{home}: cannot change what is in use: {error.strerror or error}") from error


def _note(name: str, before: Usage, action: str, version: int | None, why: str) -> Usage:
    entry = {
        "at": now(), "action": action, "version": version, "previous": before.version, "by": _user(), "why": why
    }  # fmt: skip
    after = Usage(version, (*before.history, entry))
    home = store_folder() / name
    passing = home / f".{IN_USE}.{os.getpid()}"
    try:
        write_synced(to_json({"version": after.version, "history": list(after.history)}), passing, mode=0o644)
        os.replace(passing, home / IN_USE)
        sync_folder(home)
    finally:
        passing.unlink(missing_ok=True)
    return after


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _label(name: str, version: int | str | None) -> str:
    return f"{name}@{SHIPPED if version is None else version}"


def _shipped() -> list[str]:
    from models.weights import list_weights

    return list_weights()
