"""Pausing a branch, and every way to go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.execution.support import Data, World, keep, passes, turns

from flowdeck.errors import HiddenHandleError, InterruptError, InterruptNotFound, PendingInterruptsError
from flowdeck.execution.control import InboxRow
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


def ask(name: str = "ask", **options: Any) -> tuple[str, Any]:
    async def pause(data: Data) -> Any:
        return await data.async_pause_for(**{"type": "approval", "payload": {"q": data.input}, **options})

    return (name, pause)


def approval(**options: Any) -> TriggerFlow:
    flow = TriggerFlow(name="approval")
    flow.to(ask(**options)).to(("commit", lambda d: d.set_state("decision", d.input)))
    return flow


def only(execution: TriggerFlowExecution) -> str:
    (interrupt_id,) = execution.get_pending_interrupts()
    return interrupt_id


async def test_pause_and_go_on(world: World) -> None:
    """The simplest pause: record, status, state version, answer, close snapshot (A1)."""
    execution = world.execution(approval())
    assert await execution.async_start("T") is execution
    assert (execution.get_status(), execution.get_lifecycle_state()) == ("waiting", "open")
    assert execution.result.get_meta()["state_version"] == 1
    (record,) = execution.get_pending_interrupts().values()
    assert record["source_signal"]["trigger_event"] == "START"
    assert record["source_signal"]["value"] == "T"
    assert record["continuation_event"] == f"Chunk[ask]-{record['source_operator_id']}"
    assert (record["source_execution_id"], record["source_flow_name"]) == (execution.id, "approval")
    answered = await execution.async_continue_with(record["id"], {"approved": True}, actor="ana")
    assert answered is not None
    assert answered["status"] == "resumed"
    assert answered["response"] == answered["resume_value"] == {"approved": True}
    assert answered["actor"] == "ana"
    assert execution.get_status() == "running"
    assert await execution.async_close() == {"decision": {"approved": True}}
    meta = execution.result.get_meta()
    assert (meta["status"], meta["lifecycle_state"], meta["close_reason"]) == ("completed", "closed", "manual")
    assert meta["state_version"] == 5


async def test_the_order_of_events_in_the_simplest_pause(world: World) -> None:
    """The compatible order, plus our own waiting and answered events; chunk completions are flat."""
    execution = world.execution(approval())
    await execution.async_start("T")
    await execution.async_continue_with(only(execution), 1)
    await execution.async_close()
    assert world.types() == [
        "triggerflow.definition_declared",
        "triggerflow.execution_started",
        "chunk.started",
        "triggerflow.interrupt_raised",
        "triggerflow.stream_item_emitted",
        "chunk.completed",
        "triggerflow.execution_waiting",
        "triggerflow.execution_resumed",
        "triggerflow.stream_item_emitted",
        "triggerflow.interrupt_answered",
        "chunk.started",
        "chunk.completed",
        "triggerflow.execution_sealed",
        "triggerflow.execution_completed",
        "triggerflow.stream_closed",
        "triggerflow.execution_closed",
    ]
    keys = [(r.epoch, r.seq, r.sub) for r in world.recorder.records]
    assert len(set(keys)) == len(keys), "(epoch, seq, sub) is unique"
    paused, done = world.payloads("chunk.completed")
    assert (paused["status"], paused["returned_pause_signal"], paused["output"]) == ("waiting", True, None)
    assert (done["status"], done["returned_pause_signal"]) == ("completed", False)


async def test_the_public_shape_of_the_stream_items(world: World) -> None:
    """Interrupts appear on the stream as they do in the compatible API."""
    execution = world.execution(approval(interrupt_id="my"))
    await execution.async_start("T")
    await execution.async_continue_with("my", {"ok": 1})
    await execution.async_close()
    pause, resume = [item async for item in execution.get_async_runtime_stream(timeout=None)]
    assert set(pause) == {"type", "action", "execution_id", "interrupt", "signal"}
    assert set(resume) == {"type", "action", "execution_id", "interrupt", "value"}
    assert (pause["type"], pause["action"], pause["execution_id"]) == ("interrupt", "pause", execution.id)
    assert (resume["action"], resume["value"]) == ("resume", {"ok": 1})
    assert pause["signal"] == pause["interrupt"]["source_signal"]
    assert (pause["interrupt"]["status"], resume["interrupt"]["status"]) == ("waiting", "resumed")


async def test_wrong_continues(world: World) -> None:
    """Unknown is a KeyError, twice a ValueError, after close a warning and None (A2)."""
    execution = world.execution(approval())
    await execution.async_start("T")
    with pytest.raises(InterruptNotFound, match=f"{execution.id}: interrupt 'nope' not found") as unknown:
        await execution.async_continue_with("nope")

    assert isinstance(unknown.value, KeyError)
    interrupt_id = only(execution)
    await execution.async_continue_with(interrupt_id, 1)
    with pytest.raises(InterruptError, match=rf"{execution.id}: interrupt '{interrupt_id}' is not waiting") as twice:
        await execution.async_continue_with(interrupt_id, 2)

    assert isinstance(twice.value, ValueError)
    await execution.async_close()
    with pytest.warns(RuntimeWarning, match="refused, it is closed"):
        assert await execution.async_continue_with(interrupt_id, 3) is None

    (rejected,) = world.payloads("triggerflow.continue_rejected")
    assert rejected == {"lifecycle_state": "closed", "interrupt_id": interrupt_id}


async def test_a_sealed_execution_takes_no_answers(world: World) -> None:
    """Sealed refuses continue_with and leaves the interrupt waiting; unsealed it goes on."""
    execution = world.execution(approval())
    await execution.async_start("T")
    execution.seal()
    with pytest.warns(RuntimeWarning, match="sealed"):
        assert await execution.async_continue_with(only(execution), 1) is None

    execution.unseal()
    await execution.async_continue_with(only(execution), 1)
    assert await execution.async_close() == {"decision": 1}


async def test_closing_while_somebody_is_asked(world: World) -> None:
    """close() refuses, names the interrupts and leaves everything usable (A3)."""
    execution = world.execution(approval())
    await execution.async_start("T")
    interrupt_id = only(execution)
    with pytest.raises(PendingInterruptsError, match=interrupt_id) as caught:
        await execution.async_close()

    assert isinstance(caught.value, RuntimeError)
    assert execution.id in str(caught.value) and 'pending_interrupts="cancel"' in str(caught.value)
    assert execution.get_lifecycle_state() == "open"
    (rejected,) = world.payloads("triggerflow.pending_interrupts_close_rejected")
    assert rejected["pending_interrupt_ids"] == [interrupt_id]
    with pytest.raises(ValueError, match="'bogus'"):
        await execution.async_close(pending_interrupts="bogus")

    await execution.async_continue_with(interrupt_id, 1)
    assert await execution.async_close() == {"decision": 1}
    assert await execution.async_close(pending_interrupts="bogus") == {"decision": 1}, "closed is closed"


async def test_giving_up_at_close(world: World) -> None:
    """The cancel policy cancels what waits and the run with it (A4)."""
    execution = world.execution(approval())
    await execution.async_start("T")
    interrupt_id = only(execution)
    assert await execution.async_close(pending_interrupts="cancel") == {}
    record = execution.get_interrupt(interrupt_id)
    assert record is not None
    assert (record["status"], record["cancel_reason"]) == ("cancelled", "manual")
    assert record["cancelled_at"] is not None
    assert execution.get_status() == execution.result.get_meta()["status"] == "cancelled"
    assert world.types()[-5:] == [
        "triggerflow.pending_interrupts_cancelled",
        "triggerflow.execution_sealed",
        "triggerflow.execution_cancelled",
        "triggerflow.stream_closed",
        "triggerflow.execution_closed",
    ]


async def test_answers_go_to_an_event(world: World) -> None:
    """resume_event sends the answer to that event's handlers; the chain behind the chunk does not run (A6)."""
    flow = TriggerFlow(name="f")
    flow.to(ask(resume_event="Go", interrupt_id="my")).to(keep("never"))
    seen: list[Any] = []

    async def go(data: Data) -> None:
        seen.append((data.input, data.is_resume, data.signal_source, data.resume.interrupt_id))

    flow.when("Go").to(go)
    execution = world.execution(flow)
    await execution.async_start("T")
    await execution.async_continue_with("my", "V")
    assert await execution.async_close() == {}
    assert seen == [("V", True, "interrupt", "my")]


