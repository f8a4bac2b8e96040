"""The options of classification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pipeline.options import Options, split_commas, whole_or_all

CLASS_FORMATS = ("fits", "votable", "parquet", "ecsv", "csv")


class ClassifyOptions(Options):
    """How spectra or pictures become a table of classes. See each field's description for unit and range."""

    output: Path = Field(Path("skysift_out"), description="Folder for the results; made when missing.")
    model: str = Field("stellar", min_length=1, description="Name of a classifier, or a weights file (.safetensors).")
    engine: Literal["auto", "torch", "onnx", "openvino", "tensorrt"] = Field(
        "auto",
        description="What runs the network; auto takes the fastest that runs here, and the next where it fails; "
        "tensorrt needs a GPU.",
    )
    precision: Literal["auto", "f32", "bf16", "fp16", "int8", "fp8"] = Field(
        "auto",
        description="Arithmetic of the network: f32, bf16, int8 of a quantised graph, or fp16 on GPUs; auto is f32 "
        "unless engine auto gains by another in which the model's answers were measured to stay the same.",
    )
    device: str = Field("auto", min_length=3, description="Where the network runs: auto, cpu, cuda or cuda:0.")
    threshold: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Of classes that may hold together, name those of at least this probability; null = the model's.",
    )
    workers: int | None = Field(
        None, ge=1, le=4096, description="Files worked on at the same time; null = one per processor core."
    )
    formats: Annotated[tuple[Literal[CLASS_FORMATS], ...], BeforeValidator(split_commas)] = Field(
        ("fits",), min_length=1, description=f"Formats of the table, any of {', '.join(CLASS_FORMATS)}."
    )
    pictures: Annotated[Literal["all"] | Annotated[int, Field(ge=0)], BeforeValidator(whole_or_all)] = Field(
        0, description="Spectra that get a picture: all, or so many of the first."
    )
    hdu: int | str | None = Field(None, description="FITS extension by number from 0 or by name; null = the first.")
    unit: str | None = Field(None, description="Unit of the axis, in place of what the files say.")
    air: bool | None = Field(None, description="Whether wavelengths are of air; null = as the files say.")
    rest_frequency: float | None = Field(None, gt=0.0, description="Hz, for axes in velocity; null = from the file.")
    central: float = Field(
        1.0, gt=0.0, le=1.0,
        description="Central share of a picture's side to classify, where pictures show more sky than the model's.",
    )  # fmt: skip
    fresh: bool = Field(False, description="Forget an interrupted run of the same call and start again.")
