"""``skysift demo``: the whole path on a small simulated sky."""

from __future__ import annotations

from pathlib import Path

import typer


def demo(
    output: Path = typer.Option(
        Path("skysift_demo"), "-o", "--output", help="Folder for everything it makes."
    ),
    model: str = typer.Option("auto", help="Model to detect with; auto is the default for images or for cubes."),
    size: int = typer.Option(1024, min=256, max=8192, help="Side of the sky in pixels; a cube has its own."),
    seed: int = typer.Option(11, min=0, help="Seed of the sky."),
    cube: bool = typer.Option(False, "--cube", help="A cube of HI galaxies instead of an image."),
) -> int:
    """Simulate a small sky, detect its sources, score the catalogue, and say where the picture is."""
    from flows.progress import progress_bar
    from pipeline.demo import CUBE_PRODUCTS, CUBE_SHAPE, run_cube_demo, run_demo

    named = "" if model == "auto" else f" --model {model}"
    if cube:
        sides = " x ".join(map(str, CUBE_SHAPE))
        print(f"simulating a cube of {sides} voxels and looking for its galaxies ...", flush=True)
        with progress_bar("demo") as progress:
            made = run_cube_demo(output, model=model, seed=seed, progress=progress)
        print(made.report)
        table = made.result.table
        names = ["source_id", "ra", "dec", "redshift", "line_flux", "w20", "kin_pa", "snr", "p_real"]
        print(f"\nThe clearest of {len(table)} galaxies:")
        print("\n".join(table[table["snr"].argsort()[::-1][:5]][names].pformat(max_width=-1)))
        print("\n" + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in made.seconds.items()))
        print("\nThe same by hand:")
        print(f"  skysift detect {made.sky['cube']} -o {output} --products {CUBE_PRODUCTS}{named}")
        print(f"  skysift evaluate {made.result.files['fits']} {made.sky['truth']} --scorer sdc2")
        print(f"\nLook at:\n  {made.result.files['quicklook'].resolve()}  (cube with its galaxies)")
        for picture in sorted(made.result.files["products"].glob("*.png")):
            print(f"  {picture.resolve()}  (one galaxy)")
        return 0
    print(
        f"simulating a sky of {size} x {size} pixels and looking for its sources ...",
        flush=True,
    )
    with progress_bar("demo") as progress:
        made = run_demo(output, model=model, size=size, seed=seed, progress=progress)
    print(made.report)
    table = made.result.table
    columns = [name for name in ("name", "flux_best", "snr", "maj_best", "p_real") if name in table.colnames]
    print(f"\nThe brightest of {len(table)} sources:")
    brightest = table[table["snr"].argsort()[::-1][:5]]
    print("\n".join(brightest[columns].pformat(max_width=-1)))
    print("\n" + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in made.seconds.items()))
    print("\nThe same by hand:")
    print(f"  skysift detect {made.sky['image']} -o {output}{named}")
    print(f"  skysift evaluate {made.result.files['fits']} {made.sky['truth']}")
    print("\nLook at:")
    for what, kind in (
        ("image with its sources", "quicklook"),
        ("catalogue", "fits"),
        ("evaluation", "evaluation"),
    ):
        print(f"  {made.result.files[kind].resolve()}  ({what})")
    return 0
