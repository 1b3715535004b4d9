"""What a person does to a run from here: cancel, intervene, resume, fork, run again, keep as an eval case.

What changes an execution is a row in its inbox, which only its owner applies (DESIGN §4). Whatever runs user code runs
in a child process. Nothing is done without an actor's name, and what no inbox records is recorded as a
``devtools.action`` event, so that the ledger shows everything people did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from flowdeck.errors import FlowdeckError
from flowdeck.events.redaction import MASK
from flowdeck.layout import StoreError
from flowdeck_devtools.core.text import clean

if TYPE_CHECKING:
    from flowdeck.durable import ControlClient

__all__ = ["Abilities", "ActReport", "Acts", "Started", "started_of"]

APPLY_SECONDS = 5.0
"""How long a request may stay unapplied before the person is told that nobody picked it up."""
PUBLISH_PATIENCE_SECONDS = 3.0
CHILD_OUTPUT = 4_000

_CLI = (sys.executable, "-m", "flowdeck_devtools.cli")


@dataclass(frozen=True, slots=True)
class ActReport:
    """What became of it, in words."""

    done: bool
    headline: str
    pending: bool = False
    """It is kept, but nobody has applied it yet."""
    execution_id: str | None = None
    """The execution that came of it."""


@dataclass(frozen=True, slots=True)
class Started:
    """With what a run was started: read from its ``execution_started`` event."""

    entrypoint: str | None
    value: Any
    known: bool = True
    """The value is whole: neither masked nor cut nor gone."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """Why each thing cannot be done to an execution; ``None`` where it can."""

    cancel: str | None = None
    intervene: str | None = None
    resume: str | None = None
    fork: str | None = None
    rerun: str | None = None
    promote: str | None = None


class Acts:
    """Acts on the executions of one store in one person's name. Every method blocks: call it from a worker thread."""

    def __init__(self, store: Path, actor: str) -> None:
        self.store = store
        self.actor = actor
        self._client: ControlClient | None = None

    # -- what can be done ----------------------------------------------------------------------------------------

    def abilities(self, execution_id: str | None, started: Started | None) -> Abilities:
        """Say what can be done to an execution, and why the rest cannot. Never raises."""
        again = _why_no_rerun(started)
        try:
            row = self._connected().get_execution(execution_id) if execution_id else None
            if row is None:
                gone = "it is not in this store's state.db"
                return Abilities(gone, gone, gone, gone, again, again)
            info = self._connected().durable_info(row.id)
            alive = bool(row.writer) and self._connected().owner_alive(row.writer)
        except (FlowdeckError, StoreError, OSError) as error:
            why = clean(str(error))
            return Abilities(why, why, why, why, again, again)

        over = f"it is already {row.status}" if row.finished_us is not None else None
        durable = None if info is not None else "it is not durable (runtime.use_store makes executions durable)"
        running = "a living process runs it" if alive else None
        entry = None if row.entrypoint else "its definition has no entrypoint, so its flow cannot be imported"
        return Abilities(over, over, over or durable or running or entry, durable, again, again)

    # -- through the inbox ---------------------------------------------------------------------------------------

    def cancel(self, execution_id: str, reason: str = "") -> ActReport:
        """Cancel an execution: its handlers are stopped, its interrupts given up."""
        return self._asked("cancel", execution_id, None, {"reason": reason} if reason else None, "cancelled")

    def intervene(self, execution_id: str, value: Any, target: str = "", note: str = "") -> ActReport:
        """Add context to a run; it changes nothing until an operator that takes it is reached."""
        payload = {"payload": value, "note": note or None}
        return self._asked("intervene", execution_id, target or None, payload, "recorded")

    def _asked(self, kind: str, execution_id: str, target: str | None, payload: Any, done: str) -> ActReport:
        try:
            client = self._connected()
            result = client.put_inbox(kind, execution_id, target, payload, self.actor)
            if result.outcome is None and result.row_id is not None:
                row = client.get_execution(execution_id)
                alive = row is not None and bool(row.writer) and client.owner_alive(row.writer)
                result = client.wait_outcome(result.row_id, APPLY_SECONDS if alive else 0.0)
        except (FlowdeckError, StoreError, OSError, ValueError) as error:
            return ActReport(False, clean(f"not done: {error}"))
        if result.outcome in ("applied", "duplicate"):
            return ActReport(True, f"{done} as {self.actor}", execution_id=execution_id)
        if result.accepted:
            return ActReport(False, "kept until a process takes the run up again", pending=True)
        return ActReport(False, clean(result.detail or f"refused ({result.outcome})"))

    # -- new executions ------------------------------------------------------------------------------------------

    def fork(self, execution_id: str, at: int | None = None) -> ActReport:
        """Make a new execution that goes on from a committed point of this one; a worker or ``resume`` takes it up."""
        from flowdeck.durable.using import open_store

        try:
            new = open_store(self.store).fork(execution_id, at, actor=self.actor)
        except (FlowdeckError, StoreError, OSError, ValueError) as error:
            return self._told("fork", execution_id, ActReport(False, clean(f"not forked: {error}")))
        return self._told("fork", execution_id, ActReport(True, f"forked into {new}", execution_id=new), at=at)

    def resume(self, execution_id: str) -> ActReport:
        """Take an execution up in a child process, until it ends or waits for somebody."""
        command = [*_CLI, "executions", "resume", execution_id, "--json", "--store", str(self.store)]
        return self._told("resume", execution_id, self._child(command, None, _status_of))

    def rerun(self, run_id: str, execution_id: str | None, started: Started) -> ActReport:
        """Run the same flow with the same input in a child process, to its end."""
        why = _why_no_rerun(started)
        if why is not None or started.entrypoint is None:
            return ActReport(False, f"not run again: {why}")
        command = [*_CLI, "run", started.entrypoint, "--input", "-", "--json", "--store", str(self.store)]
        begun = ActReport(True, f"runs again: {started.entrypoint}")
        self._told("rerun", execution_id or run_id, begun)
        return self._child(command, json.dumps(started.value, ensure_ascii=False), _status_of)

    def promote(self, run_id: str, started: Started, folder: Path) -> ActReport:
        """Keep a run as an eval case: its tape and a case in ``folder``, checked by reading the suite back."""
        from flowdeck_devtools.core.promoting import PromotionRefused, promote

        try:
            made = promote(self.store, run_id, started.entrypoint or "", folder)
        except (PromotionRefused, FlowdeckError, StoreError, OSError) as error:
            return self._told("promote", run_id, ActReport(False, clean(f"not promoted: {error}")))
        return self._told("promote", run_id, ActReport(True, f"case {made.case} in {made.file}"), file=str(made.file))

    # -- the store -----------------------------------------------------------------------------------------------

    def publish(self) -> ActReport:
        """Publish and compact the store, in a child process."""
        command = [sys.executable, "-m", "flowdeck_sinks.store.publisher", str(self.store)]
        # What it replaced is deleted only half a minute later; nobody has to wait for that.
        done = self._child(command, None, lambda _: "published and compacted", PUBLISH_PATIENCE_SECONDS)
        return self._told("publish", None, done)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _connected(self) -> ControlClient:
        if self._client is None:
            from flowdeck.durable import ControlClient

            self._client = ControlClient(self.store)
        return self._client

    def _child(
        self, command: list[str], given: str | None, words: Callable[[str], str], patience: float | None = None
    ) -> ActReport:
        """Run a command that outlives this window: the person may leave, the run goes on."""
        # Files, not pipes: nobody may be left to read when it writes, and a broken pipe would end the run.
        with TemporaryFile() as stdin, TemporaryFile() as out, TemporaryFile() as err:
            stdin.write((given or "").encode("utf-8", "surrogatepass"))
            stdin.seek(0)
            try:
                child = subprocess.Popen(command, stdin=stdin, stdout=out, stderr=err, start_new_session=True)
            except OSError as error:
                return ActReport(False, clean(f"not started: {error}"))
            try:
                code = child.wait(patience)
            except subprocess.TimeoutExpired:
                return ActReport(True, f"goes on in process {child.pid}", pending=True)
            text, problem = _end_of(out), _end_of(err)
        if code != 0:
            last = problem.strip().splitlines()
            return ActReport(False, clean(last[-1] if last else f"ended with code {code}", limit=400))
        return ActReport(True, words(text), execution_id=_execution_of(text))

    def _told(self, action: str, target: str | None, report: ActReport, **details: Any) -> ActReport:
        """Record what no inbox row records. A record that cannot be written does not undo what was done."""
        self.record(action, target, "applied" if report.done else "rejected", report.headline, **details)
        return report

    def record(self, action: str, target: str | None, outcome: str, detail: str, **more: Any) -> None:
        """Put a ``devtools.action`` event into the store's journal."""
        from flowdeck import Runtime

        payload = {"action": action, "target": target, "actor": self.actor, "outcome": outcome, "detail": detail}
        event = {"event_type": "devtools.action", "source": "DevTools", "payload": {**payload, "more": more or None}}
        with suppress(FlowdeckError, StoreError, OSError):
            runtime = Runtime()
            observation = runtime.observe(self.store)
            try:
                runtime.emit(event)
            finally:
                observation.close()


