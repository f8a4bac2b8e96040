"""The options of simulated spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from pipeline.options import Options, _numbers


class SimulateMoleculesOptions(Options):
    """Seeded spectra of molecular gas between 80 and 115 GHz."""

    output: Path = Field(Path("skysift_spectra"), description="Folder for spectra and truth table.")
    name: str = Field("molecules", min_length=1, description="Stem of the files written.")
    count: int = Field(20, ge=1, le=20_000, description="Number of spectra, of 140 kB each.")
    seed: int = Field(1, ge=0, description="Seed of the random generator; the same seed gives the same spectra.")
    lines: Path | None = Field(
        None, description="CDMS, JPL or LAMDA files, or a folder of them; none: the lines that ship."
    )
    snr: Annotated[tuple[float, float], BeforeValidator(_numbers)] = Field(
        (2.0, 60.0), description="Least and greatest S/N of a spectrum's brightest line."
    )
    width: Annotated[tuple[float, float], BeforeValidator(_numbers)] = Field(
        (0.8, 30.0), description="Least and greatest FWHM of lines in km/s."
    )
    velocity: float = Field(30.0, ge=0.0, le=300.0, description="Largest velocity in km/s, to both sides.")
    unknown: float = Field(8.0, ge=0.0, le=1000.0, description="Mean number of lines of unknown molecules.")
    gapped: float = Field(0.6, ge=0.0, le=1.0, description="Share of spectra with gaps, 0 to 1.")
    ripple: float = Field(0.4, ge=0.0, le=1.0, description="Share of spectra with standing waves, 0 to 1.")

    @field_validator("snr", "width")
    @classmethod
    def _ascending(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not 0 < limits[0] <= limits[1]:
            raise ValueError("give LOW,HIGH, both above 0")
        return limits


class SimulateTransitsOptions(Options):
    """Seeded light curves of stars with planets, of eclipsing binaries, and of neither."""

    output: Path = Field(Path("skysift_light_curves"), description="Folder for light curves and truth table.")
    name: str = Field("transits", min_length=1, description="Stem of the files written.")
    count: int = Field(20, ge=1, le=20_000, description="Number of light curves, of 100 kB each.")
    seed: int = Field(1, ge=0, description="Seed of the random generator; the same seed gives the same light curves.")
    transit: float = Field(0.4, ge=0.0, le=1.0, description="Share of light curves with a planet, 0 to 1.")
    binary: float = Field(0.2, ge=0.0, le=1.0, description="Share of eclipsing binaries, 0 to 1.")
    period: Annotated[tuple[float, float], BeforeValidator(_numbers)] = Field(
        (0.5, 14.0), description="Shortest and longest period in days."
    )
    snr: Annotated[tuple[float, float], BeforeValidator(_numbers)] = Field(
        (5.0, 50.0), description="Least and greatest S/N of all transits of a planet together."
    )
    bright: float = Field(0.2, ge=0.0, le=1.0, description="Share of planets with up to ten times the greatest S/N.")
    noise: Annotated[tuple[float, float], BeforeValidator(_numbers)] = Field(
        (5e-5, 5e-3), description="Least and greatest noise in 10 minutes, in relative flux."
    )
    shape: Literal["any", "box", "trapezoid", "limb-darkened"] = Field("any", description="Shape of transits.")
    quiet: bool = Field(False, description="Leave out variability, systematics and further gaps: white noise alone.")
    start: float = Field(1325.3, description="Time of the first bin: BJD - 2457000, days.")
