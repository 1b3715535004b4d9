"""A store whose journal is written line by line as flows write it, with times and ids a test can know.

The files are real (layout, writer lock, header, wire format); only their content is composed here, so that a screen
can be held still for a picture.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from flowdeck.layout import Layout, WriterLock

START_US = 1_763_690_400_000_000
"""2025-11-21 02:00:00 UTC, when every scene begins."""


class Scene:
    """One store and one writer in it."""

    def __init__(self, store: Path, writer: str = "w00000000scene") -> None:
        self.store = store
        self.layout = Layout.create(store)
        self.writer = writer
        self._lock: WriterLock | None = WriterLock(self.layout, writer)
        self._wseq = 0
        self._ids = 0
        path = self.layout.segment_path(writer, 1)
        self._file = path.open("wb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        header = {"flowdeck": "journal", "format": 1, "writer": writer, "schema": 1, "pid": os.getpid()}
        self._file.write(json.dumps(header, separators=(",", ":")).encode() + b"\n")

    def write(self, line: bytes) -> None:
        """Put a raw line into the journal."""
        self._file.write(line + b"\n")

    def new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}0000{self._ids:04d}"

    def line(
        self,
        event_type: str,
        *,
        at: float,
        run: dict[str, Any] | None = None,
        payload: Any = None,
        error: Any = None,
        level: str = "INFO",
        message: str | None = None,
        **meta: Any,
    ) -> bytes:
        """The bytes of one event at ``at`` seconds after the start."""
        self._wseq += 1
        time_us = START_US + round(at * 1e6)
        event = {
            "wseq": self._wseq,
            "event_id": f"e{self._wseq:06d}",
            "event_type": event_type,
            "source": "TriggerFlowExecution",
            "level": level,
            "message": message,
            "payload": payload,
            "error": error,
            "run": run,
            "meta": {"v": 1, "us": time_us % 1000, "epoch": 1, "seq": self._wseq, **meta},
            "timestamp": time_us // 1000,
        }
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def emit(self, event_type: str, **fields: Any) -> bytes:
        line = self.line(event_type, **fields)
        self.write(line)
        return line

    def execution(
        self, flow: str, *, at: float, value: Any = None, run_id: str | None = None, definition: Any = None
    ) -> RunScene:
        return RunScene(self, flow, at, value, run_id, definition or {"operators": [{"id": "op1"}]})

    def ask(self, run: RunScene, name: str, question: str, *, at: float, schema: Any = None, **more: Any) -> None:
        """Register a question in the control store, as the runtime does, at a time of the scene."""
        from flowdeck.durable import open_control

        class Owner:
            id = run.execution_id

            def deliver(self, row: Any) -> None:
                raise AssertionError("nobody answers in a scene")

        control = open_control(self.store, self.writer)
        control.opened(Owner(), {"flow_name": run.flow, "run_id": run.run["run_id"], "root_run_id": run.run["run_id"]})
        payload = {"question": question, **more}
        record = {"id": name, "type": "review", "payload": payload, "schema": schema, "resume_to": "next"}
        control.interrupt_opened(run.execution_id, record)
        assert control.flush(5.0)
        control.close(5.0)
        with closing(sqlite3.connect(self.layout.state_db)) as database:
            opened = (START_US + round(at * 1e6), name)
            database.execute("UPDATE interrupts SET opened_us = ? WHERE id = ?", opened)
            database.commit()

    def die(self) -> None:
        """The writer's process is killed: its locks are free, nothing was said."""
        self._file.close()
        if self._lock is not None:
            os.close(self._lock._descriptor or -1)
            self._lock._descriptor = None
            self._lock = None

    def close(self) -> None:
        if self._lock is not None:
            self._file.close()
            self._lock.release()
            self._lock = None


