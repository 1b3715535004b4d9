"""What waits for a person: open interrupts as rows, kept current by a thread, and answering them.

Reads and writes go through ``flowdeck.durable.ControlClient``: an answer is an inbox row with a dedup key, applied only
by the execution's owner, so the first answer wins whoever sends it (DESIGN §4).
"""

from __future__ import annotations

import getpass
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flowdeck_devtools.core.clock import Clock, SystemClock
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean

__all__ = ["AnswerReport", "Inbox", "InterruptRow", "login_name"]

LOOK_SECONDS = 0.15
"""How often the control file is checked for a change (two ``stat`` calls)."""
FULL_LOOK_SECONDS = 5.0
APPLY_SECONDS = 5.0
"""How long an answer may stay unapplied before the person is told that nobody picked it up."""
MAX_ROWS = 2_000

_QUESTIONS = ("question", "title", "message", "prompt", "text", "description")
_OVER = {"resumed": "answered"}


@dataclass(frozen=True, slots=True)
class InterruptRow:
    """One interrupt, from its stored record. Times are microseconds since the epoch."""

    id: str
    type: str = "pause"
    status: str = "waiting"
    payload: Any = None
    schema: Mapping[str, Any] | None = None
    execution_id: str | None = None
    flow: str = ""
    opened_us: int | None = None
    expires_us: int | None = None
    actor: str | None = None
    response: Any = None
    assignees: tuple[str, ...] = ()
    resume_to: Any = None

    @property
    def is_open(self) -> bool:
        return self.status == "waiting"

    @property
    def question(self) -> str:
        """What is asked, in one line."""
        payload = self.payload
        if isinstance(payload, Mapping):
            for key in _QUESTIONS:
                value = payload.get(key)
                if isinstance(value, str) and value:
                    return clean(value)
        if payload is None:
            return self.type
        return clean(payload if isinstance(payload, str) else short_json(payload))

    @property
    def outcome(self) -> str:
        """How it ended, in words: ``ana answered {"decision": "approve"}``."""
        word = _OVER.get(self.status, self.status)
        if self.status == "waiting":
            return "waiting"
        by = f"{self.actor} {word}" if self.actor else word
        answer = f" {short_json(self.response, 80)}" if self.response is not None else ""
        return clean(by + answer)

    @classmethod
    def of(cls, record: Mapping[str, Any], flows: Mapping[str, str] | None = None) -> InterruptRow:
        """The row of a stored record; what is missing or of another type is left out."""
        execution = record.get("execution_id") or record.get("source_execution_id")
        schema, assignees = record.get("schema"), record.get("assignees")
        flow = record.get("source_flow_name") or record.get("flow_name")
        return cls(
            id=str(record.get("id")),
            type=str(record.get("type") or "pause"),
            status=str(record.get("status") or "waiting"),
            payload=record.get("payload"),
            schema=schema if isinstance(schema, Mapping) else None,
            execution_id=str(execution) if execution else None,
            flow=str(flow or (flows or {}).get(str(execution), "")),
            opened_us=_micros(record.get("opened_us"), record.get("created_at")),
            expires_us=_micros(record.get("expires_us"), record.get("expires_at")),
            actor=str(record["actor"]) if record.get("actor") else None,
            response=record.get("response"),
            assignees=tuple(map(str, assignees)) if isinstance(assignees, list | tuple) else (),
            resume_to=record.get("resume_to"),
        )


def _micros(micros: object, seconds: object) -> int | None:
    if isinstance(micros, int) and not isinstance(micros, bool):
        return micros
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return int(seconds * 1e6)
    return None


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """What became of an answer. ``row`` is the interrupt as it stands afterwards."""

    applied: bool
    headline: str
    row: InterruptRow | None = None
    pending: bool = False
    """The answer is kept, but nobody has applied it yet."""


class Client(Protocol):
    """What is needed of ``flowdeck.durable.ControlClient``."""

    def list_executions(self, filter: Mapping[str, Any] | None = None) -> Sequence[Mapping[str, Any]]: ...

    def list_interrupts(self, open_only: bool = True) -> Sequence[Mapping[str, Any]]: ...

    def get_interrupt(self, interrupt_id: str) -> Mapping[str, Any] | None: ...

    def answer(self, interrupt_id: str, value: Any, actor: str, dedup_key: str | None = None) -> Any: ...

    def wait_outcome(self, row_id: int, timeout: float) -> Any: ...


