"""Pictures in folders: one folder per class, with or without published parts, or ASIRRA's ``cat.0.jpg``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from survey_io.datasets.pictures import Pictures, Split, drop_leaks, load_pixels, picture_files, split_by_name
from survey_io.datasets.report import DataReport
from survey_io.errors import InputError

# Names of folders that hold a published part each.
_PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_NUMBERED = re.compile(r"([A-Za-z_-]+)\.\d+$")


def read_image_folder(
    folder: str | Path,
    *,
    side: int,
    channels: int = 3,
    split: Split | None = None,
    memory: float = 2.0,
    verify: bool = True,
) -> Pictures:
    """Read pictures with their classes from the names of folders or files.

    Parameters
    ----------
    folder : path
        ``CLASS/any.jpg``; or ``train/CLASS/any.jpg`` with ``test`` and perhaps ``val`` beside ``train``; or, as ASIRRA
        was published, ``cat.0.jpg`` and ``dog.0.jpg`` beside each other, in the folder itself or in its ``train``.
    side : int
        Pixels that the central square of a picture is reduced to.
    channels : int
        3 or 1.
    split : Split, optional
        For what is not published in parts.
    memory : float
        GiB that pixels may take; larger sets stay on disk.
    verify : bool
        Decode those that stay on disk once, to leave out broken ones.

    Raises
    ------
    InputError
        When no layout fits, or there is one class only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of pictures")
    report = DataReport(f"pictures ({folder.name})")
    split = split or Split()
    published = {_PARTS[path.name.lower()]: path for path in sorted(folder.iterdir()) if path.name.lower() in _PARTS}
    published = {part: path for part, path in published.items() if path.is_dir() and _folders(path)}
    if "train" in published:
        entries = [(file, name, part) for part, path in published.items() for file, name in _by_folder(path)]
    else:
        found = _by_folder(folder) if _folders(folder) else []
        if not found:
            flat = folder / "train" if (folder / "train").is_dir() else folder
            found = _by_name(flat, report)
        entries = [(file, name, "") for file, name in found]
    classes = tuple(sorted({name for _, name, _ in entries}))
    if len(classes) < 2:
        raise InputError(
            f"{folder}: {len(entries)} pictures of {len(classes)} classes; expected a folder of pictures for each "
            "class, or files named like cat.0.jpg"
        )
    names = np.array([file.relative_to(folder).as_posix() for file, _, _ in entries])
    given = np.array([part for _, _, part in entries], dtype="<U10")
    part = split_by_name(names.tolist(), split)
    if "train" in published:
        # What is published as a test is that; what validates is taken from training where none is published.
        chosen = part == "validation" if "validation" not in published else np.zeros(len(names), bool)
        if "test" not in published:
            raise InputError(
                f"{folder}: train without test beside it; put all classes into one folder to have them parted"
            )
        part = np.where((given == "train") & chosen, "validation", given)
    pictures = Pictures(
        f"photographs of {len(classes)} classes", names, part,
        np.array([classes.index(name) for _, name, _ in entries]), classes, side, channels,
        files=tuple(file for file, _, _ in entries), report=report,
    )  # fmt: skip
    pictures = drop_leaks(load_pixels(pictures, memory=memory, verify=verify))
    pictures.count()
    return pictures


def _folders(folder: Path) -> list[Path]:
    """Folders of classes: those that hold pictures."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [path for path in inside if path.name.lower() not in _PARTS and picture_files(path)]


def _by_folder(folder: Path) -> list[tuple[Path, str]]:
    return [(file, path.name) for path in _folders(folder) for file in picture_files(path)]


def _by_name(folder: Path, report: DataReport) -> list[tuple[Path, str]]:
    found, strange = [], []
    for file in picture_files(folder):
        match = _NUMBERED.match(file.stem)
        if match:
            found.append((file, match.group(1)))
        else:
            strange.append(file.name)
    report.add("picture without a class in its name", strange, "dropped")
    return found