async def test_a_matching_emit_is_an_answer(world: World) -> None:
    """Emitting the event answers the interrupt; its handlers run once, and are no resumption (A6)."""
    flow = TriggerFlow(name="f")
    flow.to(ask(resume_event="Go", interrupt_id="my")).to(keep("never"))
    seen: list[Any] = []

    async def go(data: Data) -> None:
        seen.append((data.input, data.is_resume, data.signal_source))

    flow.when("Go").to(go)
    execution = world.execution(flow)
    await execution.async_start("T")
    await execution.async_emit("Go", "E")
    record = execution.get_interrupt("my")
    assert record is not None
    assert (record["status"], record["response"]) == ("resumed", "E")
    assert record["resumed_by_signal_id"]
    assert execution.get_status() == "running"
    assert seen == [("E", False, "runtime")]
    (resumed,) = world.payloads("triggerflow.execution_resumed")
    assert [each["id"] for each in resumed["interrupts"]] == ["my"]
    assert resumed["signal"]["id"] == record["resumed_by_signal_id"]
    await execution.async_close()


async def test_other_events_run_while_it_waits(world: World) -> None:
    """An unrelated event runs its whole chain while somebody is asked, also one that carries live objects."""
    flow = approval(resume_event="Go")
    flow.when("Other").to(passes("a", lambda v: "done")).to(keep("other"))
    execution = world.execution(flow)
    await execution.async_start("T")
    await execution.async_emit("Other", object())
    assert execution.get_state() == {"other": "done"}
    assert execution.get_status() == "waiting"
    await execution.async_close(pending_interrupts="cancel")