@dataclass
class Inbox:
    """The interrupts of a store. Start it, read ``rows``, call ``answer`` from a worker thread."""

    store: Path
    clock: Clock = field(default_factory=SystemClock)
    open_client: Callable[[Path], Client] | None = None
    rows: tuple[InterruptRow, ...] = ()
    """Waiting first, longest waiting on top; then those that ended, newest first."""
    version: int = 0
    problem: str | None = None
    loaded: threading.Event = field(default_factory=threading.Event)
    """Set once the inbox has been read for the first time."""
    flows: dict[str, str] = field(default_factory=dict)
    """Execution id to flow name."""

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._look_now = threading.Event()
        self._thread: threading.Thread | None = None
        self._mark: tuple[int, ...] = ()
        self._client: Client | None = None

    @property
    def waiting(self) -> int:
        return sum(1 for row in self.rows if row.is_open)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flowdeck-inbox", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        self._stopping.set()
        self._look_now.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def refresh(self) -> None:
        """Look again soon, even if the file did not change."""
        self._mark = ()
        self._look_now.set()

    # -- reading -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        last = 0.0
        while not self._stopping.is_set():
            now = self.clock.monotonic()
            mark = _file_mark(self.store / "state.db")
            if mark != self._mark or now - last >= FULL_LOOK_SECONDS:
                self._mark, last = mark, now
                self.look()
            self._look_now.wait(LOOK_SECONDS)
            self._look_now.clear()

    def look(self) -> None:
        """Read the control store once. Problems end up in ``problem``, not in the caller."""
        if not (self.store / "state.db").exists():
            self.loaded.set()
            return
        try:
            client = self._connected()
            names = {str(record.get("id")): str(record.get("flow_name") or "") for record in client.list_executions()}
            rows = [InterruptRow.of(record, names) for record in client.list_interrupts(open_only=False)]
        except Exception as error:  # whatever the file or its format do, the screen says so and goes on
            self._problem(f"{error}")
            return

        open_rows = sorted((row for row in rows if row.is_open), key=lambda row: (row.opened_us or 0, row.id))
        ended = sorted((row for row in rows if not row.is_open), key=lambda row: -(row.opened_us or 0))
        listed = tuple((open_rows + ended)[:MAX_ROWS])
        if listed != self.rows or names != self.flows or self.problem:
            self.rows, self.flows, self.problem = listed, names, None
            self.version += 1
        self.loaded.set()

    def _problem(self, text: str) -> None:
        if text != self.problem:
            self.problem = text
            self.version += 1
        self.loaded.set()

    def _connected(self) -> Client:
        if self._client is None:
            self._client = (self.open_client or _control_client)(self.store)
        return self._client

    # -- answering ---------------------------------------------------------------------------------------------

    def answer(self, row: InterruptRow, value: Any, actor: str) -> AnswerReport:
        """Send an answer and wait until the owner applied or refused it. Blocks; call it from a worker."""
        client = self._connected()
        before = client.get_interrupt(row.id)
        if before is not None and before.get("status") != "waiting":
            return _too_late(InterruptRow.of(before, self.flows))

        result = client.answer(row.id, value, actor, f"devtools-{secrets.token_hex(8)}")
        outcome = getattr(result, "outcome", None)
        if outcome is None:
            outcome = client.wait_outcome(result.row_id, APPLY_SECONDS)
        detail = getattr(outcome, "detail", None) or getattr(result, "detail", None)
        outcome = getattr(outcome, "outcome", outcome)
        self.refresh()
        record = client.get_interrupt(row.id)
        current = InterruptRow.of(record, self.flows) if record is not None else row
        if outcome == "applied":
            return AnswerReport(True, "answered; the run goes on", current)
        if outcome is None:
            text = "kept, but no process has applied it yet: the run's process may be stopped or gone"
            return AnswerReport(False, text, current, pending=True)
        if outcome in ("conflict", "duplicate") and not current.is_open:
            return _too_late(current)
        return AnswerReport(False, clean(str(detail or f"the run refused it ({outcome})")), current)


def _too_late(row: InterruptRow) -> AnswerReport:
    return AnswerReport(False, f"too late: {row.outcome}", row)


def _control_client(store: Path) -> Client:
    from flowdeck.durable import ControlClient

    client: Client = ControlClient(store)
    return client


def _file_mark(path: Path) -> tuple[int, ...]:
    """Changes whenever somebody commits: in WAL mode a commit grows or rewrites the ``-wal`` file."""
    mark: list[int] = []
    for name in (path, path.with_name(path.name + "-wal")):
        try:
            info = name.stat()
            mark += (info.st_mtime_ns, info.st_size)
        except OSError:
            mark += (0, 0)
    return tuple(mark)


def login_name() -> str:
    """The name under which answers are given unless another is chosen."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
