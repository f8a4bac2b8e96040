"""ImageNet's classification task (ILSVRC 2012, Russakovsky et al. 2015): a folder per synset, streamed from disk."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from survey_io.datasets.pictures import Pictures, Split, drop_leaks, load_pixels, picture_files, split_by_name
from survey_io.datasets.report import DataReport
from survey_io.errors import InputError

# The published validation part is what is reported on; of training, so much chooses and calibrates: 12,800 pictures.
_VALIDATION = 0.01
SOLUTION = "LOC_val_solution.csv"
# Folders in which the archives of the challenge have "train" and "val".
_INSIDE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


def read_imagenet(
    folder: str | Path, *, side: int, memory: float = 2.0, verify: bool = False
) -> Pictures:  # fmt: skip
    """Read ``train/SYNSET/*.JPEG`` and ``val/SYNSET/*.JPEG``, or ``val/*.JPEG`` with ``LOC_val_solution.csv``.

    Parameters
    ----------
    folder : path
        That of ``train`` and ``val``, or the one that the challenge's archive unpacks to.
    side : int
        Pixels that the central square of a picture is reduced to.
    memory : float
        GiB that pixels may take; the whole set stays on disk.
    verify : bool
        Decode every picture once, which takes hours for the whole set.

    Returns
    -------
    Pictures
        Classes are synsets such as "n01440764", in their order by name, which is that of all published weights.

    Raises
    ------
    InputError
        When the parts are missing, or nothing says which class the validation pictures have.
    """
    folder = Path(folder)
    inside = next((folder / one for one in _INSIDE if (folder / one / "train").is_dir()), None)
    if inside is None or not (inside / "val").is_dir():
        raise InputError(f"{folder}: expected train and val of ILSVRC 2012, or the challenge's folder ILSVRC")
    synsets = sorted(path.name for path in (inside / "train").iterdir() if path.is_dir())
    place = {name: i for i, name in enumerate(synsets)}
    report = DataReport(f"ImageNet ({folder.name})")
    train = [(file, name) for name in synsets for file in picture_files(inside / "train" / name)]
    held = _validation(folder, inside / "val")
    strange = [file.name for file, name in held if name and name not in place]
    report.add("synset that training has not", strange, "dropped")
    report.add("picture without label", [file.name for file, name in held if not name], "dropped")
    held = [(file, name) for file, name in held if name in place]
    if len(synsets) < 2 or not train or not held:
        raise InputError(
            f"{folder}: {len(train):,} pictures of {len(synsets)} synsets to train on and {len(held):,} labelled ones "
            f"in val: expected both; pictures directly in val need {SOLUTION}"
        )
    entries = [*train, *held]
    names = [file.relative_to(inside).as_posix() for file, _ in entries]
    part = split_by_name(names, Split(_VALIDATION, 0.0))
    part[len(train) :] = "test"
    pictures = Pictures(
        "photographs of ImageNet (ILSVRC 2012)", np.array(names), part, np.array([place[name] for _, name in entries]),
        tuple(synsets), side, files=tuple(file for file, _ in entries), report=report,
    )  # fmt: skip
    pictures = drop_leaks(load_pixels(pictures, memory=memory, verify=verify))
    pictures.count()
    return pictures


def _validation(folder: Path, val: Path) -> list[tuple[Path, str]]:
    """Validation pictures with their synsets, "" where there is none."""
    flat = picture_files(val)
    if not flat:
        return [(file, path.name) for path in sorted(val.iterdir()) if path.is_dir() for file in picture_files(path)]
    table = next((path for path in (folder / SOLUTION, val.parent / SOLUTION) if path.is_file()), None)
    if table is None:
        raise InputError(
            f"{val}: pictures without folders of synsets need {SOLUTION} in {folder}; the development kit's ground "
            "truth counts synsets in an order of its own and is not read"
        )
    with open(table, newline="", encoding="utf-8") as stream:
        said = {row["ImageId"]: row["PredictionString"].split(maxsplit=1)[0] for row in csv.DictReader(stream)}
    return [(file, said.get(file.stem, "")) for file in flat]
