"""A finished run read back from the files that it wrote, for a store that was away or did not exist at the time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from astropy.table import Table

from survey_io.catalogue import read_catalogue
from survey_io.errors import InputError

__all__ = ["read_run"]

# Those that keep types, units, descriptions and UCDs first.
_FORMATS = ("parquet", "fits", "ecsv", "votable", "csv")


def read_run(path: str | Path) -> tuple[dict[str, Any], Table]:
    """The manifest and the catalogue of a run.

    Parameters
    ----------
    path : str or Path
        The manifest, ``..._run.json``; the catalogue lies beside it.

    Raises
    ------
    InputError
        When it is no manifest, or its catalogue is missing.
    """
    path = Path(path)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not JSON"
        raise InputError(f"{path}: expected the manifest of a run (..._run.json): {reason}") from None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not isinstance(manifest.get("input"), dict):
        raise InputError(f"{path}: expected the manifest of a run, with the entries 'input' and 'files'")
    for name in _FORMATS:
        # Only the name counts: a manifest from elsewhere does not choose which file of this machine is read.
        if name in files and (beside := path.parent / Path(str(files[name])).name).is_file():
            return manifest, read_catalogue(beside, format=name)
    raise InputError(
        f"{path}: expected its catalogue ({', '.join(_FORMATS)}) beside it, found none; run skysift detect again"
    )
