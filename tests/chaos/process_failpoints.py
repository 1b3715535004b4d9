"""Runs cases of one life after another, each a forked process that ends with ``os._exit(137)`` at a named point.

Reads JSON cases from stdin, one a line: ``{"flow", "point", "nth", "folder"}``; prints for each what the lives said.
The points are places in the product, wrapped here, so nothing of this is in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import chaos_flow
from chaos_flow import Data, effect

from flowdeck.durable import ControlClient, _commits, _control_writer, _requests
from flowdeck.durable import host as host_module
from flowdeck.durable.worker import Worker
from flowdeck.events.center import EventCenter
from flowdeck.execution import gate, input_log
from flowdeck.execution.services import Services
from flowdeck.triggerflow import TriggerFlow

DIED = 137
ACTOR = "ann"
asking = TriggerFlow(name="asking")


async def prepare(data: Data) -> Any:
    await effect(data, "prepare")
    data.put({"step": "prepare"})
    await data.async_set_state("prepared", data.input)
    return data.input


async def ask(data: Data) -> Any:
    return await data.async_pause_for(
        type="approval", payload=data.input, interrupt_id="ok", expires_in=0.3 if SHORT else 3600.0,
        on_expire={"value": "nobody"},
    )  # fmt: skip


async def keep(data: Data) -> None:
    await effect(data, "keep")
    data.put({"step": "keep"})
    await data.async_set_state("answer", data.input)


asking.to(prepare).to(ask).to(keep)
SHORT = False
FLOWS = {"chaos": chaos_flow.flow, "asking": asking}


class Point:
    """Counts how often a place is reached, and ends the process at the n-th time."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def reached(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(DIED)


def around(owner: Any, name: str, point: Point, *, after: bool, when: Callable[..., bool] = lambda *a: True) -> None:
    """Reach ``point`` before or after each call of ``owner.name`` whose arguments fit."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        fits = when(*args)
        if fits and not after:
            point.reached()

        result = inner(*args, **options)
        if fits and after:
            point.reached()

        return result

    setattr(owner, name, wrapped)


def creates(connection: Any, commits: Any) -> bool:
    return any(commit.header is not None for commit in commits)


def acknowledges(connection: Any, commits: Any) -> bool:
    return any(name == "ack" and arguments[0] > 1 for commit in commits for name, arguments in commit.changes)


def told_commit(whom: Any, *what: Any) -> bool:
    return getattr(whom, "__name__", "") == "_finished"


def with_snapshot(connection: Any, commit: Any) -> bool:
    return commit.snapshot is not None


def install(name: str, nth: int) -> None:
    """Set the named point."""
    point = Point(nth)
    if name == "the beginning is not committed":
        around(_control_writer, "write_commits", point, after=True, when=creates)
    elif name == "committed, nobody told":
        around(_control_writer, "_tell", point, after=False, when=told_commit)
    elif name == "submitted, not committed":
        around(_control_writer, "write_commits", point, after=False)
    elif name == "inside the transaction":
        around(_control_writer, "write_commits", point, after=True)
    elif name in ("inside a handler", "after the effect"):
        inner = chaos_flow.effect

        async def failing(data: Data, what: str) -> None:
            if name == "inside a handler":
                point.reached()

            await inner(data, what)
            point.reached()

        chaos_flow.effect = failing
        globals()["effect"] = failing
    elif name == "the snapshot is not written":
        around(_commits, "_write_seldom", point, after=False, when=with_snapshot)
    elif name == "the snapshot is not committed":
        around(_commits, "_write_seldom", point, after=True, when=with_snapshot)
    elif name == "a stream item is held back":
        around(input_log.InputLog, "hold", point, after=True)
    elif name == "a stream item has left":
        around(gate.GatedStream, "release", point, after=True)
    elif name == "the end is not merged":
        around(_commits, "_merge", point, after=False)
    elif name == "the end is not committed":
        around(_commits, "_merge", point, after=True)
    elif name == "claimed, not made anew":
        around(host_module, "restore", point, after=False)
    elif name == "made anew, not bound":
        around(host_module, "restore", point, after=True)
    elif name == "the answer is written, nobody told":
        around(_requests.Request, "submit", point, after=True, when=lambda request, _: request.kind == "resume")
    elif name == "the answer is applied, not committed":
        around(_control_writer, "write_commits", point, after=False, when=acknowledges)
    elif name == "the answer's outcome is not committed":
        around(_control_writer, "write_commits", point, after=True, when=acknowledges)
    elif name != "none":
        raise ValueError(name)


def life(store: str, effects: str, flow: str) -> None:
    """A worker that goes on until only answers are missing."""
    chaos_flow.EFFECTS = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    chaos_flow.SECONDS = 0.0
    input_log.SNAPSHOT_INPUTS = 4  # type: ignore[misc]
    _commits.MERGE_BYTES = 0  # type: ignore[misc]
    worker = Worker(store, [FLOWS[flow]], Services(center=EventCenter()), durability="process")
    report = asyncio.run(worker.run(once=True))
    assert not report.refused, report.refused


def answer(store: str) -> str:
    with ControlClient(store) as client:
        return str(client.answer("ok", "yes", ACTOR, "the-answer").outcome)


def forked(work: Callable[[], Any], point: str = "none", nth: int = 1) -> int:
    """Do ``work`` in a process of its own and return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            install(point, nth)
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)

        os._exit(0)

    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Let a run be killed at its point, then go on until it has ended."""
    global SHORT
    store, effects, flow = case["folder"], case["folder"] + "-effects", case["flow"]
    point, nth = case["point"], case["nth"]
    SHORT = point == "it expires while nobody lives"
    codes: list[int] = []
    with ControlClient(store) as client:
        client.put_inbox("start", "x", flow, 1, "starter", "start-x")

    def live(at: str = "none", nth: int = 1) -> None:
        codes.append(forked(lambda: life(store, effects, flow), at, nth))

    if point.startswith(("claimed", "made anew")):
        live("after the effect", 1)
        live(point)
        live()
    elif SHORT:
        live("committed, nobody told", 3)
        time.sleep(0.35)
        live()
    elif "answer" in point:
        live()
        if point == "the answer is written, nobody told":
            codes.append(forked(lambda: answer(store), point))
        else:
            assert answer(store) == "None"
            live(point)

        again = answer(store)
        assert again == "duplicate", again
        live()
    else:
        live(point, nth)
        live()

    if flow == "asking" and "answer" not in point and not SHORT:
        answer(store)
        live()

    return {"codes": codes}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


main()
