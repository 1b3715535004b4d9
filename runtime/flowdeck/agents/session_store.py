"""Where sessions are kept: a file of changes for each, which several processes may write at once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from flowdeck.errors import SessionError

__all__ = ["FileSessions", "SessionStore"]

_NAME_BYTES = 180


class SessionStore(Protocol):
    """Keeps the changes of sessions in one order for all who take part."""

    def exchange(
        self, session_id: str, position: int, changes: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], int]:
        """Add ``changes`` and return what others had added since ``position``, and the new position.

        Raises:
            SessionError: the session cannot be read or written. Nothing was added.
        """
        ...


class FileSessions:
    """Sessions in a directory, ``<root>/s-<id>.jsonl``, one change a line.

    What was added survives the process. A line that a killed process left unfinished is cut off.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser()

    def __repr__(self) -> str:
        return f"FileSessions({str(self.root)!r})"

    def path(self, session_id: str) -> Path:
        """Return the file of a session."""
        name = quote(session_id, safe="")
        if len(name) > _NAME_BYTES:
            name = f"{name[:100]}-{hashlib.sha256(session_id.encode()).hexdigest()}"

        return self.root / f"s-{name}.jsonl"

    def exchange(
        self, session_id: str, position: int, changes: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], int]:
        """Add changes and return those of others; see :class:`SessionStore`."""
        path = self.path(session_id)
        try:
            lines = "".join(json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in changes).encode()
        except (TypeError, ValueError) as problem:
            raise SessionError(f"session {session_id!r} cannot be stored: {problem}") from None

        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(position)
                there = file.read()
                whole = there[: there.rfind(b"\n") + 1]
                if lines:
                    file.seek(position + len(whole))
                    file.truncate()
                    file.write(lines)
                    file.flush()

                return [_change(path, line) for line in whole.splitlines()], position + len(whole) + len(lines)
        except OSError as problem:
            raise SessionError(f"{path} cannot be used: {problem.strerror or problem}") from problem


def _change(path: Path, line: bytes) -> dict[str, Any]:
    try:
        change = json.loads(line)
    except ValueError as problem:
        raise SessionError(f"{path} is no session: {problem}") from None

    if not isinstance(change, dict):
        raise SessionError(f"{path} is no session: a line holds {type(change).__name__}, expected an object")

    return change
