"""Who holds executions: a row with a lease for each process, and how to tell that it is gone before that runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flowdeck.durable.postgres.link import Session
from flowdeck.durable.postgres.schema import NOW
from flowdeck.layout import boot_id, is_locked

__all__ = ["dead_here", "is_alive"]

_HELD: Final = f"SELECT writer, lock FROM owners WHERE boot = %s AND lock IS NOT NULL AND until_us > {NOW}"
_OWNER: Final = f"SELECT until_us > {NOW}, boot, lock FROM owners WHERE writer = %s"


def is_alive(session: Session, writer: str) -> bool:
    """Tell whether a process holds what it holds: its lease runs, and if it is one of this machine it still exists."""
    row: Any = session.ask(_OWNER, (writer,)).fetchone()
    return row is not None and bool(row[0]) and not (row[1] == boot_id() and _is_gone(row[2]))


def dead_here(session: Session) -> list[str]:
    """Return processes of this machine whose lease still runs although they are gone."""
    boot = boot_id()
    if boot is None:
        return []

    return [writer for writer, lock in session.ask(_HELD, (boot,)).fetchall() if _is_gone(lock)]


def _is_gone(lock: str | None) -> bool:
    # A file that is not there proves nothing: the process may see other directories than we do (a container).
    if lock is None:
        return False

    try:
        return Path(lock).exists() and not is_locked(Path(lock))
    except OSError:
        return False