def started_of(store: Path, run_id: str) -> Started | None:
    """Read with what a run was started from the store's history; ``None`` when it is not there. Blocks."""
    from flowdeck_sinks.store import query

    rows = list(query(store, _STARTED_SQL, [run_id]))
    payload = json.loads(rows[0][0]) if rows and rows[0][0] else None
    if isinstance(payload, dict) and isinstance(payload.get("$blob"), str):
        payload = _blob(store, payload["$blob"])
    if not isinstance(payload, dict):
        return None
    value, entrypoint = payload.get("initial_value"), payload.get("entrypoint")
    known = "initial_value" in payload and _whole(value)
    return Started(entrypoint if isinstance(entrypoint, str) else None, value, known)


_STARTED_SQL = """SELECT payload::VARCHAR FROM events
WHERE run_id = ? AND event_type = 'triggerflow.execution_started' ORDER BY ts LIMIT 1"""


def _blob(store: Path, digest: str) -> Any:
    if not digest.isalnum():
        return None
    try:
        return json.loads((store / "blobs" / digest).read_bytes())
    except (OSError, ValueError):
        return None


def _whole(value: Any) -> bool:
    """Whether a stored value is what it was: no secret was masked in it and nothing cut off."""
    if isinstance(value, str):
        return value != MASK
    if isinstance(value, dict):
        return not ({"$cut", "$blob"} & value.keys()) and all(map(_whole, value.values()))
    return all(map(_whole, value)) if isinstance(value, list) else True


def _why_no_rerun(started: Started | None) -> str | None:
    if started is None:
        return "its start is not in the store"
    if started.entrypoint is None:
        return "its definition has no entrypoint, so its flow cannot be imported"
    return None if started.known else "its input was not stored whole: it was masked or cut"


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - CHILD_OUTPUT))
    return file.read().decode("utf-8", "replace")


def _execution_of(text: str) -> str | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    named = found.get("execution_id") if isinstance(found, dict) else None
    return named if isinstance(named, str) else None


def _status_of(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return "ended"
    return f"is {found['status']}" if isinstance(found, dict) and "status" in found else "ended"
