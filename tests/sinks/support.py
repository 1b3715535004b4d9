"""What the store's tests share: events, children that are forked with other rights, and a look at raw segments."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flowdeck.events import EventCenter, Fragment, RunContext
from flowdeck.layout import Layout

NOBODY = 65534
SOURCE = Path(__file__).parents[2]


class Encoded:
    """A record that is already encoded: what a sink sees of one."""

    def __init__(self, encoded: bytes, event_type: str = "test.event") -> None:
        self.encoded = encoded
        self.event_type = event_type


def plain(number: int, size: int = 0) -> Encoded:
    """Return event ``number``, padded to about ``size`` bytes."""
    filler = "x" * max(0, size - 160)
    return Encoded(
        b'{"event_id":"e%08d","event_type":"test.event","source":"test","level":"INFO","message":null,'
        b'"payload":{"n":%d,"filler":"%b"},"error":null,"run":null,"meta":{"v":1,"us":0},"timestamp":1700000000000}'
        % (number, number, filler.encode())
    )


def segments(store: str | Path) -> list[Path]:
    """Return the store's segments in writing order."""
    return sorted(path for path in Layout(store).journal.glob("*.jsonl") if path.name != "_.jsonl")


def raw_lines(store: str | Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every line of every segment, headers and torn ones too."""
    for path in segments(store):
        for line in path.read_bytes().split(b"\n"):
            if line:
                yield path, line


def written(store: str | Path) -> list[dict[str, Any]]:
    """Return the decoded events of a store; what is not JSON is left out."""
    events = []
    for _, line in raw_lines(store):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if "event_id" in event:
            events.append(event)

    return events


def numbers(store: str | Path) -> list[int]:
    """Return the ``n`` of every :func:`plain` event in writing order."""
    return [event["payload"]["n"] for event in written(store) if event["event_type"] == "test.event"]


def dropped(store: str | Path) -> list[dict[str, Any]]:
    """Return the payloads of the ``sink.dropped`` events."""
    return [event["payload"] for event in written(store) if event["event_type"] == "sink.dropped"]


def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    """Poll until ``condition()`` is true and return its value; fail naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.005)

    return value


def in_child(work: Callable[[], Any], *, uid: int | None = None, file_limit: int | None = None) -> Any:
    """Run ``work`` in a forked child and return its result; raise AssertionError with its traceback when it fails.

    Args:
        work: Returns something that can be pickled.
        uid: User to become. Root is refused nothing, so permission tests need another one.
        file_limit: ``RLIMIT_FSIZE`` in bytes.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
            if uid is not None:
                os.setgid(uid)
                os.setuid(uid)
            answer = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)

    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    assert data, f"the child died: {signal.strsignal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else status}"
    fine, value = pickle.loads(data)
    assert fine, value
    return value


class Story:
    """Emits the events of flow executions through a real Event Center, in the order a test tells them."""

    def __init__(self, sink: Any) -> None:
        self.center = EventCenter()
        self.center.add_sink(sink, min_level="DEBUG")
        self.sink = sink
        self.seq: dict[str, int] = {}

    def execution(self, name: str, flow: str = "audit", **meta: Any) -> RunContext:
        """Return the run of a new execution called ``name``."""
        return RunContext.create(
            run_kind="workflow_execution", run_id=f"run-{name}", execution_id=name, meta={"flow_name": flow, **meta}
        )

    def chunk(self, execution: RunContext, name: str) -> RunContext:
        """Return the run of one attempt of a chunk."""
        static = Fragment({"flow_name": execution.meta["flow_name"], "chunk_name": name, "chunk_id": f"op-{name}"})
        return RunContext.attempt(execution, "chunk_execution", static)

    def tell(self, run: RunContext, event_type: str, payload: Any = None, **fields: Any) -> None:
        """Emit one event of ``run`` with the next seq of its execution."""
        key = run.execution_id or ""
        seq = fields.pop("seq", None) or self.seq.get(key, 0) + 1
        self.seq[key] = max(seq, self.seq.get(key, 0))
        self.center.type(event_type).emit(payload, run=run, epoch=fields.pop("epoch", 1), seq=seq, **fields)
