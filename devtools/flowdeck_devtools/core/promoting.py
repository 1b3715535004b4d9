"""Keeping a stored run as an eval case: its tape, and a case that replays it, in a suite file beside the flow."""

from __future__ import annotations

from pathlib import Path

from flowdeck_evals.promotion import KeptRun as Promoted
from flowdeck_evals.promotion import RunNotKept as PromotionRefused
from flowdeck_evals.promotion import keep_run
from flowdeck_evals.recording import NoSuchRun, record_stored

__all__ = ["Promoted", "PromotionRefused", "promote"]


def promote(store: Path, run: str, target: str, folder: Path) -> Promoted:
    """Write the run's tape and append a case for it to ``promoted-<flow>.yaml`` in ``folder``.

    The case expects what the run did: its output if it completed, its error if it failed.

    Args:
        target: ``module:flow``; what the run itself tells when empty.

    Raises:
        PromotionRefused: the run has not ended, the store has no such run, the case is there already, or evals refuse
            the suite; the file is as it was.
        StoreError: the store cannot be read.
        OSError: the folder cannot be written.
    """
    try:
        tape = record_stored(store, run, target=target)
    except NoSuchRun as error:
        raise PromotionRefused(str(error)) from None

    return keep_run(tape, folder, target=target)
