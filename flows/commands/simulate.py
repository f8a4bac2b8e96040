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


def hi(
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for the files [default: skysift_cube]."
    ),
    name: str | None = typer.Option(None, help="Stem of the files [default: cube]."),
    shape: str | None = typer.Option(
        None, metavar="CHANNELS,ROWS,COLUMNS", help="Sides of the cube [default: 512,256,256]."
    ),
    seed: int | None = typer.Option(None, help="Seed; the same one gives the same cube [default: 1]."),
    beam: float | None = typer.Option(None, help="Beam FWHM along the major axis in arcsec [default: 7]."),
    beam_minor: float | None = typer.Option(None, help="Along the minor axis [default: round]."),
    beam_pa: float | None = typer.Option(None, help="Beam's position angle in degrees [default: 0]."),
    pixel_scale: float | None = typer.Option(None, help="Pixel side in arcsec [default: 2.8]."),
    channel_width: float | None = typer.Option(None, help="Channel width in Hz [default: 30000]."),
    first_frequency: float | None = typer.Option(None, help="First channel in Hz [default: 1.0e9]."),
    rms: float | None = typer.Option(None, help="Noise in Jy/beam [default: 2.6e-5]."),
    noise_fall: float | None = typer.Option(
        None, help="Share by which the noise falls along the band [default: 0.1]."
    ),
    density: float | None = typer.Option(None, help="Galaxies per million voxels [default: 1]."),
    lopsided: float | None = typer.Option(None, help="Largest lopsidedness of a disc [default: 0.4]."),
    warp: float | None = typer.Option(None, help="Largest warp of a disc in degrees [default: 20]."),
    hole: float | None = typer.Option(None, help="Largest depth of a disc's central hole [default: 0.9]."),
    variety: float | None = typer.Option(
        None, help="Scatter of discs in shape and dispersion, times the usual [default: 1]."
    ),
    templates: Path | None = typer.Option(
        None, metavar="DIR", help="Make galaxies of SDC2's atlas of real ones in this folder [default: discs only]."
    ),
    template_share: float | None = typer.Option(
        None, help="Share of galaxies made of templates, if given [default: 0.5]."
    ),
    held_out: bool | None = typer.Option(
        None, "--held-out/--not-held-out", help="Only the templates held out, or only the others [default: all]."
    ),
    continuum: float | None = typer.Option(
        None, help="Imperfectly subtracted continuum sources per 10,000 pixels [default: 0.6]."
    ),
    interference: float | None = typer.Option(None, help="Share of channels with interference [default: 0]."),
    flagged: float | None = typer.Option(None, help="Share of channels flagged as NaN [default: 0]."),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options from this file."),
) -> int:
    """Simulate a cube of HI galaxies with its truth table in the SDC2 columns."""
    from flows.settings import resolve_options
    from pipeline.options import SimulateHiOptions

    given = {
        "output": output, "name": name, "shape": shape, "seed": seed, "beam": beam, "beam_minor": beam_minor,
        "beam_pa": beam_pa, "pixel_scale": pixel_scale, "channel_width": channel_width,
        "first_frequency": first_frequency, "rms": rms, "noise_fall": noise_fall, "density": density,
        "lopsided": lopsided, "warp": warp, "hole": hole, "variety": variety, "templates": templates,
        "template_share": template_share, "held_out": held_out, "continuum": continuum,
        "interference": interference, "flagged": flagged,
    }  # fmt: skip
    options = resolve_options(SimulateHiOptions, given, config=config)
    from survey_io.simulate.hi import HiModel, simulate_hi, write_hi

    model = HiModel(**options.model_dump(exclude={"output", "name", "seed"}))
    cube, galaxies = simulate_hi(model, seed=options.seed)
    files = write_hi(model, cube, galaxies, options.output, name=options.name)
    real = int((galaxies.template >= 0).sum())
    print(f"{' x '.join(map(str, model.shape))} voxels, {len(galaxies)} galaxies ({real} of templates)")
    for path in files.values():
        print(f"  {path}")
    return 0