async def test_a_chunk_may_resume_itself(world: World) -> None:
    """resume_to="self" calls the chunk again with its original input; what it returns flows on (A7)."""
    calls: list[Any] = []

    async def twice(data: Data) -> Any:
        calls.append((data.input, data.is_resume, data.signal_source, data.resume.value))
        if data.is_resume:
            return data.resume.value

        return await data.async_pause_for(resume_to="self")

    flow = TriggerFlow(name="f")
    flow.to(twice).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start("T")
    await execution.async_continue_with(only(execution), "answer")
    assert calls == [("T", False, "start", None), ("T", True, "interrupt", "answer")]
    assert await execution.async_close() == {"out": "answer"}


async def test_downstream_sees_the_resume(world: World) -> None:
    """After "next" the following chunk carries the resume context."""
    seen: list[dict[str, Any]] = []
    flow = TriggerFlow(name="f")
    flow.to(ask(interrupt_id="my")).to(("look", lambda d: seen.append(d.signal_meta)))
    execution = world.execution(flow)
    await execution.async_start("T")
    await execution.async_continue_with("my", 5)
    (meta,) = seen
    assert meta["interrupt_id"] == "my"
    assert (meta["resume"]["value"], meta["resume"]["origin_signal"]["value"]) == (5, "T")
    await execution.async_close()


async def test_two_parallel_pauses(world: World) -> None:
    """Branches wait on their own; the order of the answers is free (A8)."""
    flow = TriggerFlow(name="f")
    flow.to(ask("one")).to(keep("one"))
    flow.to(ask("two")).to(keep("two"))
    execution = world.execution(flow)
    await execution.async_start()
    one, two = execution.get_pending_interrupts()
    await execution.async_continue_with(two, 2)
    assert (execution.get_status(), execution.get_state()) == ("waiting", {"two": 2})
    await execution.async_continue_with(one, 1)
    assert execution.get_status() == "running"
    assert list((await execution.async_close()).items()) == [("two", 2), ("one", 1)]


