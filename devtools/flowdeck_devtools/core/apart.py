"""The past, asked in a child process: the window keeps neither DuckDB's memory nor its hold on the interpreter."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from flowdeck.layout import StoreError
from flowdeck_devtools.core.model import RunRow

__all__ = ["ApartReader"]

_MODULE = "flowdeck_devtools.core.past"
REST_SECONDS = 5.0
"""How long a child waits for another question. To start one takes 0.2 s, most of it for loading DuckDB."""


class _Ended(StoreError):
    """The child is gone and has not said why."""


class _Child:
    """One process that answers one question at a time."""

    def __init__(self, store: Path) -> None:
        # -P: a file beside the person must not stand in for a library. In the window's own session, so that it goes
        # with the terminal; when the window goes, it reads the end of its input or fails to write.
        command = [sys.executable, "-P", "-m", _MODULE, str(store)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
        self._asking, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self.is_free = True
        """Its last answer was read to the end."""

    def ask(self, name: str, arguments: tuple[object, ...]) -> Generator[Any, None, None]:
        """The parts of an answer as they come.

        Raises:
            StoreError: What the child said, or that it has ended.
        """
        self.is_free = False
        try:
            self._asking.write(pickle.dumps((name, arguments)))
            self._asking.flush()
            while (answer := pickle.load(self._answers))[0] == "part":
                yield answer[1]
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            with suppress(subprocess.TimeoutExpired):  # it has closed its output and is about to end
                self._process.wait(1.0)
            code = self.end()
            raise _Ended(f"the process that reads the store ended (code {code}); ask again") from None
        self.is_free = True
        if answer[0] == "failed":
            raise StoreError(answer[1])

    def kill(self) -> None:
        """End it from a thread beside the one that reads its answer."""
        self._process.kill()

    def end(self) -> int:
        """End it, whatever it does. Its exit code, any number of times."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._asking, self._answers):
            with suppress(OSError, ValueError):
                pipe.close()
        return code


class ApartReader:
    """Asks as ``PastReader`` answers, but in a child process that ends a few seconds after its last answer."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._changing = threading.Lock()
        self._busy: set[_Child] = set()
        self._resting: tuple[_Child, threading.Timer] | None = None
        self._stopped = False

    def stop(self) -> None:
        """The window closes: whatever is being asked ends, and nothing is asked any more."""
        with self._changing:
            self._stopped = True
            for child in self._busy:
                child.kill()
        self._let_go()

    def lines(self, root_run_id: str, limit: int) -> Iterator[list[tuple[str, bytes]]]:
        return self._ask("lines", root_run_id, limit)

    def runs(
        self, filter_text: str, before_us: int | None, limit: int, resumable: Sequence[str]
    ) -> Iterator[list[RunRow]]:
        return self._ask("runs", filter_text, before_us, limit, resumable)

    def definition(self, fingerprint: str) -> Iterator[Mapping[str, Any] | None]:
        return self._ask("definition", fingerprint)

    def error_groups(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        return self._ask("error_groups", limit)

    def _ask(self, name: str, *arguments: object) -> Iterator[Any]:
        for is_last in (False, True):
            child, begun = self._taken(), False
            try:
                for part in child.ask(name, arguments):
                    begun = True
                    yield part
                return
            except _Ended:  # killed at rest by a system short of memory, or so: another one may do
                if begun or is_last or self._stopped:
                    raise
            finally:
                self._give_back(child)

    def _taken(self) -> _Child:
        with self._changing:
            if self._stopped:
                raise StoreError("the window closes")
            if self._resting is None:
                child = _Child(self.store)
            else:
                child, timer = self._resting
                timer.cancel()
                self._resting = None
            self._busy.add(child)
        return child

    def _give_back(self, child: _Child) -> None:
        """Let it rest for the next question, unless another one rests or its answer was not read to the end."""
        with self._changing:
            self._busy.discard(child)
            rests = child.is_free and self._resting is None and not self._stopped
            if rests:
                timer = threading.Timer(REST_SECONDS, self._let_go, [child])
                timer.daemon = True
                self._resting = (child, timer)
                timer.start()
        if not rests:
            child.end()

    def _let_go(self, only: _Child | None = None) -> None:
        with self._changing:
            if self._resting is None or only not in (None, self._resting[0]):
                return
            child, timer = self._resting
            self._resting = None
        timer.cancel()
        child.end()
