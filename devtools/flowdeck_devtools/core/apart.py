"""The past, asked in a child process: the window keeps neither DuckDB's memory nor its hold on the interpreter."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from flowdeck.layout import StoreError
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.past import GivenUp, Wanted

__all__ = ["ApartReader", "Places"]

_MODULE = "flowdeck_devtools.core.past"
REST_SECONDS = 5.0
"""How long a child waits for another question. To start one takes 0.2 s, most of it for loading DuckDB."""
CHILDREN = 2
"""How many read at once in one window; each takes 200 MB while it does."""
STOP_SECONDS = 2.0
"""How long a window that closes waits for children it has killed, to clear up behind them."""
WORDS = 300
"""How much is told of what a child said last."""


class _Ended(StoreError):
    """The child is gone and has not said why."""


class _Child:
    """One process that answers one question at a time."""

    def __init__(self, store: Path) -> None:
        from flowdeck_sinks.store._duckdb import spill_place

        self._spill = spill_place()
        # -P: a file beside the person must not stand in for a library. In the window's own session, so that it goes
        # with the terminal; when the window goes, it reads the end of its input or fails to write.
        command = [sys.executable, "-P", "-m", _MODULE, str(store), self._spill]
        pipe, own = subprocess.PIPE, {**os.environ, "PYTHONPATH": import_path(sys.path)}
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=own)
        self._asking, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._said = b""
        self._hearing = threading.Thread(target=self._hear, name="flowdeck-past-words", daemon=True)
        self._hearing.start()
        self.is_free = True
        """Its last answer was read to the end."""

    def _hear(self) -> None:
        """Keep the last line of what it has to say beside its answers; a full pipe would stop it."""
        with cast(IO[bytes], self._process.stderr) as errors:
            while line := errors.readline(4096):
                self._said = line.strip() or self._said

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
            self._hearing.join(1.0)
            said = self._said.decode("utf-8", "replace")[:WORDS]
            words = f" and said last: {said}" if said else ""
            raise _Ended(f"the process that reads the store ended (code {code}){words}; ask again") from None
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
        self._clear_up()
        for pipe in (self._asking, self._answers):
            with suppress(OSError, ValueError):
                pipe.close()
        return code

    def clear_up(self, timeout: float) -> None:
        """Wait for one that was killed and remove what it left on the disk, while another thread may end it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            self._clear_up()

    def _clear_up(self) -> None:
        shutil.rmtree(self._spill, ignore_errors=True)  # DuckDB's own end removes it, a kill does not


def import_path(places: Sequence[object]) -> str:
    """``PYTHONPATH`` for a child that is to find what this process finds, in folders that may not be the interpreter's.

    The folder one stands in comes last: a file there must not stand in for a library.
    """
    try:
        here: Path | None = Path.cwd()
    except FileNotFoundError:  # it was removed
        here = None
    found: list[str] = []
    beside: list[str] = []
    for place in places:
        if not isinstance(place, str) or os.pathsep in place:
            continue
        whole = here / place if here is not None else Path(place)
        if here is not None and os.path.realpath(whole) == os.path.realpath(here):
            beside = [str(here)]
        elif whole.is_absolute():
            found.append(str(whole))
    return os.pathsep.join(found + beside)


class Places:
    """How many children may still read at once, and the lock of all who share them: the stores of one window."""

    def __init__(self, free: int = CHILDREN) -> None:
        self.free = free
        self.changing = threading.Condition()
        """Held for moments only: whoever closes a run waits for it."""


class ApartReader:
    """Asks as ``PastReader`` answers, but in a child process that ends a few seconds after its last answer."""

    def __init__(self, store: Path, places: Places | None = None) -> None:
        self.store = store
        self._places = places or Places()
        self._changing = self._places.changing
        self._busy: set[_Child] = set()
        self._resting: tuple[_Child, threading.Timer] | None = None
        self._stopped = False

    def stop(self) -> None:
        """The window closes: whatever is being asked ends, and nothing is asked any more."""
        with self._changing:
            self._stopped = True
            busy = tuple(self._busy)
            for child in busy:
                child.kill()
            self._changing.notify_all()
        until = time.monotonic() + STOP_SECONDS
        for child in busy:  # here: the threads that ask end with the window
            child.clear_up(max(0.0, until - time.monotonic()))
        self._let_go()

    def lines(
        self, root_run_id: str, limit: int, wanted: Wanted | None = None
    ) -> Generator[list[tuple[str, bytes]], None, None]:
        return self._ask("lines", root_run_id, limit, wanted=wanted)

    def runs(
        self, filter_text: str, before_us: int | None, limit: int, resumable: Sequence[str]
    ) -> Iterator[list[RunRow]]:
        return self._ask("runs", filter_text, before_us, limit, resumable)

    def definition(self, fingerprint: str) -> Iterator[Mapping[str, Any] | None]:
        return self._ask("definition", fingerprint)

    def error_groups(self, limit: int) -> Iterator[list[dict[str, Any]]]:
        return self._ask("error_groups", limit)

    def _ask(self, name: str, *arguments: object, wanted: Wanted | None = None) -> Generator[Any, None, None]:
        wanted = wanted or Wanted()
        for is_last in (False, True):
            child, begun = self._taken(wanted), False
            try:
                with wanted.ended_by(child.kill):
                    for part in child.ask(name, arguments):
                        begun = True
                        yield part
                return
            except _Ended:  # killed at rest by a system short of memory, or so: another one may do
                if begun or is_last or self._stopped or wanted.is_given_up:
                    raise
            finally:
                self._give_back(child)

    def _taken(self, wanted: Wanted) -> _Child:
        """A child at rest or a new one, as soon as there is a place for it."""
        with wanted.ended_by(self._wake), self._changing:
            self._changing.wait_for(lambda: self._places.free or self._stopped or wanted.is_given_up)
            if self._stopped:
                raise StoreError("the window closes")
            if wanted.is_given_up:
                raise GivenUp("nobody wants the answer any more")
            self._places.free -= 1
            resting, self._resting = self._resting, None
            if resting is not None:
                self._busy.add(resting[0])
        if resting is not None:
            resting[1].cancel()
            return resting[0]
        try:
            child = _Child(self.store)  # takes its time
        except BaseException:
            self._leave()
            raise
        with self._changing:
            self._busy.add(child)
            stopped = self._stopped
        if stopped:  # too late to have been killed with the others
            self._give_back(child)
            raise StoreError("the window closes")
        return child

    def _give_back(self, child: _Child) -> None:
        """Let it rest for the next question, unless another one rests or its answer was not read to the end."""
        with self._changing:
            rests = child.is_free and self._resting is None and not self._stopped
            if rests:
                timer = threading.Timer(REST_SECONDS, self._let_go, [child])
                timer.daemon = True
                self._resting = (child, timer)
                timer.start()
                self._leave(child)
        if not rests:
            child.end()
            self._leave(child)

    def _leave(self, child: _Child | None = None) -> None:
        """Free the place of a child that rests or has ended, or of one that never began."""
        with self._changing:
            if child is not None:
                self._busy.discard(child)
            self._places.free += 1
            self._changing.notify_all()

    def _wake(self) -> None:
        with self._changing:
            self._changing.notify_all()

    def _let_go(self, only: _Child | None = None) -> None:
        with self._changing:
            if self._resting is None or only not in (None, self._resting[0]):
                return
            child, timer = self._resting
            self._resting = None
        timer.cancel()
        child.end()
