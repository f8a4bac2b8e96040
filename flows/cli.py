"""The ``skysift`` command. Nothing heavy is imported here, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

import typer

from . import environment as environment
from .commands import (
    bench,
    classify,
    clean,
    crossmatch,
    demo,
    detect,
    doctor,
    evaluate,
    export,
    hats,
    http,
    listing,
    query,
    registry,
    serve,
    simulate,
    survey,
    train,
)
from .server import exit_on_sigterm

app = typer.Typer(
    name="skysift",
    help="From survey images to source catalogues.",
    no_args_is_help=True,
    add_completion=False,
    # Plain text: half the start-up time, and square brackets in help texts stay.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
simulate_app = typer.Typer(
    help="Simulate a sky with a truth table.", no_args_is_help=True, rich_markup_mode=None
)
models_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
survey_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command("detect")(detect.detect)
app.command("classify")(classify.classify)
app.command("serve")(serve.serve)
app.command("http")(http.http)
app.add_typer(simulate_app, name="simulate")
simulate_app.command("continuum")(simulate.continuum)
simulate_app.command("hi")(simulate.hi)
simulate_app.command("molecules")(simulate.molecules)
simulate_app.command("transits")(simulate.transits)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.add_typer(models_app, name="models")
models_app.callback()(listing.models)
models_app.command("show")(registry.show)
models_app.command("promote")(registry.promote)
models_app.command("rollback")(registry.rollback)
app.command("demo")(demo.demo)
app.command("query")(query.query)
app.command("crossmatch")(crossmatch.crossmatch)
app.add_typer(survey_app, name="survey")
for _command in (survey.status, survey.runs, survey.add, survey.use, survey.forget, survey.migrate):
    survey_app.command(_command.__name__)(_command)
survey_app.command("export-hats")(hats.export_hats)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("clean")(clean.clean)


@simulate_app.callback()
def _simulate() -> None:
    """Simulate a sky with a truth table."""


@survey_app.callback()
def _survey() -> None:
    """Look after the survey's store: all observations, runs and sources."""


def _show_version(value: bool) -> None:
    if value:
        try:
            typer.echo(f"skysift {version('skysift')}")
        except PackageNotFoundError:
            typer.echo("skysift (run from a folder, not installed)")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    """From survey images to source catalogues."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its status: 0 good, 1 a defect, 2 bad input, 130 interrupted."""
    exit_on_sigterm()
    _set_up_messages()
    try:
        status = app(args=arguments, prog_name="skysift", standalone_mode=False)
    except KeyboardInterrupt:
        _complain("interrupted; the same command continues where it stopped", kind="")
        status = 130
    except Exception as error:
        status = _explain(error)
    sys.stdout.flush()
    raise SystemExit(status if isinstance(status, int) else 0)


def _explain(error: Exception) -> int:
    """Say in one line what is wrong; return the exit status."""
    from survey_io.errors import SkysiftError

    if isinstance(error, SkysiftError):
        _complain(str(error))
        return 2
    if isinstance(error, typer.Abort):
        _complain("interrupted", kind="")
        return 130
    # Typer carries its own copy of click since 0.20 and used click itself before: no common class to name.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        message = " ".join(error.format_message().split())
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
        elif message:
            context = getattr(error, "ctx", None)
            hint = f" (see '{context.command_path} --help')" if context is not None else ""
            _complain(message + hint)
        return 2
    if os.environ.get("SKYSIFT_DEBUG"):
        raise error
    if isinstance(error, BrokenPipeError):
        # The reader of the output left (| head); closing a broken pipe again would print a traceback.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 1
    if isinstance(error, OSError) and error.strerror:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return 2
    detail = " ".join(str(error).split())
    _complain(f"{type(error).__name__}: {detail} (a defect of skysift: SKYSIFT_DEBUG=1 shows the trace)")
    return 1


def _complain(message: str, *, kind: str = "error: ") -> None:
    from survey_io.names import printable

    print(f"skysift: {kind}{printable(message)}", file=sys.stderr, flush=True)


class _OneLine(logging.Formatter):
    """Log records as the other messages look: one line that begins with the command's name."""

    def format(self, record: logging.LogRecord) -> str:
        """Return ``skysift: level: message``."""
        from survey_io.names import printable

        return f"skysift: {record.levelname.lower()}: {printable(' '.join(record.getMessage().split()))}"


def _set_up_messages() -> None:
    if not sys.warnoptions and not os.environ.get("SKYSIFT_DEBUG"):
        # Header repairs and the like: what matters of them is in the manifest's notes.
        warnings.simplefilter("ignore")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    for name in ("skysift", "survey_io", "models", "pipeline", "flows"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False


if __name__ == "__main__":
    main()
