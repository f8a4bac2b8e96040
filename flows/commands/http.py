"""``skysift http``: the survey's pages, cone search and metrics, without processing anything."""

from __future__ import annotations

from pathlib import Path

import typer


def http(
    catalogue: str | None = typer.Option(
        None, metavar="URL", help="The survey's catalogue: a folder, or postgresql://... [default: skysift_survey]."
    ),
    listen: str | None = typer.Option(
        None, metavar="HOST:PORT", help="Where to listen [default: 127.0.0.1:8470, this machine only]."
    ),
    token_file: Path | None = typer.Option(
        None, metavar="FILE", help="Token that changes need [default: SKYSIFT_TOKEN; without one changes are refused]."
    ),
    inbox: Path | None = typer.Option(None, metavar="DIR", help="Folder for uploads [default: none are taken]."),
    root: Path | None = typer.Option(
        None, metavar="DIR", help="Serve files of runs from beneath this folder only [default: where the runs wrote]."
    ),
    host: list[str] = typer.Option(
        [], metavar="NAME", help="Name under which this server may be asked, besides localhost. May be repeated."
    ),
    token: str | None = typer.Option(None, hidden=True),
) -> int:
    """Show the survey in the browser, and answer cone searches.

    Binds to this machine only unless told otherwise: whoever reaches the address can read everything. Stop with
    Ctrl-C.
    """
    from survey_io.errors import OptionError

    if token is not None:
        raise OptionError(
            "--token: a token on the command line is seen by every user of this machine; "
            "put it into a file (--token-file) or into SKYSIFT_TOKEN"
        )
    from flows.http.running import address_of, bind, read_token, run_server

    secret = read_token(token_file)
    if inbox is not None and not inbox.is_dir():
        raise OptionError(f"{inbox}: expected a folder for uploads, there is none; make it first")
    with bind(listen) as bound:
        from flows.http import make_app

        app = make_app(catalogue, token=secret, inbox=inbox, root=root, hosts=host)
        print(f"{app.state.site.store.place}: {address_of(bound)}", flush=True)
        run_server(app, bound)
    return 0