class RunScene:
    """One execution: steps, pauses and its end."""

    def __init__(
        self, scene: Scene, flow: str, at: float, value: Any, run_id: str | None, definition: Any = None
    ) -> None:
        self.scene = scene
        self.flow = flow
        self.execution_id = scene.new_id("x")
        run_id = run_id or scene.new_id("r")
        self.run = {
            "run_id": run_id,
            "run_kind": "workflow_execution",
            "root_run_id": run_id,
            "execution_id": self.execution_id,
            "meta": {"flow_name": flow, "task_id": "T-1"},
        }
        self.at = at
        payload = {"flow_name": flow, "definition": definition, "fingerprint": f"f-{flow}"}
        scene.emit("triggerflow.definition_declared", at=at, run=self.run, payload=payload)
        started = {"initial_value": value, "definition": f"f-{flow}", "entrypoint": None}
        scene.emit("triggerflow.execution_started", at=at, run=self.run, payload=started)

    def step_run(self) -> dict[str, Any]:
        return {
            "run_id": self.scene.new_id("c"),
            "run_kind": "chunk_execution",
            "root_run_id": self.run["run_id"],
            "parent_run_id": self.run["run_id"],
            "execution_id": self.execution_id,
            "meta": {"task_id": "T-1"},
        }

    def start(self, scope: str, name: str, *, at: float, value: Any = None, attempt: int = 1) -> dict[str, Any]:
        """A chunk attempt begins; give what it returns to ``end`` or ``fail``."""
        run = self.step_run()
        payload = {"chunk_id": f"op-{name}", "chunk_name": name, "operator_kind": "chunk", "input": value}
        self.scene.emit("chunk.started", at=at, run=run, payload=payload, scope=scope, attempt=attempt)
        return {"run": run, "scope": scope, "name": name, "at": at, "attempt": attempt}

    def end(self, step: dict[str, Any], *, at: float, output: Any = None, paused: bool = False) -> None:
        payload = {"chunk_name": step["name"], "status": "waiting" if paused else "completed", "output": output}
        self.scene.emit(
            "chunk.completed",
            at=at,
            run=step["run"],
            payload={**payload, "returned_pause_signal": paused},
            scope=step["scope"],
            attempt=step["attempt"],
            duration_us=round((at - step["at"]) * 1e6),
        )

    def fail(self, step: dict[str, Any], *, at: float, error: dict[str, Any], will_retry: bool = False) -> None:
        payload = {"chunk_name": step["name"], "status": "failed", "will_retry": will_retry, "retry_delay_s": 0.2}
        self.scene.emit(
            "chunk.failed",
            at=at,
            run=step["run"],
            payload=payload if will_retry else {**payload, "retry_delay_s": None},
            error=error,
            level="ERROR",
            scope=step["scope"],
            attempt=step["attempt"],
            duration_us=round((at - step["at"]) * 1e6),
        )

    def step(self, scope: str, name: str, *, at: float, lasts: float, value: Any = None, output: Any = None) -> None:
        self.end(self.start(scope, name, at=at, value=value), at=at + lasts, output=output)

    def pause(self, step: dict[str, Any], interrupt_id: str, *, at: float, payload: Any = None) -> None:
        record = {"id": interrupt_id, "type": "approval", "payload": payload, "status": "waiting"}
        self.scene.emit(
            "triggerflow.interrupt_raised",
            at=at,
            run=step["run"],
            payload={"interrupt": record},
            level="WARNING",
            scope=step["scope"],
        )

    def waiting(self, *, at: float) -> None:
        self.scene.emit("triggerflow.execution_waiting", at=at, run=self.run, payload={"interrupt_ids": []})

    def resume(self, interrupt_id: str, *, at: float, value: Any = None, actor: str = "ana") -> None:
        payload = {"interrupt_id": interrupt_id, "value": value, "actor": actor}
        self.scene.emit("triggerflow.execution_resumed", at=at, run=self.run, payload=payload)

    def finish(self, *, at: float, status: str = "completed", error: Any = None) -> None:
        level = {"failed": "ERROR", "cancelled": "WARNING"}.get(status, "INFO")
        self.scene.emit(
            f"triggerflow.execution_{status}",
            at=at,
            run=self.run,
            payload={"result": {"state": {}}} if status == "completed" else {},
            error=error,
            level=level,
            duration_us=round((at - self.at) * 1e6),
        )
        self.scene.emit("triggerflow.execution_closed", at=at, run=self.run, payload={"reason": "manual"})


