"""The options of each stage: frozen, checked, readable from YAML and written back with the results."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from survey_io.errors import OptionError

AnyModel = TypeVar("AnyModel", bound=BaseModel)
FORMATS = ("fits", "votable", "parquet", "ecsv", "csv", "sdc1", "sdc2")


def split_commas(value: Any) -> Any:
    """Let a comma list on the command line stand for a sequence."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _beam(value: Any) -> Any:
    """Complete ``MAJ[,MIN[,PA]]`` to three numbers: a round beam, position angle 0."""
    parts = split_commas(value)
    if isinstance(parts, (int, float)):
        parts = (parts,)
    if not isinstance(parts, (tuple, list)):
        return parts
    if not 1 <= len(parts) <= 3:
        raise ValueError("give one to three numbers, MAJ[,MIN[,PA]] in arcsec and degrees")
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        raise ValueError("give one to three numbers, MAJ[,MIN[,PA]] in arcsec and degrees") from None
    major = numbers[0]
    minor = numbers[1] if len(numbers) > 1 else major
    angle = numbers[2] if len(numbers) > 2 else 0.0
    if not 0 < minor <= major < float("inf"):
        raise ValueError("axes must satisfy 0 < MIN <= MAJ")
    return (major, minor, angle % 180.0)


def _numbers(value: Any) -> Any:
    """Let a comma list of numbers on the command line stand for a sequence."""
    parts = split_commas(value)
    return tuple(float(part) for part in parts) if isinstance(parts, tuple) else parts


def _amounts(value: Any) -> Any:
    """Let ``GPU=1,MEMORY=2e9`` on the command line stand for a mapping."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in split_commas(value)]
    if not all(name and sign and amount for name, sign, amount in pairs):
        raise ValueError("give NAME=AMOUNT, such as GPU=1")
    return {name.strip(): amount for name, _, amount in pairs}


def whole_or_all(value: Any) -> Any:
    """``all``, or a number of sources; nothing and "none" stand for 0."""
    if value is None:
        return 0
    if isinstance(value, str):
        text = value.strip().lower()
        return "all" if text == "all" else 0 if text == "none" else int(text) if text.isdigit() else value
    return value


def _hdu(value: Any) -> Any:
    """An extension may be given by its number or by its name."""
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)
    return value


def option_title(kind: type[BaseModel]) -> str:
    """Return what a set of options is called in messages and variables: ``DetectOptions`` gives "detect"."""
    return kind.__name__.removesuffix("Options").lower()


def parse_options(
    kind: type[AnyModel], values: dict[str, Any], *, source: str | Mapping[str, str] | None = None
) -> AnyModel:
    """Check values and build a set of options.

    Parameters
    ----------
    kind : type
        The option class.
    values : dict
        Field name to value; text is accepted wherever the command line gives text.
    source : str or mapping, optional
        Where the values come from (a file name), all or each by its field's name, for the message.

    Raises
    ------
    OptionError
        With one line that names the first wrong field, what came and what is allowed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][:1]) or option_title(kind)
    if isinstance(source, Mapping):
        source = source.get(place)
    where = f"{source}: " if source else ""
    if first["type"] == "extra_forbidden":
        raise _unknown(kind, place, where)
    text = first["msg"].removeprefix("Value error, ")
    raise OptionError(f"{where}option {place}: got {first['input']!r}; {text[0].lower()}{text[1:]}")