def molecules(
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for the files [default: skysift_spectra]."
    ),
    name: str | None = typer.Option(None, help="Stem of the files [default: molecules]."),
    count: int | None = typer.Option(None, help="Number of spectra [default: 20]."),
    seed: int | None = typer.Option(None, help="Seed; the same one gives the same spectra [default: 1]."),
    lines: Path | None = typer.Option(
        None, metavar="PATH", help="CDMS, JPL or LAMDA files, or a folder of them [default: the lines that ship]."
    ),
    snr: str | None = typer.Option(
        None, metavar="LOW,HIGH", help="S/N of a spectrum's brightest line [default: 2,60]."
    ),
    width: str | None = typer.Option(None, metavar="LOW,HIGH", help="FWHM of lines in km/s [default: 0.8,30]."),
    velocity: float | None = typer.Option(None, help="Largest velocity in km/s [default: 30]."),
    unknown: float | None = typer.Option(None, help="Mean number of lines of unknown molecules [default: 8]."),
    gapped: float | None = typer.Option(None, help="Share of spectra with gaps [default: 0.6]."),
    ripple: float | None = typer.Option(None, help="Share of spectra with standing waves [default: 0.4]."),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options from this file."),
) -> int:
    """Simulate spectra of molecular gas, 35,000 channels from 80 to 115 GHz, with a truth table."""
    from flows.settings import resolve_options
    from pipeline.simulate_options import SimulateMoleculesOptions

    given = {
        "output": output, "name": name, "count": count, "seed": seed, "lines": lines, "snr": snr, "width": width,
        "velocity": velocity, "unknown": unknown, "gapped": gapped, "ripple": ripple,
    }  # fmt: skip
    options = resolve_options(SimulateMoleculesOptions, given, config=config)
    from survey_io.errors import InputError
    from survey_io.line_lists import molecular_lines, read_lines
    from survey_io.simulate.molecules import GRID, MoleculeModel, simulate_molecules, write_molecules
    from survey_io.simulate.receiver import ReceiverModel

    edges = GRID.edges()
    listed = read_lines(options.lines, band=(edges[0], edges[-1])) if options.lines else molecular_lines()
    if not len(listed):
        raise InputError(f"{options.lines}: expected lines between {edges[0]:g} and {edges[-1]:g} GHz, found none")
    model = MoleculeModel(snr=options.snr, width=options.width, velocity=options.velocity, unknown=options.unknown)
    receiver = ReceiverModel(gapped=options.gapped, ripple=options.ripple)
    made = simulate_molecules(options.count, seed=options.seed, model=model, lines=listed, receiver=receiver)
    spectra = list(made)
    files = write_molecules(spectra, options.output, name=options.name, lines=listed)
    seen = sum(int(one.demanded.sum()) for one in spectra)
    print(f"{len(spectra)} spectra of {len(listed.species)} species, {seen} detectable ones in all")
    for path in files.values():
        print(f"  {path}")
    return 0


def transits(
    output: Path | None = typer.Option(
        None, "-o", "--output", help="Folder for the files [default: skysift_light_curves]."
    ),
    name: str | None = typer.Option(None, help="Stem of the files [default: transits]."),
    count: int | None = typer.Option(None, help="Number of light curves [default: 20]."),
    seed: int | None = typer.Option(None, help="Seed; the same one gives the same light curves [default: 1]."),
    transit: float | None = typer.Option(None, help="Share of light curves with a planet [default: 0.4]."),
    binary: float | None = typer.Option(None, help="Share of eclipsing binaries [default: 0.2]."),
    period: str | None = typer.Option(None, metavar="LOW,HIGH", help="Periods in days [default: 0.5,14]."),
    snr: str | None = typer.Option(
        None, metavar="LOW,HIGH", help="S/N of all transits of a planet together [default: 5,50]."
    ),
    bright: float | None = typer.Option(None, help="Share of planets with up to ten times that S/N [default: 0.2]."),
    noise: str | None = typer.Option(
        None, metavar="LOW,HIGH", help="Noise in 10 minutes, in relative flux [default: 5e-5,5e-3]."
    ),
    shape: str | None = typer.Option(None, help="any, box, trapezoid or limb-darkened [default: any]."),
    quiet: bool = typer.Option(False, "--quiet", help="White noise alone: no variability, no systematics."),
    start: float | None = typer.Option(None, help="First bin, BJD - 2457000 in days [default: 1325.3]."),
    config: Path | None = typer.Option(None, metavar="FILE.yaml", help="Read options from this file."),
) -> int:
    """Simulate light curves of 28.4 days in 10-minute bins, planets in transit among them, with a truth table."""
    from flows.settings import resolve_options
    from pipeline.simulate_options import SimulateTransitsOptions

    given = {
        "output": output, "name": name, "count": count, "seed": seed, "transit": transit, "binary": binary,
        "period": period, "snr": snr, "bright": bright, "noise": noise,
        "shape": shape, "quiet": quiet or None, "start": start,
    }  # fmt: skip
    options = resolve_options(SimulateTransitsOptions, given, config=config)
    from survey_io.simulate.star_noise import StarNoiseModel
    from survey_io.simulate.transits import CLASSES, TransitModel, simulate_transits, write_transits

    names = ("transit", "binary", "period", "snr", "bright", "noise", "shape")
    chosen = {name: getattr(options, name) for name in names}
    model = TransitModel(**chosen, star=StarNoiseModel.quiet() if options.quiet else StarNoiseModel())
    curves = list(simulate_transits(options.count, seed=options.seed, model=model))
    files = write_transits(curves, options.output, name=options.name, start=options.start)
    counts = [sum(one.label == label for one in curves) for label in range(len(CLASSES))]
    shares = ", ".join(f"{number} {name}" for name, number in zip(CLASSES, counts, strict=True))
    print(f"{len(curves)} light curves: {shares}")
    for path in files.values():
        print(f"  {path}")
    return 0
