"""The options of the service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.options import Options


class ServeOptions(Options):
    """What the service watches, where its results go, and how long it waits. See each field's description."""

    inbox: Path | None = Field(None, description="Folder that is watched; null = only work on what is queued.")
    catalogue: str = Field(
        default_factory=lambda: os.environ.get("SKYSIFT_CATALOGUE") or "skysift_survey",
        min_length=1,
        description="The survey's catalogue: a folder, sqlite:///FILE or postgresql://USER@HOST/NAME; default: the "
        "variable SKYSIFT_CATALOGUE, else skysift_survey.",
    )
    output: Path | None = Field(
        None, description="Folder of results, quarantine and logs; null = the catalogue's folder, else skysift_survey."
    )
    quarantine: Path | None = Field(None, description="Where unreadable files are moved; null = OUTPUT/quarantine.")
    task: Literal["detect", "classify"] = Field(
        "detect", description="What is done with spectra: detect finds their lines, classify names their classes."
    )
    workers: int = Field(
        1, ge=0, le=256, description="Observations worked on at the same time; 0 = only watch the inbox."
    )
    once: bool = Field(False, description="Work on what is there and leave.")
    interval: float = Field(1.0, gt=0.0, le=3600.0, description="Seconds between two looks at the inbox.")
    looks: int = Field(
        3, ge=2, le=1000, description="Looks at which a file must have been the same to count as arrived."
    )
    patience: float = Field(
        600.0, ge=0.0, description="Seconds that a file cut short may stay unchanged before it is put aside."
    )
    timeout: float = Field(
        14400.0, ge=0.0, description="Seconds after which work on one observation is ended; 0 = never."
    )
    attempts: int = Field(
        3, ge=1, le=100, description="How often an observation is tried whose worker died or whose file cannot be read."
    )
    pause: float = Field(
        1.0, gt=0.0, le=3600.0, description="Seconds before the first retry; each further one waits twice as long."
    )
    longest_pause: float = Field(300.0, gt=0.0, description="Longest pause between retries in seconds.")
    grace: float = Field(
        30.0, ge=0.0, description="Seconds that work under way may take after a signal to stop; then it is handed back."
    )

    @property
    def home(self) -> Path:
        """Folder of all that the service writes."""
        if self.output is not None:
            return self.output
        return Path("skysift_survey") if "://" in self.catalogue else Path(self.catalogue)

    @property
    def quarantine_folder(self) -> Path:
        """Folder of what cannot be used."""
        return self.quarantine if self.quarantine is not None else self.home / "quarantine"

    @property
    def results_folder(self) -> Path:
        """Folder of the observations' own folders."""
        return self.home / "results"