def _unknown(kind: type[BaseModel], key: Any, where: str) -> OptionError:
    known = ", ".join(kind.model_fields)
    near = difflib.get_close_matches(str(key).lower(), kind.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return OptionError(f"{where}unknown {option_title(kind)} option {key!r}; known: {known}{hint}")


def read_option_values(kind: type[BaseModel], path: str | Path) -> dict[str, Any]:
    """Read the mapping of a YAML file, checked only for unknown keys (other sources may overrule its values).

    Raises
    ------
    OptionError
        When the file cannot be read, is not a YAML mapping, or holds an unknown key.
    """
    values = read_mapping(path)
    check_keys(kind, values, source=str(path))
    return values


def check_keys(kind: type[BaseModel], values: dict[str, Any], *, source: str) -> None:
    """Refuse unknown keys with the known ones and the nearest.

    Raises
    ------
    OptionError
    """
    for key in values:
        if key not in kind.model_fields:
            raise _unknown(kind, key, f"{source}: ")


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds names and values.

    Raises
    ------
    OptionError
        When the file cannot be read or is not a YAML mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise OptionError(f"{path}: cannot read the configuration: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise OptionError(f"{path}: not valid YAML{line}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        came = type(values).__name__
        raise OptionError(f"{path}: expected a mapping of option names to values, got a {came}")
    return values


class Options(BaseModel):
    """Common ground of option sets: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> Self:
        """Read options from a YAML file; keyword arguments win over the file."""
        return parse_options(cls, {**read_option_values(cls, path), **overrides}, source=str(path))

    def to_yaml(self, path: str | Path | None = None) -> str:
        """Return the options as YAML with their descriptions as comments; write them to ``path`` if given."""
        values = self.model_dump(mode="json")
        lines = []
        for name, field in type(self).model_fields.items():
            if field.description:
                lines.append(f"# {field.description}")
            lines.append(yaml.safe_dump({name: values[name]}, default_flow_style=False).rstrip("\n"))
        text = "\n".join(lines) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def with_changes(self, **changes: Any) -> Self:
        """Return a checked copy with some fields changed."""
        return parse_options(type(self), {**self.model_dump(), **changes})


class DetectOptions(Options):
    """How one image, cube or spectrum becomes a catalogue. See each field's description for unit and range."""

    output: Path = Field(Path("skysift_out"), description="Folder for the results; made when missing.")
    model: str = Field(
        "auto",
        min_length=1,
        description="Name of a model, or a weights file (.safetensors); auto = the default for images, cubes or "
        "spectra.",
    )
    engine: Literal["auto", "torch", "onnx", "openvino", "tensorrt"] = Field(
        "auto",
        description="What runs the network; auto takes the fastest that runs here, and the next where it fails; "
        "tensorrt needs a GPU.",
    )
    precision: Literal["auto", "f32", "bf16", "fp16", "int8", "fp8"] = Field(
        "auto",
        description="Arithmetic of the network: f32, bf16 where supported, int8 of a quantised graph (skysift export), "
        "or fp16 on GPUs; auto is f32 unless engine auto gains by another in which the model's catalogue was measured "
        "to stay the same.",
    )
    device: str = Field(
        "auto",
        min_length=3,
        description="Where the network runs: cpu, cuda (all GPUs) or a list such as cuda:0,cuda:1; auto = GPUs where "
        "there are any.",
    )
    passes: int | None = Field(
        None,
        ge=1,
        le=2,
        description="Looks of a network at the data: 2 averages with its answers to the reflected data, for better "
        "values at twice the network's time; null = as the model was calibrated.",
    )
    threshold: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Keep rows with p_real of at least this, 0 to 1; null = the model's own.",
    )
    tile: int = Field(
        1536, ge=64, le=16384, description="Side of a tile's core in pixels, of a spectrum in channels, 64 to 16384."
    )
    cube_tile: Annotated[tuple[int, int] | None, BeforeValidator(split_commas)] = Field(
        None,
        description="A cube's tile: channels and pixels of its core's sides, each 16 to 4096; null = as memory allows.",
    )
    workers: int | None = Field(
        None, ge=1, le=4096, description="Tiles worked on at the same time; null = one per processor core."
    )
    cluster: str | None = Field(
        None,
        min_length=1,
        description="Dask cluster: a name in deploy/clusters, a YAML file, or tcp://host:port.",
    )
    formats: Annotated[tuple[Literal[FORMATS], ...], BeforeValidator(split_commas)] = Field(
        ("fits",), min_length=1, description=f"Catalogue formats, any of {', '.join(FORMATS)}."
    )
    beam: Annotated[tuple[float, float, float] | None, BeforeValidator(_beam)] = Field(
        None, description="Beam MAJ, MIN in arcsec FWHM and PA in degrees; null = from the image."
    )
    primary_beam: Path | None = Field(
        None,
        description="FITS image of the primary beam's response (1 at its centre), for cubes also a cube of it; "
        "null = no correction.",
    )
    hdu: Annotated[int | str | None, BeforeValidator(_hdu)] = Field(
        None, description="Extension to read, by number from 0 or by name; null = the first with an image."
    )
    rest_frequency: float | None = Field(
        None, gt=0.0, description="Rest frequency of a cube's or spectrum's line in Hz; null = from the file."
    )
    cosmology: Annotated[tuple[float, float] | None, BeforeValidator(_numbers)] = Field(
        None, description="H0 in km/s/Mpc and Omega_m of a flat cosmology, for HI masses; null = no masses."
    )
    products: Annotated[Literal["all"] | Annotated[int, Field(ge=0)], BeforeValidator(whole_or_all)] = Field(
        0,
        description="Sources of a cube that get cubelet, moment maps, spectrum and picture: all, or so many of the "
        "highest S/N.",
    )
    resources: Annotated[dict[str, float] | None, BeforeValidator(_amounts)] = Field(
        None, description="What a cluster's workers must offer to run the network, such as GPU=1; null = nothing."
    )
    max_missing: float = Field(
        0.25,
        ge=0.0,
        le=1.0,
        description="Share of the tiles that may be missing, as they kill their workers, before the run fails.",
    )
    fresh: bool = Field(False, description="Forget an interrupted run of the same image and start again.")
    batch: int = Field(1, ge=1, le=256, description="Tiles given to the network at once, 1 to 256.")

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(formats))

    @field_validator("cube_tile")
    @classmethod
    def _tile_sides(cls, sides: tuple[int, int] | None) -> tuple[int, int] | None:
        if sides is not None and not all(16 <= side <= 4096 for side in sides):
            raise ValueError("give CHANNELS,PIXELS, each from 16 to 4096")
        return sides

    @field_validator("cosmology")
    @classmethod
    def _expanding(cls, cosmology: tuple[float, float] | None) -> tuple[float, float] | None:
        if cosmology is not None and not (cosmology[0] > 0 and 0 <= cosmology[1] <= 1):
            raise ValueError("give H0,OMEGA_M with H0 above 0 and OMEGA_M from 0 to 1")
        return cosmology

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide what a tile's result holds: the key of an interrupted run.

        Where results go, how many workers make them and in which formats they are written are left out,
        so that a run may be continued with other workers or another cluster.
        """
        return self.model_dump(
            mode="json",
            exclude={
                "output", "workers", "device", "cluster", "resources", "max_missing", "formats", "fresh",
                "primary_beam", "products",
            },
        )  # fmt: skip


class SimulateOptions(Options):
    """A seeded radio-continuum sky."""

    output: Path = Field(Path("skysift_sky"), description="Folder for image, truth table and primary beam.")
    name: str = Field("sky", min_length=1, description="Stem of the files written.")
    size: int = Field(2048, ge=64, le=65536, description="Side of the image in pixels, 64 to 65536.")
    seed: int = Field(1, ge=0, description="Seed of the random generator; the same seed gives the same sky.")
    beam: float = Field(4.0, ge=1.5, le=32.0, description="Beam's FWHM in pixels, 1.5 to 32.")
    rms: float = Field(5e-7, gt=0.0, description="Noise in Jy/beam.")
    pixel_scale: float = Field(0.6, gt=0.0, le=3600.0, description="Side of a pixel in arcsec.")
    frequency: float = Field(1.4e9, gt=0.0, description="Frequency in Hz, for the header.")
    density: float = Field(
        0.004, gt=0.0, le=0.2, description="Sources above 5 sigma per beam area; SDC1 at 560 MHz: 0.026."
    )
    primary_beam: float | None = Field(
        None,
        gt=0.0,
        le=10.0,
        description="FWHM of a Gaussian primary beam over the image's side; null = none.",
    )


class SimulateHiOptions(Options):
    """A seeded cube of HI galaxies."""

    output: Path = Field(Path("skysift_cube"), description="Folder for cube and truth table.")
    name: str = Field("cube", min_length=1, description="Stem of the files written.")
    shape: Annotated[tuple[int, int, int], BeforeValidator(split_commas)] = Field(
        (512, 256, 256), description="Channels, rows and columns."
    )
    seed: int = Field(1, ge=0, description="Seed of the random generator; the same seed gives the same cube.")
    beam: float = Field(7.0, gt=0.0, description="Beam's FWHM along its major axis in arcsec.")
    beam_minor: float | None = Field(None, gt=0.0, description="Beam's FWHM along its minor axis; none: round.")
    beam_pa: float = Field(0.0, description="Beam's position angle in degrees, east of north.")
    pixel_scale: float = Field(2.8, gt=0.0, description="Side of a pixel in arcsec.")
    channel_width: float = Field(30e3, gt=0.0, description="Channel width in Hz.")
    first_frequency: float = Field(1.0e9, gt=1e8, lt=1.4e9, description="Frequency of the first channel in Hz.")
    rms: float = Field(2.6e-5, gt=0.0, description="Noise of a channel in Jy/beam.")
    noise_fall: float = Field(0.1, ge=0.0, le=1.0, description="Share by which the noise falls along the band.")
    density: float = Field(1.0, gt=0.0, le=50.0, description="Galaxies per million voxels; SDC2 has 1.0.")
    lopsided: float = Field(0.4, ge=0.0, le=0.8, description="Largest lopsidedness of a disc, 0 to 0.8.")
    warp: float = Field(20.0, ge=0.0, le=60.0, description="Largest warp of a disc in degrees.")
    hole: float = Field(0.9, ge=0.0, le=1.0, description="Largest depth of a disc's central hole, 0 to 1.")
    variety: float = Field(
        1.0, ge=0.0, le=3.0, description="Scatter of discs in shape and dispersion, as a multiple of the usual."
    )
    templates: Path | None = Field(None, description="Folder of SDC2's atlas of real galaxies; none: discs only.")
    template_share: float = Field(0.5, ge=0.0, le=1.0, description="Share of galaxies made of templates, if given.")
    held_out: bool | None = Field(None, description="Only the templates held out, or only the others; none: all.")
    continuum: float = Field(
        0.6, ge=0.0, le=50.0, description="Imperfectly subtracted continuum sources per 10,000 pixels of sky."
    )
    interference: float = Field(0.0, ge=0.0, le=0.9, description="Share of channels with interference, 0 to 0.9.")
    flagged: float = Field(0.0, ge=0.0, le=0.9, description="Share of channels flagged for interference, 0 to 0.9.")

    @field_validator("shape")
    @classmethod
    def _sides(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(16 <= side <= 16384 for side in shape):
            raise ValueError("give CHANNELS,ROWS,COLUMNS, each from 16 to 16384")
        return shape