TIMEOUT = {
    "type": "ToolTimeout",
    "message": "upstream 504 after 3 tries",
    "module": "refunds.tools",
    "traceback": 'Traceback (most recent call last):\n  File "refunds.py", line 88, in call\nToolTimeout: upstream 504',
}


def busy_store(store: Path) -> Scene:
    """Six runs of all kinds, the newest still open and waiting in places: what the pictures show."""
    scene = Scene(store)
    digest = scene.execution("nightly-digest", at=0.0)
    digest.step("collect", "collect", at=0.01, lasts=3.2)
    digest.step("summarise", "summarise", at=3.22, lasts=8.1)
    digest.finish(at=12.84)

    triage = scene.execution("triage", at=20.0)
    classify = triage.start("classify", "classify", at=20.1, value={"ticket": "T-88"})
    triage.end(classify, at=20.9)
    triage.finish(at=21.02, status="cancelled")

    refund = scene.execution("refund-agent", at=30.0, value={"order": "A-19", "reason": "damaged"})
    refund.step("plan", "plan", at=30.05, lasts=0.89, value={"order": "A-19"}, output={"steps": ["search", "refund"]})
    act = refund.start("act", "act", at=30.95, value={"order": "A-19"})
    for attempt, (begins, ends) in enumerate(((31.0, 31.5), (31.7, 32.2), (32.6, 33.0)), 1):
        tool = refund.start("refund", "refund", at=begins, value={"order": "A-19", "amt": 40}, attempt=attempt)
        refund.fail(tool, at=ends, error=TIMEOUT, will_retry=attempt < 3)
    refund.fail(act, at=33.9, error={"type": "ValueError", "message": "act gave up"})
    refund.finish(at=34.2, status="failed", error=TIMEOUT)

    audit = scene.execution("licence-audit", at=40.0, value={"paths": ["site-packages"]})
    audit.step("discover", "discover", at=40.02, lasts=0.6, output=["requests", "numpy"])
    names = ["requests", "numpy", "rich", "attrs", "pyyaml", "certifi", "idna", "urllib3"]
    for index, name in enumerate(names):
        begins = 40.7 + index * 0.35
        scope = f"for_each[{index}]"
        read = audit.start(f"{scope}/read", "read", at=begins, value={"name": name})
        if name == "numpy":
            bad = {"type": "UnicodeDecodeError", "message": "'utf-8' codec can't decode byte 0xe9"}
            audit.fail(read, at=begins + 0.2, error=bad, will_retry=True)
            read = audit.start(f"{scope}/read", "read", at=begins + 0.4, value={"name": name}, attempt=2)
            audit.end(read, at=begins + 0.7, output={"licence": "BSD-3-Clause"})
        else:
            audit.end(read, at=begins + 0.3, output={"licence": "MIT"})
        audit.step(f"{scope}/judge", "judge", at=begins + 0.75, lasts=0.2, value={"name": name})
        if name in ("certifi", "rich"):
            ask = audit.start(f"{scope}/ask", "ask", at=begins + 1.0, value={"name": name})
            audit.pause(ask, f"i-{name}", at=begins + 1.1, payload={"question": f"May we depend on {name}?"})
            audit.end(ask, at=begins + 1.12, paused=True)
    audit.resume("i-rich", at=43.9, value={"decision": "approve"})
    audit.step("for_each[2]/record", "record", at=43.95, lasts=0.1, value={"name": "rich"})
    audit.waiting(at=44.6)

    live = scene.execution("triage", at=50.0)
    live.step("fetch", "fetch", at=50.1, lasts=1.1)
    live.start("classify", "classify", at=51.3, value={"ticket": "T-90"})
    return scene
