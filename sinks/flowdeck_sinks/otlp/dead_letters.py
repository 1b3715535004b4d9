"""Batches a collector refused for good: kept as files, so that they can be listed, mended and sent again.

Below ``<store>/quarantine/otlp/``: ``<ms>-<pid>-<n>-<signal>.otlp`` is the request's body as it was sent,
``….json`` says when, where to, why, and how many items. Bounded: the oldest go first.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from flowdeck.layout import Layout, write_file

__all__ = ["DeadLetter", "DeadLetters", "dead_letter_directory"]

LIMIT_FILES: Final = 500
LIMIT_BYTES: Final = 256 * 1024 * 1024

_numbers: Final = count(1)


class DeadLetter(NamedTuple):
    """One refused request."""

    path: Path
    """The body: an ``Export*ServiceRequest``."""
    signal: str
    items: int
    bytes: int
    time_us: int
    reason: str
    endpoint: str


def dead_letter_directory(layout: Layout) -> Path:
    """Return where a store's dead letters lie."""
    return layout.root / "quarantine" / "otlp"


class DeadLetters:
    """Keeps refused requests in a directory; without one they are only counted. Never raises.

    Args:
        directory: made when the first letter comes.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.kept = 0
        self.lost = 0
        """Letters that could not be kept: no directory, or the disk refused."""

    def keep(self, signal: str, body: bytes, items: int, reason: str, endpoint: str) -> None:
        """Keep one request."""
        if self.directory is None:
            self.lost += 1
            return

        stem = f"{time.time_ns() // 1_000_000:013d}-{os.getpid()}-{next(_numbers)}-{signal}"
        about = {
            "signal": signal,
            "items": items,
            "bytes": len(body),
            "time_us": time.time_ns() // 1000,
            "reason": reason,
            "endpoint": endpoint,
        }
        try:
            self.directory.mkdir(0o700, parents=True, exist_ok=True)
            write_file(self.directory / f"{stem}.otlp", body)
            write_file(self.directory / f"{stem}.json", json.dumps(about).encode() + b"\n")
        except OSError:
            self.lost += 1
            return

        self.kept += 1
        self._bound()

    def list(self) -> list[DeadLetter]:
        """Return the letters, oldest first."""
        if self.directory is None:
            return []

        out: list[DeadLetter] = []
        for path in sorted(self.directory.glob("*.otlp")):
            with suppress(OSError):
                size = path.stat().st_size
                about = _about(path)
                out.append(
                    DeadLetter(
                        path,
                        str(about.get("signal") or path.stem.rpartition("-")[2]),
                        _number(about.get("items")),
                        size,
                        _number(about.get("time_us")),
                        str(about.get("reason") or "unknown"),
                        str(about.get("endpoint") or ""),
                    )
                )

        return out

    def remove(self, letter: DeadLetter) -> None:
        """Delete a letter, for instance because it was sent."""
        for path in (letter.path, letter.path.with_suffix(".json")):
            with suppress(OSError):
                path.unlink()

    def _bound(self) -> None:
        letters = self.list()
        size = sum(letter.bytes for letter in letters)
        while letters and (len(letters) > LIMIT_FILES or size > LIMIT_BYTES):
            oldest = letters.pop(0)
            size -= oldest.bytes
            self.remove(oldest)
            self.kept -= 1
            self.lost += 1


def _about(path: Path) -> dict[str, object]:
    try:
        about = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}

    return about if isinstance(about, dict) else {}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
