"""``skysift simulate``: skies with a known truth."""

from __future__ import annotations

from pathlib import Path

import typer


def continuum(
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for the files [default: skysift_sky]."
    ),
    name: str | None = typer.Option(None, help="Stem of the files [default: sky]."),
    size: int | None = typer.Option(None, help="Side of the image in pixels [default: 2048]."),
    seed: int | None = typer.Option(None, help="Seed; the same one gives the same sky [default: 1]."),
    beam: float | None = typer.Option(None, help="Beam FWHM in pixels [default: 4]."),
    rms: float | None = typer.Option(None, help="Noise in Jy/beam [default: 5e-7]."),
    pixel_scale: float | None = typer.Option(None, help="Pixel side in arcsec [default: 0.6]."),
    frequency: float | None = typer.Option(None, help="Frequency in Hz [default: 1.4e9]."),
    density: float | None = typer.Option(None, help="Sources above 5 sigma per beam area [default: 0.004]."),
    primary_beam: float | None = typer.Option(
        None, help="FWHM of the primary beam over the image's side [default: none]."
    ),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options from this file."),
) -> int:
    """Simulate a radio-continuum image with its truth table in the SDC1 columns."""
    from flows.settings import resolve_options
    from pipeline.options import SimulateOptions

    given = {
        "output": output, "name": name, "size": size, "seed": seed, "beam": beam, "rms": rms,
        "pixel_scale": pixel_scale, "frequency": frequency, "density": density, "primary_beam": primary_beam,
    }  # fmt: skip
    options = resolve_options(SimulateOptions, given, config=config)
    from survey_io.simulate.continuum import SkyModel, simulate_continuum
    from survey_io.simulate.tables import write_simulation

    simulation = simulate_continuum(
        (options.size, options.size),
        beam_pixels=options.beam,
        seed=options.seed,
        model=SkyModel(density=options.density),
        rms=options.rms,
        pixel_scale=options.pixel_scale,
        frequency=options.frequency,
        primary_beam_fwhm=options.primary_beam,
    )
    files = write_simulation(simulation, options.output, stem=options.name)
    print(f"{options.size} x {options.size} pixels, {len(simulation.truth)} sources")
    for path in files.values():
        print(f"  {path}")
    return 0