async def test_auto_close_waits_for_people(world: World) -> None:
    """While somebody is asked nothing closes; after the answer the idle clock starts anew (A9)."""
    execution = world.execution(approval(), auto_close=True, auto_close_timeout=0.3)
    running = asyncio.create_task(execution.async_start("T"))
    await turns()
    await world.clock.advance(1.0)
    assert execution.is_open()
    answered_at = world.clock.time_us()
    await execution.async_continue_with(only(execution), 1)
    await world.clock.advance(0.29)
    assert execution.is_open()
    await world.clock.advance(0.02)
    assert await running == {"decision": 1}
    meta = execution.result.get_meta()
    assert meta["close_reason"] == "auto_close_idle_timeout"
    assert meta["closed_at"] == pytest.approx(answered_at / 1e6 + 0.3, abs=0.001)


async def test_a_hidden_handle_cannot_pause(world: World) -> None:
    """flow.start() and its stream hide the handle, so a pause in them is an error that says what to do (A10)."""
    flow = approval()
    with pytest.raises(HiddenHandleError, match=r"create_execution\(\).*get_pending_interrupts\(\).*continue_with\(\)"):
        await flow.async_start("T", services=world.services)

    assert [t for t in world.types() if "interrupt" in t or "failed" in t] == [
        "triggerflow.interrupt_unhandled",
        "chunk.failed",
        "triggerflow.execution_failed",
    ]
    (unhandled,) = world.payloads("triggerflow.interrupt_unhandled")
    assert unhandled == {"type": "approval", "payload": {"q": "T"}, "resume_event": None, "resume_to": None}
    with pytest.raises(HiddenHandleError):
        async for _ in flow.get_async_runtime_stream("T", services=world.services):
            pass


async def test_pausing_outside_a_chunk(world: World) -> None:
    """execution.pause_for() asks without a chunk; the answer needs an event to go to."""
    flow = TriggerFlow(name="f")
    flow.when("Go").to(keep("went"))
    execution = world.execution(flow)
    await execution.async_start()
    for target in (None, "next", "self"):
        with pytest.raises(InterruptError, match="outside a chunk has no step to return to"):
            await execution.async_pause_for(resume_to=target)

    signal = await execution.async_pause_for(type="external", resume_to={"event": "Go"})
    assert execution.get_status() == "waiting"
    assert signal["source_operator_id"] is None
    await execution.async_continue_with(signal["id"], 3)
    assert await execution.async_close() == {"went": 3}


@pytest.mark.parametrize("target", ["back", 3, {}, {"event": ""}, {"event": 3}, {"event": "A", "x": 1}, ["next"]])
async def test_an_invalid_resume_to(world: World, target: Any) -> None:
    """A resume_to that leads nowhere is refused when the chunk pauses, not swallowed at the answer (defect 11)."""
    execution = world.execution(approval(resume_to=target))
    with pytest.raises(InterruptError, match="resume_to="):
        await execution.async_start("T")

    assert execution.get_pending_interrupts() == {}
    await execution.async_close()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"type": ""}, "type=''"),
        ({"interrupt_id": 7}, "interrupt_id=7"),
        ({"resume_event": 7}, "resume_event=7"),
        ({"expires_in": 0}, "expires_in=0"),
        ({"expires_in": True}, "expires_in=True"),
        ({"expires_in": float("nan")}, "expires_in=nan"),
        ({"expires_in": 5, "on_expire": "retry"}, "on_expire='retry'"),
        ({"expires_in": 5, "on_expire": {"value": 1, "event": "E"}}, "on_expire="),
        ({"schema": "boolean"}, "schema='boolean'"),
        ({"schema": {"type": "integer"}, "expires_in": 5, "on_expire": {"value": "x"}}, "on_expire does not fit"),
        ({"schema": {"pattern": "("}}, "schema: 'pattern' is no regular expression"),
        ({"assignees": "ana"}, "assignees='ana'"),
        ({"payload": {"deep": [object()]}}, r"payload.deep\[0\]"),
    ],
)
async def test_a_wrong_pause_is_refused(world: World, options: dict[str, Any], text: str) -> None:
    """Every argument of pause_for is checked when it is called; the error names it."""
    execution = world.execution(approval(**options))
    with pytest.raises(InterruptError, match=text):
        await execution.async_start("T")

    await execution.async_close()


