"""Trained weights by name: a safetensors file, and a card that says which network it fits and what it is.

``models/weights/NAME.safetensors`` is shipped with ``NAME.json``. The same card is in the metadata of the
safetensors file, so that a single file is enough for ``--model FILE.safetensors``; the JSON beside it is for
readers and adds the file's SHA-256, which is checked when the weights are loaded by name.

A name stands for the version in use of the user's retrained weights (`models.store`) where one was promoted, else for
the shipped weights; ``NAME@3`` and ``NAME@shipped`` stand for just these.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.in_use import usage
from models.registry import get_model, list_models, unknown_name
from models.store import SHIPPED, get_version, list_stored, list_versions, read_record, split_name
from survey_io.errors import InputError, OptionError, OutputError

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_FOLDER = Path(__file__).with_name("weights")
SUFFIX = ".safetensors"
_METADATA_KEY = "skysift"


@dataclass(frozen=True)
class Card:
    """What a set of weights is and how it came about.

    Attributes
    ----------
    model : str
        Name of the architecture, as `models.registry.list_models` has it.
    options : dict
        Architecture options that the builder was called with.
    input_scaling : str
        What the network expects as input.
    trained_on : str
        The sky, and how much of it.
    seed : int or None
        Seed of the training run.
    command : str
        The command that makes the same weights again.
    cost : str
        Time and machine of the training.
    score : dict
        Measured quality, each entry with what it was measured on in its name.
    threshold : float or None
        Default detection threshold.
    calibration : dict
        What turns scores into probabilities, and measured values into recommended ones.
    sha256 : str
        Hash of the safetensors file; empty inside the file itself.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    input_scaling: str = "background-subtracted image over local rms, blanks 0"
    trained_on: str = ""
    seed: int | None = None
    command: str = ""
    cost: str = ""
    score: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def list_weights() -> list[str]:
    """Names of the shipped weights, sorted."""
    return sorted(path.stem for path in WEIGHTS_FOLDER.glob(f"*{SUFFIX}"))


def find_weights(name_or_path: str | os.PathLike[str]) -> Path:
    """The safetensors file that a name or path stands for.

    Parameters
    ----------
    name_or_path : str or path
        A path (with a folder, or ending in .safetensors), ``NAME@3``, ``NAME@shipped`` or ``NAME``.

    Raises
    ------
    OptionError
        For a name or version that there is not.
    InputError
        For a path that does not exist.
    """
    text = os.fspath(name_or_path)
    if is_path(text):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{text}: no such weights file; shipped weights are {', '.join(list_weights())}")
        return path
    name, _, version = exact_name(text).partition("@")
    if version and version != SHIPPED:
        return get_version(name, int(version)).weights
    path = WEIGHTS_FOLDER / f"{name}{SUFFIX}"
    if not path.is_file():
        versions = list_versions(name)
        if versions:
            label = f"{name}@{versions[-1]}"
            raise OptionError(
                f"model {text!r}: no weights of that name are shipped and none of its {len(versions)} versions is in "
                f"use: name one, as {label}, or put it to use with 'skysift models promote {label}'"
            )
        if name in list_models():
            entry = get_model(name)
            reason = "no weights are shipped for it: train them" if entry.has_weights else "it has no weights"
            shipped = ", ".join(list_weights()) or "(none)"
            raise OptionError(f"model {text!r}: {reason}, or name one of {shipped}")
        raise OptionError(unknown_name("model", text, sorted({*list_weights(), *list_stored(), *list_models()})))
    return path


def is_path(text: str) -> bool:
    """Whether a model is named by its file."""
    return text.endswith(SUFFIX) or os.sep in text


def exact_name(name_or_path: str | os.PathLike[str]) -> str:
    """What a name stands for now: ``NAME@3`` where that version is in use, else as it came.

    A run that asks for this first keeps its network when another is promoted meanwhile.
    """
    text = os.fspath(name_or_path)
    if is_path(text):
        return text
    name, version = split_name(text)
    if version is None:
        version = usage(name).version
        return text if version is None else f"{name}@{version}"
    return text


