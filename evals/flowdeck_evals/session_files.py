"""What later sessions need to know of earlier ones: ``<store>/evals/<session>.json``.

Written by :class:`flowdeck_evals.results.Results`, read by ``evals list``, ``--failed-last``, ``--resume`` and ``evals
report``. Everything in it can be had from the store's events, only slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from flowdeck.errors import EvalError

__all__ = ["SessionFile", "last_sessions", "read_session"]


class SessionFile(msgspec.Struct, omit_defaults=True):
    """What later sessions need to know of one."""

    session_id: str
    started_us: int
    suites: dict[str, str]
    """Suite name -> file."""
    level: str | None = None
    rounds: int | None = None
    select: dict[str, list[str]] = {}
    """``tags`` and ``cases`` of the selection."""
    baseline: str | None = None
    only: list[tuple[str, str]] | None = None
    """What ``--failed-last`` chose: ``(suite, case id)``; ``None``: it was not asked."""
    code: int | None = None
    cases: dict[str, dict[str, list[Any]]] = {}
    """Suite -> case id -> ``[hash, state, passed rounds, rounds, control, deterministic, file, line, wall us]``;
    the last is the median of its rounds."""
    git: str | None = None
    """The commit that was checked out."""
    calibration_ns: int | None = None
    """A fixed loop on that machine: how fast it was."""
    shard: tuple[int, int] | None = None
    """``(2, 5)``: the second part of five."""
    case_list: str = ""
    """Hash over all cases of the session, those of other shards included."""


def last_sessions(store: Path, count: int = 20) -> list[SessionFile]:
    """Return the newest sessions, newest first. Files that cannot be read are passed over."""
    out = []
    paths: Sequence[Path] = sorted((store / "evals").glob("*.json"), reverse=True)
    for path in paths[:count]:
        try:
            out.append(msgspec.json.decode(path.read_bytes(), type=SessionFile))
        except (OSError, msgspec.MsgspecError):
            continue

    return sorted(out, key=lambda one: one.started_us, reverse=True)


def read_session(store: Path, session_id: str | None) -> SessionFile:
    """Return a session: by id or its beginning, or the newest one.

    Raises:
        EvalError: there is none, or several begin so.
    """
    found = [
        one
        for one in last_sessions(store, 10_000 if session_id else 20)
        if not session_id or one.session_id.startswith(session_id)
    ]
    if not found:
        raise EvalError(f"no session {session_id or ''} in {store}; `evals run` makes one".replace("  ", " "))

    if session_id and len(found) > 1:
        raise EvalError(f"{len(found)} sessions begin with {session_id!r}")

    return found[0]
