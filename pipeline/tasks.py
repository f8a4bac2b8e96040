"""Many small pieces of work: here, in threads, in processes or on Dask, each finished piece in a ledger.

A kill at any moment loses at most the pieces under way: what the ledger holds is not done again. A piece that takes its
worker with it is tried once more, alone; then the run goes on without it and says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.ledger import Arrays, Ledger
from pipeline.local_workers import Here, Lost, Piece
from survey_io.errors import WorkError


def run_stage(
    stage: str,
    function: Callable[..., Arrays],
    pieces: Sequence[Piece],
    ledger: Ledger,
    *,
    shared: tuple = (),
    client: Any = None,
    advance: Callable[[int], None] | None = None,
    network: bool = False,
    max_missing: float = 0.0,
    where: Callable[..., dict[str, Any]] | None = None,
) -> None:
    """Do what is not yet in the ledger.

    Parameters
    ----------
    stage : str
        Name in the ledger.
    function : callable
        Called as ``function(*shared, *arguments)``; returns arrays. Must be importable on the workers.
    pieces : sequence of (index, arguments)
    ledger : Ledger
        Its ``missing`` gets the pieces that could not be done.
    shared : tuple
        The same for all pieces; sent to each worker once.
    client : Threads, Processes or DaskWorkers, optional
        None runs serially.
    advance : callable, optional
        Told the number of pieces that were finished.
    network : bool
        Whether the pieces need the resources (a GPU) that the cluster's network pieces are bound to.
    max_missing : float
        Share of the pieces, 0 to 1, that may be missing.
    where : callable, optional
        Gives, from a piece's arguments, its place for the list of what is missing.

    Raises
    ------
    WorkError
        When more than the share could not be done. What was done is kept.
    """
    finished = ledger.done(stage)
    todo = [piece for piece in pieces if piece[0] not in finished]
    if advance and finished:
        advance(len(finished))
    client = client or Here()
    way = {"network": True} if network and hasattr(client, "require") else {}
    allowed = int(max_missing * len(pieces))
    suspects: list[tuple[Piece, str]] = []
    missing: list[tuple[Piece, str]] = []

    def accept(piece: Piece, answer: Arrays | Lost, lost: list[tuple[Piece, str]]) -> None:
        if isinstance(answer, Lost):
            lost.append((piece, answer.reason))
            return
        ledger.put(stage, piece[0], answer)
        if advance:
            advance(1)

    for piece, answer in client.results(function, shared, iter(todo), **way):
        accept(piece, answer, suspects)
        # Beside each piece that kills its worker some others may be blamed; so many more mean that all do.
        if len(suspects) > allowed + 50 * max(client.workers, 1):
            raise _too_many(stage, suspects, len(pieces))
    for piece, _ in suspects:
        # It may only have been beside the piece that killed the worker, or too many shared the memory.
        accept(piece, client.alone(function, shared, piece, **way), missing)
        if len(missing) > allowed:
            raise _too_many(stage, missing, len(pieces))
    for (number, arguments), reason in missing:
        place = where(*arguments) if where else {}
        ledger.missing.append({"stage": stage, "piece": number, "reason": reason, **place})


def _too_many(stage: str, lost: list[tuple[Piece, str]], total: int) -> WorkError:
    (number, _), reason = lost[0]
    return WorkError(
        f"{stage}: {len(lost)} of {total} pieces could not be done (piece {number}: {reason}); give workers more "
        "memory or use smaller tiles (--tile, --cube-tile), then run again: what was done is kept",
        stage=stage, missing=[piece[0] for piece, _ in lost], total=total,
    )  # fmt: skip