def needs_weights(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether a name or path stands for a network, without loading torch for those that are shipped."""
    text = os.fspath(name_or_path)
    if is_path(text) or "@" in text or text in list_weights() or list_versions(text):
        return True
    try:
        return get_model(text).has_weights
    except OptionError:
        # Whoever looks for its weights says which names there are.
        return True


def load_weights(name_or_path: str | os.PathLike[str]) -> tuple[nn.Module, Card]:
    """Build a network and fill in its trained weights.

    Parameters
    ----------
    name_or_path : str or path
        A name of `list_weights`, or a safetensors file written by `save_weights`.

    Returns
    -------
    module : nn.Module
        In evaluation mode, on the processor.
    card : Card
        With the file's SHA-256.

    Raises
    ------
    OptionError
        For an unknown name.
    InputError
        For a file that is missing, damaged, not the one its card describes, or of another network.
    """
    path = find_weights(name_or_path)
    tensors, metadata = _read(path)
    card = checked_card(path, _card_from(metadata.get(_METADATA_KEY), path))
    if card.model not in list_models():
        raise InputError(f"{path}: {unknown_name('model', card.model, list_models())}")
    try:
        module = get_model(card.model).build(**card.options)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: model {card.model!r} cannot be built with the options {card.options}: {error}"
        ) from error
    _fill(module, tensors, path)
    return module.eval(), card


def checked_card(path: Path, card: Card | None = None) -> Card:
    """The card beside shipped or stored weights, whose hash must be right, or the one given, or the file's own."""
    stored = read_record(path.parent)
    if stored is not None:
        stored.verify_file(path.name)
        stored.verify_file(path.with_suffix(".json").name)
        return replace(read_card(path), sha256=stored.files[path.name])
    digest = file_sha256(path)
    beside = path.with_suffix(".json")
    if path.parent == WEIGHTS_FOLDER and beside.is_file():
        card = read_card(path)
        if card.sha256 != digest:
            raise InputError(
                f"{path}: SHA-256 {digest[:12]}... is not the {card.sha256[:12]}... of its card "
                f"{beside.name}: the file is damaged or of another version; install again"
            )
    return replace(card or read_card(path), sha256=digest)


def read_card(name_or_path: str | os.PathLike[str]) -> Card:
    """The card of a set of weights, without loading torch: the JSON beside the file, else the file's own."""
    path = find_weights(name_or_path)
    beside = path.with_suffix(".json")
    if beside.is_file() and (path.parent == WEIGHTS_FOLDER or read_record(path.parent) is not None):
        return _card_from(beside.read_text(encoding="utf-8"), beside)
    return replace(_card_from(_read_metadata(path).get(_METADATA_KEY), path), sha256=file_sha256(path))


def save_weights(module: nn.Module, card: Card, path: str | os.PathLike[str], *, half: bool = False) -> Card:
    """Write a network's weights and the card beside them.

    Both files are replaced in one step each, so that a reader never sees half of one.

    Parameters
    ----------
    module : nn.Module
        Its weights are written in float32, in which they are loaded.
    card : Card
        Its ``model`` and ``options`` must rebuild the network.
    path : path
        Ends in .safetensors; the card goes to the same name with .json.
    half : bool
        Written in float16 instead, half the size; they must have been rounded so before anything was measured.

    Returns
    -------
    Card
        With the SHA-256 of the file.

    Raises
    ------
    OptionError
        For a path with another ending, and for weights that float16 would change.
    OutputError
        When a file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != SUFFIX:
        raise OptionError(f"{path}: weights are written to a file ending in {SUFFIX}")
    card = replace(card, sha256="")
    tensors = {}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            exact = tensor.float()
            tensor = exact.half() if half else exact
            if half and not exact.equal(tensor.float()):
                raise OptionError(f"{path}: float16 would change {name!r}: round the weights, and measure them again")
        tensors[name] = tensor.contiguous().clone()
    data = save(tensors, metadata={_METADATA_KEY: _to_json(card)})
    card = replace(card, sha256=hashlib.sha256(data).hexdigest())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        write_whole(path.with_suffix(".json"), (_to_json(card) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot write weights: {error.strerror or error}") from error
    return card


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a passing name and move it into place."""
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        passing.write_bytes(data)
        os.replace(passing, path)
    finally:
        passing.unlink(missing_ok=True)


def _to_json(card: Card) -> str:
    return json.dumps(asdict(card), indent=2, sort_keys=False, allow_nan=False)


def _card_from(text: str | None, path: Path) -> Card:
    if text is None:
        raise InputError(f"{path}: no skysift card in the metadata: expected a file written by skysift train")
    try:
        values = json.loads(text)
        known = {entry.name for entry in fields(Card)}
        unknown = sorted(set(values) - known)
        if unknown:
            names = ", ".join(unknown)
            raise InputError(f"{path}: card has unknown entries {names}: written by a later version?")
        return Card(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: unreadable card: {error}") from error


def _read_metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as stream:
            return stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = _read_metadata(path)
    try:
        return load_file(path), metadata
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a readable safetensors file, damaged or of another format ({error})")


def _fill(module: nn.Module, tensors: dict[str, Any], path: Path) -> None:
    """Copy tensors into a network that must have exactly these names and shapes."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    came = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [name for name in expected if came.get(name) != expected[name]]
    extra = sorted(set(came) - set(expected))
    if wrong or extra:
        name = (wrong or extra)[0]
        raise InputError(
            f"{path}: {len(wrong) + len(extra)} tensors do not fit model {module.name!r}, first {name!r}: "
            f"expected shape {expected.get(name, 'no such tensor')}, came {came.get(name, 'no such tensor')}"
        )
    module.load_state_dict(tensors)
