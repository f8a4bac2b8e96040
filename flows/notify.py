"""Prefect flow: tells people what an automation has seen. Its deployment is what the automation runs."""

from __future__ import annotations

import os

from survey_io.errors import OptionError

from . import environment as environment  # before Prefect, which reads its settings at import

# isort: split
from prefect import flow, get_run_logger
from prefect.states import Completed, Failed, State


@flow(name="notify", retries=3, retry_delay_seconds=30)
def notify(title: str, message: str = "", url: str | None = None) -> State:
    """Send a few lines to whoever looks after the service.

    Parameters
    ----------
    title, message : str
    url : str, optional
        Where to, as Apprise writes it: mailto://, slack://, json://HOST/PATH ...; several with commas between them. By
        default the worker's variable SKYSIFT_NOTIFY, so that no password stands in a deployment; without one the lines
        are logged.

    Returns
    -------
    State
        Failed when they could not be sent; they are tried again then.
    """
    where = url or os.environ.get("SKYSIFT_NOTIFY")
    get_run_logger().error("%s\n%s", title, message)
    if not where:
        return Completed(message="logged only: the worker has no SKYSIFT_NOTIFY")
    return send(title, message, where)


def send(title: str, message: str, url: str) -> State:
    """Send by Apprise.

    Raises
    ------
    OptionError
        For an address that it does not know; the address may hold a password and is not repeated.
    """
    from apprise import Apprise

    sender = Apprise()
    if not sender.add([one.strip() for one in url.split(",")]):
        raise OptionError("SKYSIFT_NOTIFY: expected addresses as Apprise writes them, such as mailto://... or json://...")
    if not sender.notify(title=title, body=message or title):
        return Failed(message="the message could not be sent")
    return Completed(message="sent")