async def test_an_unknown_option_is_a_type_error(world: World) -> None:
    """A misspelt option does not pass silently, whichever twin is called."""
    flow = TriggerFlow(name="f")
    flow.to(("sync", lambda d: d.pause_for(expire_in=5)))
    with pytest.raises(TypeError, match="expire_in"):
        await world.execution(flow).async_start()


async def test_an_id_that_waits_is_taken(world: World) -> None:
    """Two pauses under one id are two questions: the second is refused and the first goes on waiting (defect 12)."""
    flow = TriggerFlow(name="f")
    flow.to(ask("one", interrupt_id="my")).to(keep("one"))
    flow.when("Two").to(ask("two", interrupt_id="my")).to(keep("two"))
    execution = world.execution(flow)
    await execution.async_start()
    with pytest.raises(InterruptError, match="'my' is taken"):
        await execution.async_emit("Two")

    assert list(execution.get_pending_interrupts()) == ["my"]
    await execution.async_continue_with("my", 1)
    assert await execution.async_close() == {"one": 1}
    assert execution.get_status() == "failed"


async def test_an_id_can_be_used_again_once_answered(world: World) -> None:
    """A loop may ask under the same id in every round."""
    flow = TriggerFlow(name="f")

    async def check(data: Data) -> None:
        if data.input != "ok":
            await data.async_emit("Ask", data.input)
        else:
            await data.async_set_state("done", True)

    flow.when("Ask").to(ask("ask", interrupt_id="my")).to(check)
    execution = world.execution(flow)
    await execution.async_emit("Ask", "first")
    for answer in ("no", "nope", "ok"):
        await execution.async_continue_with("my", answer)

    assert await execution.async_close() == {"done": True}


async def test_a_chunk_asks_one_thing_at_a_time(world: World) -> None:
    """A second pause in one chunk is refused: only one answer could bring it back."""
    flow = TriggerFlow(name="f")

    async def greedy(data: Data) -> Any:
        await data.async_pause_for(type="one")
        return await data.async_pause_for(type="two")

    flow.to(greedy)
    with pytest.raises(InterruptError, match="chunk 'greedy' waits for interrupt .* already"):
        await world.execution(flow).async_start()


async def test_an_answer_must_fit_the_schema(world: World) -> None:
    """An answer of the wrong shape says what is wrong with it, and the interrupt goes on waiting."""
    schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
    execution = world.execution(approval(schema=schema))
    await execution.async_start("T")
    with pytest.raises(InterruptError, match="answer.ok: is missing"):
        await execution.async_continue_with(only(execution), {})

    with pytest.raises(InterruptError, match=r"answer.ok: must be boolean, not string"):
        await execution.async_continue_with(only(execution), {"ok": "yes"})

    assert execution.get_status() == "waiting"
    await execution.async_continue_with(only(execution), {"ok": True})
    await execution.async_close()


async def test_a_pydantic_model_is_a_schema(world: World) -> None:
    """schema= takes a model; its JSON Schema is what the record publishes."""
    from pydantic import BaseModel

    class Decision(BaseModel):
        ok: bool

    execution = world.execution(approval(schema=Decision))
    await execution.async_start("T")
    (record,) = execution.get_pending_interrupts().values()
    assert record["schema"]["required"] == ["ok"]
    with pytest.raises(InterruptError):
        await execution.async_continue_with(record["id"], {"ok": "x"})

    await execution.async_continue_with(record["id"], {"ok": False})
    await execution.async_close()


async def test_an_answer_that_cannot_be_stored(world: World) -> None:
    """A live object is no answer; the interrupt goes on waiting."""
    execution = world.execution(approval())
    await execution.async_start("T")
    with pytest.raises(TypeError, match=r"value.who"):
        await execution.async_continue_with(only(execution), {"who": object()})

    assert execution.get_status() == "waiting"
    await execution.async_close(pending_interrupts="cancel")


