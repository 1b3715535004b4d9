"""Showing a session while it runs: one living line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from flowdeck_evals.rounds import Round

__all__ = ["Progress", "clean"]

REDRAW: Final = 0.1
PLAIN_SECONDS: Final = 10.0
PLAIN_SHARE: Final = 0.1


def clean(text: str) -> str:
    """Return text on one line without anything a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)


class Progress:
    """A watcher that writes to ``stream`` (stderr): never more than ten times a second on a terminal, and off one a
    line per 10 % or 10 s."""

    def __init__(
        self,
        stream: TextIO | None = None,
        running: Callable[[], Sequence[tuple[str, int, float]]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        terminal: bool | None = None,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty() if terminal is None else terminal
        self._clock = clock
        self.running = running
        self._states: Counter[str] = Counter()
        self._total = self._done = self._before = 0
        self._began = self._drawn = clock()
        self._share = 0.0

    def started(self, total: int, done: int) -> None:
        self._total, self._done, self._before = total, done, done
        self._began = self._drawn = self._clock()
        self._share = done / total if total else 0.0

    def finished(self, round: Round) -> None:
        self._done += 1
        self._states[round.state] += 1
        now = self._clock()
        if self._terminal:
            if now - self._drawn >= REDRAW:
                self._drawn = now
                columns = shutil.get_terminal_size((80, 24)).columns
                self._write("\r" + self.line(now)[: columns - 1].ljust(columns - 1))
        else:
            share = self._done / self._total if self._total else 1.0
            if share - self._share >= PLAIN_SHARE - 1e-9 or now - self._drawn >= PLAIN_SECONDS:
                self._drawn, self._share = now, share
                if now - self._began >= 1.0:  # a session of a moment needs no report of its way
                    self._write(self.line(now) + "\n")

    def ended(self) -> None:
        if self._terminal and self._done > self._before:
            self._write("\r" + " " * (shutil.get_terminal_size((80, 24)).columns - 1) + "\r")

    def line(self, now: float) -> str:
        """Return how far it is: rounds, states, rate, what is left, and what takes longest."""
        done = self._done - self._before
        seconds = max(now - self._began, 1e-9)
        rate = done / seconds
        states = " ".join(f"{state} {count}" for state, count in sorted(self._states.items()))
        left = f" · {_short((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        text = f"{self._done}/{self._total} rounds · {states} · {rate:.0f}/s{left}"
        slow = self.running() if self.running is not None else ()
        if slow and slow[0][2] >= 2.0:
            text += f" · {slow[0][0]} since {_short(slow[0][2])}"

        return clean(text)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _short(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"

    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
