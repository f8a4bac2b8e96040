"""Galaxy Zoo 2: pictures of galaxies with classes or with the votes of the decision tree.

Three layouts are read, whichever a folder has:

- Hart et al. 2016 (MNRAS 461, 3663): ``gz2_hart16.csv`` (also .csv.gz, .fits, .fits.gz) with classes and counts,
  ``gz2_filename_mapping.csv`` (objid, sample, asset_id) and ``images/ASSET_ID.jpg``;
- the Kaggle challenge: ``training_solutions_rev1.csv`` and ``images_training_rev1/GALAXYID.jpg``;
- ``labels.csv`` with GalaxyID and either ``class`` or Kaggle's 37 columns, beside ``images/GALAXYID.jpg``. A column
  ``split`` (train, val, test) is taken as published.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
from astropy.table import Table
from pyarrow import csv as csv_files

from survey_io.datasets.galaxy_tree import ANSWERS, KAGGLE_COLUMNS, QUESTIONS
from survey_io.datasets.pictures import Pictures, Split, drop_leaks, load_pixels, split_by_name
from survey_io.datasets.report import DataReport
from survey_io.errors import InputError

CATALOGUES = ("gz2_hart16.csv", "gz2_hart16.csv.gz", "gz2_hart16.fits", "gz2_hart16.fits.gz")
MAPPING, SOLUTIONS, LABELS = "gz2_filename_mapping.csv", "training_solutions_rev1.csv", "labels.csv"
# What the lecture course sorts galaxies into: ellipticals, spirals without and with a bar.
COARSE_CLASSES = ("E", "S", "SB")
_TEXTS = ("dr7objid", "objid", "rastring", "decstring", "sample", "gz2_class")
_SPLIT_WORDS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def coarse_class(text: str) -> str | None:
    """E, S or SB of a ``gz2_class`` string, None for what is neither (artefacts).

    "SBc2t" is barred; "Ser", an edge-on disc whose bar cannot be seen, is S; "Ei(m)" is E.
    """
    found = re.match(r"SB|S|E", str(text).strip())
    return found.group(0) if found else None


def read_galaxy_zoo(
    folder: str | Path, *, target: str = "classes", side: int = 128, split: Split | None = None, debiased: bool = False,
    without: str | Path | None = None, memory: float = 2.0, verify: bool = True,
) -> Pictures:  # fmt: skip
    """Read Galaxy Zoo 2.

    Parameters
    ----------
    folder : path
        In one of the layouts above.
    target : {"classes", "votes"}
        One label a galaxy, or votes (N, 37) in the order of `survey_io.datasets.galaxy_tree.ANSWERS`: counts where the
        catalogue has them, else cumulative fractions.
    side : int
        Pixels that pictures are reduced to.
    split : Split, optional
    debiased : bool
        Share the votes of each question out by the catalogue's fractions debiased for redshift.
    without : path, optional
        Table (CSV) whose galaxies are left out: those that a network which starts from this one's will be judged on.
    memory : float
        GiB that pixels may take; larger sets stay on disk.
    verify : bool
        Decode those that stay on disk once, to leave out broken ones.

    Raises
    ------
    InputError
        When no layout fits, or there is no label of the kind asked for.
    """
    folder = Path(folder)
    report = DataReport(f"Galaxy Zoo 2 ({folder.name})")
    found = _find_rows(folder, target, debiased, report)
    names, files, texts, votes = found.names, found.files, found.texts, found.votes
    there = np.array([path.is_file() for path in files], bool)
    report.add("label without picture", [name for name, one in zip(names, there, strict=True) if not one], "dropped")
    if not there.any():
        raise InputError(f"{folder}: none of the {len(names):,} labelled galaxies has a picture such as {files[0]}")
    known = {path.name for path in files}
    images = files[0].parent
    spare = sorted(path.name for path in images.iterdir() if path.suffix == files[0].suffix and path.name not in known)
    report.add("picture without label", spare, "dropped")
    good = there.copy()
    classes: tuple[str, ...] = ()
    label = np.full(len(names), -1)
    if target == "classes":
        classes = tuple(one for one in COARSE_CLASSES if one in texts) if set(texts) <= {*COARSE_CLASSES, ""} else ()
        classes = classes or tuple(sorted({text for text in texts if text}))
        label = np.array([classes.index(text) if text else -1 for text in texts])
        report.add("no class", [name for name, one in zip(names, label, strict=True) if one < 0], "dropped")
        good &= label >= 0
    else:
        broken = (
            ~np.isfinite(votes).all(axis=1) | (votes < -1e-6).any(axis=1) | (votes[:, QUESTIONS[0].place].sum(1) <= 0)
        )
        report.add(
            "votes missing or negative", [name for name, one in zip(names, broken, strict=True) if one], "dropped"
        )
        good &= ~broken
        votes = np.clip(votes, 0, None).astype(np.float32)
    if without is not None:
        other = _first_column(Path(without))
        report.add(f"left out for {Path(without).name}", [one for one in names if one in other], "dropped")
        good &= np.array([one not in other for one in names])
    split = split or Split()
    part = split_by_name(names, split)
    if found.part is not None and not split.folds:
        part = found.part
    pictures = Pictures(
        "galaxies of Galaxy Zoo 2 (SDSS)", np.array(names), part, label, classes, side, files=tuple(files), votes=votes,
        report=report,
    ).take(good)  # fmt: skip
    pictures = drop_leaks(load_pixels(pictures, memory=memory, verify=verify))
    pictures.count()
    return pictures


@dataclass(frozen=True)
class _Rows:
    """What tables say: names, files, classes ("" for none) or votes, and published parts."""

    names: list[str]
    files: list[Path]
    texts: list[str]
    votes: np.ndarray | None
    part: np.ndarray | None = None


def _find_rows(folder: Path, target: str, debiased: bool, report: DataReport) -> _Rows:
    """Rows of whichever tables the folder has."""
    catalogue = next((folder / name for name in CATALOGUES if (folder / name).is_file()), None)
    if catalogue is not None:
        return _catalogue_rows(catalogue, target, debiased, report)
    for name, images in ((SOLUTIONS, "images_training_rev1"), (LABELS, "images")):
        if (folder / name).is_file():
            return _label_rows(folder / name, folder / images, target, report)
    raise InputError(
        f"{folder}: no Galaxy Zoo 2 here; expected {CATALOGUES[0]} with {MAPPING} and images/, or {SOLUTIONS} with "
        f"images_training_rev1/, or {LABELS} with images/"
    )


def _catalogue_rows(path: Path, target: str, debiased: bool, report: DataReport) -> _Rows:
    needed = ["gz2_class"] if target == "classes" else _vote_columns(debiased)
    table = read_catalogue(path, columns=needed)
    asset = _mapping(path.with_name(MAPPING))
    objects = [str(one) for one in table["dr7objid"]]
    mapped = np.array([one in asset for one in objects], bool)
    unmapped = [one for one, known in zip(objects, mapped, strict=True) if not known]
    report.add("galaxy without entry in the mapping", unmapped, "dropped")
    table = table[mapped]
    objects = [str(one) for one in table["dr7objid"]]
    files = [path.with_name("images") / f"{asset[one]}.jpg" for one in objects]
    if target == "classes":
        return _Rows(objects, files, [coarse_class(str(one)) or "" for one in table["gz2_class"]], None)
    return _Rows(objects, files, [], catalogue_votes(table, debiased=debiased))


def _label_rows(path: Path, images: Path, target: str, report: DataReport) -> _Rows:
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or []
        rows = list(reader)
    needed = ("class",) if target == "classes" else KAGGLE_COLUMNS
    missing = [name for name in ("GalaxyID", *needed) if name not in columns]
    if missing or not rows:
        raise InputError(
            f"{path}: {len(rows):,} rows; for {target} expected the columns GalaxyID and "
            f"{'class' if target == 'classes' else 'Class1.1 to Class11.6'}, missing {', '.join(missing[:4]) or 'none'}"
        )
    names = [row["GalaxyID"].strip() for row in rows]
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]
    if twice:
        report.add("galaxy in the table more than once, the first row counts", twice, "dropped")
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        rows = [rows[i] for i in sorted(first.values())]
        names = [row["GalaxyID"].strip() for row in rows]
    # Pictures of other formats than the challenge's are found by what is there.
    ending = next((one.suffix for one in sorted(images.glob("*.*")) if one.stem == names[0]), ".jpg")
    files = [images / f"{name}{ending}" for name in names]
    texts = [row["class"].strip() for row in rows] if target == "classes" else []
    votes = np.array([[_number(row[name]) for name in KAGGLE_COLUMNS] for row in rows]) if target == "votes" else None
    published = None
    if "split" in columns:
        words = [_SPLIT_WORDS.get(row["split"].strip().lower(), "") for row in rows]
        if all(words):
            published = np.array(words, dtype="<U10")
    return _Rows(names, files, texts, votes, published)


def read_catalogue(path: str | Path, *, columns: Sequence[str] | None = None) -> Table:
    """The table of Hart et al. 2016, or one of Willett et al. 2013.

    Parameters
    ----------
    path : path
        CSV, packed or not, or FITS.
    columns : sequence of str, optional
        Only these and the object's identifier are read: the whole table has 231 columns of 240,000 rows.

    Returns
    -------
    Table
        Its column ``dr7objid`` has the identifiers of 18 digits as text.

    Raises
    ------
    InputError
        When it cannot be read, or a column is missing.
    """
    path = Path(path)
    try:
        if path.name.endswith((".fits", ".fits.gz")):
            table = Table.read(path, format="fits")
        else:
            # An identifier read as a float would lose its last digits.
            texts = {name: pyarrow.string() for name in _TEXTS}
            wanted = None if columns is None else ["dr7objid", *columns]
            convert = csv_files.ConvertOptions(column_types=texts, include_columns=wanted)
            read = csv_files.read_csv(path, convert_options=convert)
            table = Table({name: read[name].to_numpy() for name in read.column_names})
            for name in table.colnames:
                if table[name].dtype.kind == "O":
                    table[name] = np.array([str(one) for one in table[name]], dtype=np.str_)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected the Galaxy Zoo 2 catalogue, got: {error}") from error
    if "dr7objid" not in table.colnames and "objid" in table.colnames:
        table.rename_column("objid", "dr7objid")
    missing = [name for name in ("dr7objid", *(columns or ())) if name not in table.colnames]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} columns of the Galaxy Zoo 2 catalogue are missing, first {missing[0]}"
        )
    if columns is not None:
        table = table[["dr7objid", *columns]]
    table["dr7objid"] = np.array([str(one).strip() for one in table["dr7objid"]], dtype=np.str_)
    return table


def catalogue_votes(table: Table, *, debiased: bool = False) -> np.ndarray:
    """Votes of catalogue rows, shape (N, 37): how many people gave each answer.

    Parameters
    ----------
    table : Table
        With the columns ``tNN_QUESTION_aMM_ANSWER_count``, and ``..._debiased`` for debiased ones.
    debiased : bool
        Share each question's votes out by its debiased fractions.

    Raises
    ------
    InputError
        When a column is missing.
    """
    missing = [name for name in _vote_columns(debiased) if name not in table.colnames]
    if missing:
        raise InputError(f"Galaxy Zoo 2 catalogue: {len(missing)} columns are missing, first {missing[0]}")
    counts = np.stack([np.asarray(table[f"{stem}_count"], np.float64) for stem in ANSWERS], axis=1)
    if not debiased:
        return counts
    shares = np.stack([np.asarray(table[f"{stem}_debiased"], np.float64) for stem in ANSWERS], axis=1)
    for one in QUESTIONS:
        total = shares[:, one.place].sum(axis=1, keepdims=True)
        # Debiased fractions need not sum to 1; a question without any keeps what was counted.
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = counts[:, one.place].sum(axis=1, keepdims=True) * shares[:, one.place] / total
        counts[:, one.place] = np.where(total > 0, moved, counts[:, one.place])
    return counts


def _vote_columns(debiased: bool) -> list[str]:
    return [f"{stem}_count" for stem in ANSWERS] + [f"{stem}_debiased" for stem in ANSWERS if debiased]


def _mapping(path: Path) -> dict[str, str]:
    """Number of the picture of each object."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return {row["objid"].strip(): row["asset_id"].strip() for row in csv.DictReader(stream)}
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: expected the columns objid, sample, asset_id, got: {error}") from error


def _first_column(path: Path) -> set[str]:
    """Names in the first column of a table."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return {row[0].strip() for row in csv.reader(stream) if row}
    except OSError as error:
        raise InputError(f"{path}: expected a table of galaxies to leave out, got: {error}") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