async def test_records_are_copies(world: World) -> None:
    """Changing what a getter returned, or what was given, changes nothing inside."""
    payload = {"items": [1]}
    flow = TriggerFlow(name="f")
    flow.to(("ask", lambda d: d.pause_for(payload=payload)))
    execution = world.execution(flow)
    await execution.async_start()
    payload["items"].append(2)
    record = execution.get_pending_interrupts()[only(execution)]
    record["payload"]["items"].append(3)
    again = execution.get_interrupt(only(execution))
    assert again is not None and again["payload"] == {"items": [1]}
    await execution.async_close(pending_interrupts="cancel")


async def test_a_record_may_quote_a_live_value(world: World) -> None:
    """A chunk that was reached by a live object can pause; the record shows the object."""
    live = object()
    execution = world.execution(approval(payload=None))
    await execution.async_start(live)
    assert execution.get_pending_interrupts()[only(execution)]["source_signal"]["value"] is live
    await execution.async_close(pending_interrupts="cancel")


async def test_a_foreign_pause_signal(world: World) -> None:
    """A chunk must return the signal of its own pause; another's is refused."""
    signals: list[Any] = []
    other = TriggerFlow(name="other")
    other.to(("ask", lambda d: signals.append(d.pause_for()) or signals[0]))
    elsewhere = world.execution(other)
    await elsewhere.async_start()
    flow = TriggerFlow(name="f")
    flow.to(("thief", lambda d: signals[0])).to(keep("never"))
    with pytest.raises(InterruptError, match="chunk 'thief' returned a pause signal that it did not get"):
        await world.execution(flow).async_start()

    assert elsewhere.get_status() == "waiting"
    await elsewhere.async_close(pending_interrupts="cancel")


async def test_a_chunk_that_forgets_to_return_its_signal_still_waits(world: World) -> None:
    """What it returns instead is lost; the answer goes on."""
    flow = TriggerFlow(name="f")

    async def forgets(data: Data) -> str:
        await data.async_pause_for()
        return "lost"

    flow.to(forgets).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    await execution.async_continue_with(only(execution), "answer")
    assert await execution.async_close() == {"out": "answer"}


async def test_an_answer_while_the_chunk_still_runs(world: World) -> None:
    """An answer may be faster than the handler that asked: the branch goes on when the handler returns."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def slow(data: Data) -> Any:
        signal = await data.async_pause_for(interrupt_id="my")
        await gate.wait()
        return signal

    flow.to(slow).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    await execution.async_continue_with("my", 1)
    assert execution.get_state() == {}
    gate.set()
    await running
    assert await execution.async_close() == {"out": 1}


async def test_an_early_answer_is_kept(world: World) -> None:
    """An answer from another process that comes before its question counts when the question is asked."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def wait(data: Data) -> Any:
        await gate.wait()
        return data.input

    schema = {"type": "integer"}
    flow.to(wait).to(ask(interrupt_id="my", schema=schema)).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    execution.deliver(InboxRow(1, execution.id, "resume", "my", 7, "d1", "ana", 0))
    execution.deliver(InboxRow(2, execution.id, "resume", "my", 8, "d2", "bo", 0))
    await turns()
    gate.set()
    await running
    assert await execution.async_close() == {"out": 7}
    outcomes = [(p["outcome"], p["actor"]) for p in world.payloads("triggerflow.inbox_applied")]
    assert outcomes == [("early", "ana"), ("conflict", "bo"), ("applied", "ana")]
    record = execution.get_interrupt("my")
    assert record is not None and record["actor"] == "ana"


