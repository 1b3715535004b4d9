"""Random runs as journal lines: sub flows, attempts, pauses, agents, tools, models, and what nobody knows."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from tests.otlp.scenarios import Line

__all__ = ["Story", "stories"]

HOUR_US = 3_600_000_000
INSIDE = ("flow", "agent", "tool", "user", "signal", "odd")


class Story:
    """Writes the events of one root run, with a clock of its own."""

    def __init__(self, draw: Any, number: int) -> None:
        self.draw = draw
        self.number = number
        self.lines: list[Line] = []
        self.time_us = 1_700_000_000_000_000 + number
        self.ids = 0
        self.epoch = 1
        self.seq = 0
        self.root = self.new_id()
        self.traceparent = draw(st.sampled_from([None, None, f"00-{number + 1:032x}-00000000000000aa-01"]))

    def new_id(self) -> str:
        self.ids += 1
        return f"r{self.number}-{self.ids}"

    def run(self, kind: str, parent: str | None, execution: str | None, **meta: Any) -> dict[str, Any]:
        run_id = self.root if parent is None else self.new_id()
        if self.traceparent:
            meta["traceparent"] = self.traceparent

        run = {"run_id": run_id, "run_kind": kind, "root_run_id": self.root, "session_id": "s1", "meta": meta}
        return run | ({"parent_run_id": parent} if parent else {}) | ({"execution_id": execution} if execution else {})

    def emit(
        self,
        event_type: str,
        run: dict[str, Any] | None,
        payload: Any = None,
        error: str | None = None,
        level: str = "INFO",
        **meta: Any,
    ) -> None:
        self.time_us += self.draw(st.sampled_from([0, 1, 50, 1000, 40_000]))
        self.seq += 1
        event = {
            "wseq": self.seq,
            "event_id": f"e{self.number}-{self.seq}",
            "event_type": event_type,
            "source": "Test",
            "level": level,
            "message": None,
            "payload": payload,
            "error": None if error is None else {"type": error, "message": "no", "module": "shop", "traceback": "at 1"},
            "run": run,
            "meta": {"v": 1, "us": self.time_us % 1000, "epoch": self.epoch, "seq": self.seq, **meta},
            "timestamp": self.time_us // 1000,
        }
        self.lines.append(Line(f"w{self.epoch}", json.dumps(event).encode()))

    # -- what runs are made of -----------------------------------------------------------------------------------

    def execution(self, parent: str | None, depth: int) -> str | None:
        """One execution. Returns the type of the error it failed with."""
        execution_id = self.new_id()
        run = self.run("workflow_execution", parent, execution_id, flow_name=f"flow{depth}")
        self.emit("triggerflow.execution_started", run, {"initial_value": 1})
        for place in range(self.draw(st.integers(0, 3))):
            error = self.step(run, f"step{place}", depth)
            if error is not None:
                self.emit("triggerflow.execution_failed", run, {"origin_run_id": "x"}, error, "ERROR", duration_us=5)
                self.emit("triggerflow.execution_closed", run, {"status": "failed"})
                return error

        end = self.draw(st.sampled_from(["completed", "completed", "cancelled", "closed", "nothing"]))
        if end == "nothing":
            return None

        if end != "closed":
            duration = self.draw(st.sampled_from([0, 77, -3]))
            self.emit(f"triggerflow.execution_{end}", run, {"result": {"a": 1}}, duration_us=duration)

        self.emit("triggerflow.execution_closed", run, {"status": "completed" if end == "closed" else end})
        return None

    def step(self, flow: dict[str, Any], name: str, depth: int) -> str | None:
        attempts = self.draw(st.integers(1, 3))
        for attempt in range(1, attempts + 1):
            run = self.run(
                "chunk_execution", flow["run_id"], flow["execution_id"],
                flow_name=flow["meta"]["flow_name"], chunk_id=f"id-{name}", chunk_name=name, operator_kind="chunk",
            )  # fmt: skip
            place = {"scope": name, "attempt": attempt}
            self.emit("chunk.started", run, {"input": [1], "trigger_event": "Chunk[up]-up-1"}, **place)
            error = self.inside(run, flow, depth)
            last = attempt == attempts
            how = self.draw(st.sampled_from(["completed", "completed", "failed", "pause", "nothing"]))
            if error is not None:
                how = "failed"

            if how == "pause" and flow["run_id"] == self.root:
                self.pause(flow, run, place)
                return None

            if how == "failed" or not last:
                kind = error or "ValueError"
                payload = {"status": "failed", "will_retry": not last, "propagated_from": "x" if error else None}
                self.emit("chunk.failed", run, payload, kind, "ERROR", duration_us=3, **place)
                if last:
                    return kind

            elif how != "nothing":
                self.emit("chunk.completed", run, {"status": "completed", "output": "out"}, duration_us=9, **place)

        return None

    def inside(self, run: dict[str, Any], flow: dict[str, Any], depth: int) -> str | None:
        for what in self.draw(
            st.lists(st.sampled_from(["flow", "agent", "tool", "user", "signal", "odd"]), max_size=2)
        ):
            if what == "flow" and depth < 2:
                error = self.execution(run["run_id"], depth + 1)
                if error is not None:
                    return error

            elif what == "agent":
                self.agent(run)
            elif what == "tool":
                self.tool(run)
            elif what == "user":
                self.emit("billing.invoice", run, {"kind": "x", "id": "i1"}, level="WARNING")
            elif what == "signal":
                self.emit("triggerflow.signal", run, {"EVENT": "Go", "SIGNAL_ID": "s1"}, level="DEBUG", sub=1)
            elif what == "odd":
                self.emit("other.thing", self.run("strange", run["run_id"], None), {"a": 1})

        return None

    def agent(self, above: dict[str, Any]) -> None:
        turn = self.run("agent_turn", above["run_id"], None)
        request = self.run("request", turn["run_id"], None)
        call = self.run("model_request", request["run_id"], None)
        self.emit("agent_turn.started", turn, {"agent_id": "a1", "agent_name": "helper"})
        self.emit("request.started", request, {"agent_name": "helper", "attempt_index": 1})
        self.emit("model.request_started", call, {"attempt_index": 1})
        self.emit("model.requesting", call, {"request": {"data": {"model": "m-1"}}})
        self.emit("model.meta", call, {"meta": {"finish_reason": "stop", "usage": {"input_tokens": 3}}})
        if self.draw(st.booleans()):
            self.emit("model.completed", call, {"result": "hi"})
            self.emit("request.completed", request, {})
            self.emit("agent_turn.completed", turn, {})
        else:
            for event_type, run in (
                ("model.failed", call), ("model.request_failed", call), ("request.failed", request),
                ("agent_turn.failed", turn),
            ):  # fmt: skip
                self.emit(event_type, run, {}, "RateLimit", "ERROR")

    def tool(self, above: dict[str, Any]) -> None:
        loop = self.run("action_loop", above["run_id"], None)
        action = self.run("action", loop["run_id"], None, action_name="search")
        for twin in ({}, {"compat_event_alias": True}):
            self.emit(f"{'tool' if twin else 'action'}.loop_started", loop, {}, **twin)

        self.emit("action.started", action, {"action_name": "search", "command": {"call_id": "c1"}})
        self.emit("action.failed", action, {"record": {"error": "no such page"}}, level="WARNING")
        for twin in ({}, {"compat_event_alias": True}):
            self.emit(f"{'tool' if twin else 'action'}.loop_completed", loop, {}, **twin)

    def pause(self, flow: dict[str, Any], run: dict[str, Any], place: dict[str, Any]) -> None:
        """A question; perhaps a restart and a very long wait before its answer."""
        question = f"{flow['execution_id']}-i{self.seq}"
        created = self.time_us / 1e6
        record = {
            "id": question,
            "type": "approval",
            "created_at": created,
            "source_execution_id": flow["execution_id"],
        }
        self.emit("triggerflow.interrupt_raised", run, {"interrupt": record}, level="WARNING")
        self.emit("chunk.completed", run, {"status": "waiting"}, duration_us=2, **place)
        self.emit("triggerflow.execution_waiting", flow, {"interrupt_ids": [question]})
        how = self.draw(st.sampled_from(["answered", "answered", "expired", "nothing"]))
        self.time_us += self.draw(st.sampled_from([0, 1000, HOUR_US, 30 * HOUR_US]))
        if self.draw(st.booleans()):
            self.epoch += 1
            self.emit("triggerflow.execution_recovered", flow, {"epoch": self.epoch})
            self.emit("triggerflow.execution_waiting", flow, {"interrupt_ids": [question]})

        if how == "answered":
            answer = {"interrupt_id": question, "actor": "ana", "value": 1}
            self.emit("triggerflow.execution_resumed", flow, {**answer, "paused_at": created})
            self.emit("triggerflow.interrupt_answered", flow, answer)
        elif how == "expired":
            self.emit("triggerflow.interrupt_expired", flow, {"interrupt_id": question, "interrupt": record})


@st.composite
def stories(draw: st.DrawFn) -> list[Line]:
    """The lines of one or two root runs, in the order they were written."""
    lines: list[Line] = []
    for number in range(draw(st.integers(1, 2))):
        story = Story(draw, number)
        story.execution(None, 0)
        lines += story.lines

    return lines
