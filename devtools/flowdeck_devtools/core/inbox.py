"""What waits for a person: open interrupts as rows, kept current by a thread, and answering them.

Reads and writes go through ``flowdeck.durable.ControlClient``: an answer is an inbox row with a dedup key, applied only
by the execution's owner, so the first answer wins whoever sends it (DESIGN §4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdeck.errors import FlowdeckError
from flowdeck.layout import StoreError, StoreNotFound
from flowdeck_devtools.core.clock import Clock, SystemClock
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import clean

if TYPE_CHECKING:  # a fifth of the time to the first picture, and the first picture needs none of it
    from flowdeck.durable import ControlClient
    from flowdeck.durable import InterruptRow as Stored

__all__ = ["AnswerReport", "Inbox", "InterruptRow"]

LOOK_SECONDS = 0.25
"""How often the control store is asked whether it changed, while events come."""
QUIET_LOOK_SECONDS = 0.5
"""The same while none does."""
FULL_LOOK_SECONDS = 5.0
APPLY_SECONDS = 5.0
"""How long an answer may stay unapplied before the person is told that nobody picked it up."""
MAX_OPEN = 2_000
MAX_ENDED = 200
MAX_EXECUTIONS = 2_000

_QUESTIONS = ("question", "title", "message", "prompt", "text", "description")
_CONSEQUENCES = ("what_happens", "consequence", "effect", "then")
"""Keys under which a question may say what an answer leads to."""
_OVER = {"resumed": "answered"}


@dataclass(frozen=True, slots=True)
class InterruptRow:
    """One interrupt as the Inbox shows it. Times are microseconds since the epoch."""

    id: str
    execution_id: str
    type: str = "pause"
    status: str = "waiting"
    answered: bool = False
    """An answer was accepted, though the owner may not have applied it yet."""
    owned: bool = True
    """The process that runs the execution lives."""
    payload: Any = None
    schema: Mapping[str, Any] | None = None
    flow: str = ""
    opened_us: int | None = None
    expires_us: int | None = None
    actor: str | None = None
    response: Any = None
    assignees: tuple[str, ...] = ()
    resume_to: Any = None

    @property
    def key(self) -> str:
        """Names it where another execution uses the same id."""
        return f"{self.execution_id}/{self.id}"

    @property
    def is_open(self) -> bool:
        """It can still be answered."""
        return self.status == "waiting" and not self.answered

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
            return clean(self.type)
        return clean(payload if isinstance(payload, str) else short_json(payload))

    @property
    def context(self) -> Any:
        """What comes with the question: the payload without the question itself."""
        payload = self.payload
        if not isinstance(payload, Mapping):
            return payload
        rest = {key: value for key, value in payload.items() if not (key in _QUESTIONS and value == self.question)}
        return rest or None

    @property
    def consequence(self) -> str:
        """What happens after an answer, in words: what the question says itself, else where the run goes on."""
        payload = self.payload
        if isinstance(payload, Mapping):
            for key in _CONSEQUENCES:
                said = payload.get(key)
                if isinstance(said, str) and said:
                    return clean(said)
        match self.resume_to:
            case "self":
                where = "the asking step, which runs again and gets the answer"
            case {"event": str(event)}:
                where = f"whatever listens to {event}"
            case _:
                where = "the step after the one that asks, which gets the answer"
        ran = "" if self.owned else "; nobody runs it now, so the answer is kept for whoever takes it up"
        return clean(f"{self.flow or 'the run'} goes on with {where}{ran}")

    @property
    def outcome(self) -> str:
        """How it ended, in words: ``ana answered {"decision": "approve"}``."""
        if self.is_open:
            return "waiting"
        word = "answered" if self.answered else _OVER.get(self.status, self.status)
        by = f"{self.actor} {word}" if self.actor else word
        answer = f" {short_json(self.response, 80)}" if self.response is not None else ""
        later = "; not applied yet" if self.status == "waiting" else ""
        return clean(by + answer + later)

    @classmethod
    def of(cls, row: Stored, *, owned: bool = True) -> InterruptRow:
        """The row of a stored interrupt."""
        return cls(
            id=row.id,
            execution_id=row.execution_id,
            type=row.type,
            status=row.status,
            answered=row.answered,
            owned=owned,
            payload=row.payload,
            schema=row.schema if isinstance(row.schema, Mapping) else None,
            flow=row.flow_name,
            opened_us=row.opened_us,
            expires_us=row.expires_us,
            actor=row.actor,
            response=row.response,
            assignees=tuple(map(str, row.assignees)),
            resume_to=row.record.get("resume_to"),
        )


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """What became of an answer. ``row`` is the interrupt as it stands afterwards."""

    applied: bool
    headline: str
    row: InterruptRow | None = None
    pending: bool = False
    """The answer is kept, but nobody has applied it yet."""


@dataclass
class Inbox:
    """The interrupts of a store. Start it, read ``rows``, call ``answer`` from a worker thread."""

    store: Path
    clock: Clock = field(default_factory=SystemClock)
    rows: tuple[InterruptRow, ...] = ()
    """Waiting first, longest waiting on top; then those that ended, newest first."""
    version: int = 0
    problem: str | None = None
    loaded: threading.Event = field(default_factory=threading.Event)
    """Set once the inbox has been read for the first time."""
    flows: dict[str, str] = field(default_factory=dict)
    """Execution id to flow name."""
    came: Callable[[], None] = field(default=lambda: None)
    """Called from the thread when ``rows`` changed."""

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._look_now = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = -1
        self._looked = 0.0
        self._client: ControlClient | None = None

    @property
    def waiting(self) -> int:
        return sum(1 for row in self.rows if row.is_open)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flowdeck-devtools-inbox", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        self._stopping.set()
        self._look_now.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def stir(self) -> None:
        """Events came, perhaps of a question: look, unless that was just done."""
        if self.clock.monotonic() - self._looked >= LOOK_SECONDS:
            self._look_now.set()

    def refresh(self) -> None:
        """Look again soon, even if the file did not change."""
        self._seen = -1
        self._look_now.set()

    # -- reading -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        last = 0.0
        while not self._stopping.is_set():
            now = self._looked = self.clock.monotonic()
            if self._changed() or now - last >= FULL_LOOK_SECONDS:
                last = now
                self.look()
            self._look_now.wait(QUIET_LOOK_SECONDS)
            self._look_now.clear()

    def _changed(self) -> bool:
        """Whether somebody committed to the control store: one pragma, some microseconds."""
        if self._client is None:
            return True
        try:
            version = self._client.version()
        except StoreError:
            return True
        changed = version != self._seen
        self._seen = version
        return changed

    def look(self) -> None:
        """Read the control store once. Problems end up in ``problem``, not in the caller."""
        try:
            client = self._connected()
            open_rows = client.list_interrupts(limit=MAX_OPEN)
            recent = client.list_interrupts(open_only=False, limit=MAX_ENDED)
            flows = {row.id: row.flow_name for row in client.list_executions(limit=MAX_EXECUTIONS)}
            alive = {writer: client.owner_alive(writer) for writer in {row.writer for row in open_rows}}
        except StoreNotFound:
            self._listed((), {}, None)
            return
        except (StoreError, FlowdeckError, OSError) as error:
            self._listed(self.rows, self.flows, str(error))
            return

        waiting = [InterruptRow.of(row, owned=alive[row.writer]) for row in open_rows]
        ended = [InterruptRow.of(row) for row in recent if row.status != "waiting"]
        # What nobody can apply stands below what somebody waits for.
        waiting.sort(key=lambda row: (row.answered, not row.owned))
        self._listed((*waiting, *ended), flows, None)

    def _listed(self, rows: tuple[InterruptRow, ...], flows: dict[str, str], problem: str | None) -> None:
        changed = rows != self.rows or flows != self.flows or problem != self.problem
        if changed:
            self.rows, self.flows, self.problem = rows, flows, problem
            self.version += 1
        first = not self.loaded.is_set()
        self.loaded.set()
        if changed or first:
            self.came()

    def _connected(self) -> ControlClient:
        if self._client is None:
            from flowdeck.durable import ControlClient

            self._client = ControlClient(self.store)
        return self._client

    # -- answering ---------------------------------------------------------------------------------------------

    def answer(self, row: InterruptRow, value: Any, actor: str) -> AnswerReport:
        """Send an answer and wait until the owner applied or refused it. Blocks; call it from a worker thread.

        Raises:
            StoreError: The answer could not be written.
        """
        client = self._connected()
        result = client.answer(row.key, value, actor)
        if result.outcome is None and result.row_id is not None:
            result = client.wait_outcome(result.row_id, APPLY_SECONDS if row.owned else 0.0)
        self.refresh()
        stored = client.get_interrupt(row.key)
        current = InterruptRow.of(stored, owned=row.owned) if stored is not None else row
        match result.outcome:
            case "applied":
                return AnswerReport(True, "answered; the run goes on", current)
            case None:
                return AnswerReport(False, "kept until a process takes the run up again", current, pending=True)
            case "conflict" | "duplicate" if not current.is_open:
                return AnswerReport(False, f"too late: {current.outcome}", current)
        return AnswerReport(False, clean(result.detail or f"the run refused it ({result.outcome})"), current)