async def test_an_early_answer_of_the_wrong_shape(world: World) -> None:
    """It is refused when the question is asked, which goes on waiting for a better one."""
    gate = asyncio.Event()
    flow = TriggerFlow(name="f")

    async def wait(data: Data) -> Any:
        await gate.wait()
        return data.input

    flow.to(wait).to(ask(interrupt_id="my", schema={"type": "integer"})).to(keep("out"))
    execution = world.execution(flow)
    running = asyncio.create_task(execution.async_start())
    await turns()
    execution.deliver(InboxRow(1, execution.id, "resume", "my", "seven", "d1", "ana", 0))
    await turns()
    gate.set()
    await running
    assert execution.get_status() == "waiting"
    assert [p["outcome"] for p in world.payloads("triggerflow.inbox_applied")] == ["early", "rejected"]
    await execution.async_continue_with("my", 7)
    assert await execution.async_close() == {"out": 7}


async def test_requests_from_other_processes(world: World) -> None:
    """Rows answer, emit and cancel; each is told its outcome."""
    flow = approval(interrupt_id="my")
    flow.when("Ping").to(keep("ping"))
    execution = world.execution(flow)
    await execution.async_start("T")

    def row(kind: str, target: str | None, payload: Any = None) -> InboxRow:
        return InboxRow(1, execution.id, kind, target, payload, "d", "ana", 0)

    for each in (row("emit", "Ping", 1), row("resume", "my", 2), row("resume", "my", 3), row("dance", None)):
        execution.deliver(each)
        await turns()

    assert execution.get_state() == {"ping": 1, "decision": 2}
    outcomes = [(p["kind"], p["outcome"]) for p in world.payloads("triggerflow.inbox_applied")]
    assert outcomes == [("emit", "applied"), ("resume", "applied"), ("resume", "conflict"), ("dance", "rejected")]
    execution.deliver(row("cancel", None))
    await turns()
    assert execution.get_status() == "cancelled"
    assert execution.result.get_meta()["close_reason"] == "cancelled by ana"


async def test_a_pause_ends_an_awaited_emit(world: World) -> None:
    """An emitter does not wait for a branch that parks (deviation: the subtree has finished or parked)."""
    flow = TriggerFlow(name="f")

    async def work(data: Data) -> None:
        await data.async_emit("Ask", 1)
        await data.async_set_state("emitted", True)

    flow.to(work)
    flow.when("Ask").to(ask()).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start()
    assert execution.get_state() == {"emitted": True}
    await execution.async_continue_with(only(execution), 2)
    assert await execution.async_close() == {"emitted": True, "out": 2}


async def test_a_chunk_may_answer_another(world: World) -> None:
    """continue_with inside a handler answers another branch's interrupt."""
    flow = TriggerFlow(name="f")
    flow.to(ask(interrupt_id="my")).to(keep("out"))

    async def answers(data: Data) -> None:
        await data.async_continue_with("my", 5, actor="bot")
        await data.async_set_state("after", data.get_state("out"))

    flow.when("Answer").to(answers)
    execution = world.execution(flow)
    await execution.async_start()
    await execution.async_emit("Answer")
    assert await execution.async_close() == {"out": 5, "after": 5}


async def test_a_failure_after_the_answer(world: World) -> None:
    """What the resumed branch raises, continue_with raises; the interrupt stays answered."""
    flow = TriggerFlow(name="f")
    flow.to(ask(interrupt_id="my")).to(("bad", lambda d: 1 / 0))
    execution = world.execution(flow)
    await execution.async_start()
    with pytest.raises(ZeroDivisionError):
        await execution.async_continue_with("my", 5)

    record = execution.get_interrupt("my")
    assert record is not None and record["status"] == "resumed"
    assert execution.get_status() == "failed"
    await execution.async_close()


async def test_a_pausing_block_gives_its_place_to_the_next(world: World) -> None:
    """for_each(concurrency=1) asks everybody at once; values come back in order whatever the order of answers."""
    flow = TriggerFlow(name="f")
    flow.for_each(concurrency=1).to(ask()).to(passes("plus", lambda v: v + 1)).end_for_each().to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start([10, 20, 30])
    pending = execution.get_pending_interrupts()
    for interrupt_id in reversed(pending):
        await execution.async_continue_with(interrupt_id, pending[interrupt_id]["payload"]["q"])

    assert await execution.async_close() == {"out": [11, 21, 31]}
