"""What later sessions need to know of earlier ones: ``<store>/evals/<session>.json``.

Written by :class:`flowdeck_evals.results.Results`, read by ``evals list``, ``--failed-last``, ``--resume`` and ``evals
report``. Everything in it can be had from the store's events, only slower.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from flowdeck.errors import EvalError

__all__ = ["SessionFile", "last_sessions", "read_session", "write_session"]


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
    """Return the newest sessions, newest first: ids are in the order of time. What cannot be read is passed over."""
    return list(islice(_sessions(store, ""), count))


def _sessions(store: Path, beginning: str) -> Iterator[SessionFile]:
    for path in sorted((store / "evals").glob("*.json"), reverse=True):
        if path.name.startswith(beginning):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=SessionFile)
            except (OSError, msgspec.MsgspecError):
                continue


def write_session(store: Path, session: SessionFile) -> None:
    """Write a session's file, whole or not at all.

    Raises:
        OSError: the store cannot be written.
    """
    path = store / "evals" / f"{session.session_id}.json"
    part = path.with_suffix(f".{os.getpid()}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part.write_bytes(msgspec.json.encode(session))
    part.replace(path)


def read_session(store: Path, session_id: str | None) -> SessionFile:
    """Return a session: by id or its beginning, or the newest one.

    Raises:
        EvalError: there is none, or several begin so.
    """
    found = list(islice(_sessions(store, session_id or ""), 100 if session_id else 1))
    if not found:
        raise EvalError(f"no session {session_id or ''} in {store}; `evals run` makes one".replace("  ", " "))

    if session_id and len(found) > 1:
        raise EvalError(f"{len(found)} sessions begin with {session_id!r}")

    return found[0]
