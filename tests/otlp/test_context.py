"""One trace from the caller through the flow to whom it calls, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from tests.otlp.receiver import http_receiver
from tests.otlp.story import memory_sink

from flowdeck import TriggerFlow
from flowdeck._runtime import Runtime
from flowdeck.events.lineage import run_context
from flowdeck.execution.ports import VirtualClock
from flowdeck.execution.services import use_services
from flowdeck_sinks.otlp.ids import span_id_of, trace_id_of
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.sink import OTLPSink

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on loopback and yield its URL."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def exported() -> Iterator[tuple[Runtime, Any]]:
    """A runtime whose spans go to a receiver; both are given, the spans are there after the block."""
    with http_receiver() as receiver:
        runtime = Runtime()
        sink = memory_sink(receiver.url)
        runtime.center.add_sink(sink)
        with use_services(runtime.services):
            yield runtime, receiver

        assert sink.flush(10)
        runtime.close()


def by_name(receiver: Any) -> dict[str, Any]:
    return {span.name: span for span in receiver.spans}


def test_a_request_a_flow_and_its_call_are_one_trace() -> None:
    """A flow started inside a traced request joins its trace; what a step calls nests under that step."""
    seen: list[str] = []
    called = FastAPI()

    @called.get("/price")
    async def price(request: Request) -> int:
        seen.append(request.headers["traceparent"])
        return 7

    tracer = TracerProvider().get_tracer("test")
    flow = TriggerFlow(name="offer")
    app = FastAPI()
    with served(called) as price_url, exported() as (runtime, receiver):

        async def ask(data: Any) -> int:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            async with httpx.AsyncClient() as client:
                return int((await client.get(f"{price_url}/price", headers=headers)).json())

        flow.to(("ask", ask))

        @app.post("/offer")
        async def offer(request: Request) -> dict[str, Any]:
            incoming = propagate.extract(request.headers)
            with (
                tracer.start_as_current_span("POST /offer", context=incoming) as server,
                use_services(runtime.services),
            ):
                await flow.async_start({"item": 1})
                return {"span_id": server.get_span_context().span_id}

        with served(app) as url:
            answer = httpx.post(f"{url}/offer", headers={"traceparent": CALLER})

        server_span = answer.json()["span_id"]

    spans = by_name(receiver)
    root, step = spans["invoke_workflow offer"], spans["step ask"]
    assert root.trace_id.hex() == step.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert root.parent_span_id == server_span.to_bytes(8, "big")
    assert step.parent_span_id == root.span_id
    assert seen == [f"00-0af7651916cd43dd8448eb211c80319c-{step.span_id.hex()}-01"]


def test_instrumented_clients_nest_under_the_step() -> None:
    """A tracer used inside a handler sees the step as its parent, also in a thread it hands work to."""
    provider = TracerProvider()
    flow = TriggerFlow(name="work")
    parents: dict[str, int] = {}

    def note(name: str) -> None:
        with provider.get_tracer("client").start_as_current_span(name) as span:
            parents[name] = span.parent.span_id if span.parent is not None else 0

    async def first(data: Any) -> None:
        note("in first")
        await asyncio.to_thread(note, "in a thread of first")

    def second(data: Any) -> None:
        note("in second")

    with exported() as (_, receiver):
        flow.to(("first", first)).to(("second", second))
        asyncio.run(flow.async_start(1))

    spans = by_name(receiver)
    ids = {name: int.from_bytes(span.span_id, "big") for name, span in spans.items()}
    assert parents == {
        "in first": ids["step first"],
        "in a thread of first": ids["step first"],
        "in second": ids["step second"],
    }
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_traceparent_can_be_given() -> None:
    """`create_execution(traceparent=)` and `run_context(traceparent=)` join a trace without OpenTelemetry."""
    flow = TriggerFlow(name="work")
    flow.to(("a", lambda data: data.input))
    with exported() as (_, receiver):
        flow.start(1, traceparent=CALLER)
        with run_context(traceparent=CALLER.replace("0af7", "0bf7")):
            flow.start(2)

    roots = [span for span in receiver.spans if span.name == "invoke_workflow work"]
    assert [span.trace_id.hex()[:4] for span in roots] == ["0af7", "0bf7"]
    assert {span.parent_span_id.hex() for span in roots} == {"b7ad6b7169203331"}


def test_an_unsampled_caller_is_honoured() -> None:
    """When the caller does not record its trace, neither do we, and outgoing calls say so."""
    flow = TriggerFlow(name="work")
    flags: list[int] = []
    flow.to(("a", lambda data: flags.append(int(trace.get_current_span().get_span_context().trace_flags))))
    with exported() as (_, receiver):
        flow.start(1, traceparent=CALLER[:-2] + "00")

    assert flags == [0]
    assert receiver.spans == []


def test_the_traceparent_rides_in_the_snapshot() -> None:
    """An execution saved in one place and resumed in another stays in the trace it was started in."""

    def define() -> TriggerFlow:
        flow = TriggerFlow(name="wait")

        async def ask(data: Any) -> Any:
            return await data.async_pause_for(type="approval", payload={}, resume_to="next")

        flow.to(("ask", ask)).to(("use", lambda data: data.input))
        return flow

    async def begin() -> dict[str, Any]:
        caller = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, TraceFlags(1))
        token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(caller)))
        execution = define().create_execution(auto_close=False)
        otel_context.detach(token)
        await execution.async_start(1)
        return json.loads(json.dumps(execution.save()))

    async def resume(state: dict[str, Any]) -> None:
        execution = define().create_execution(auto_close=False)
        execution.load(state)
        interrupt = next(iter(execution.get_pending_interrupts()))
        await execution.async_continue_with(interrupt, "yes")
        await execution.async_close()

    with exported() as (_, before):
        state = asyncio.run(begin())

    with exported() as (_, after):
        asyncio.run(resume(state))

    spans = [*before.spans, *after.spans]
    assert {span.trace_id.hex() for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    roots = [span for span in after.spans if span.name == "invoke_workflow wait"]
    assert [span.parent_span_id.hex() for span in roots] == ["b7ad6b7169203331"]


def test_after_a_very_long_wait_calls_go_to_the_new_trace() -> None:
    """What a handler calls after an answer that took over a day is in the trace its step is in."""
    flow = TriggerFlow(name="long")
    seen: list[SpanContext] = []

    async def ask(data: Any) -> Any:
        seen.append(trace.get_current_span().get_span_context())
        return await data.async_pause_for(type="approval", payload={}, resume_to="next")

    flow.to(("ask", ask)).to(("use", lambda data: seen.append(trace.get_current_span().get_span_context())))

    async def begin() -> dict[str, Any]:
        execution = flow.create_execution(auto_close=False)
        await execution.async_start(1)
        return json.loads(json.dumps(execution.save()))

    async def resume(state: dict[str, Any]) -> None:
        execution = flow.create_execution(auto_close=False)
        execution.load(state)
        await execution.async_continue_with(next(iter(execution.get_pending_interrupts())), "yes")
        await execution.async_close()

    with exported() as (runtime, receiver):
        runtime.services.clock = VirtualClock(time.time_ns() // 1000 - 25 * 3_600_000_000)
        state = asyncio.run(begin())

    with exported() as (runtime, receiver):
        asyncio.run(resume(state))

    step = by_name(receiver)["step use"]
    assert (step.trace_id, step.span_id) == (seen[1].trace_id.to_bytes(16, "big"), seen[1].span_id.to_bytes(8, "big"))
    assert seen[0].trace_id != seen[1].trace_id


def test_ids_can_be_computed_by_whoever_knows_the_run() -> None:
    """Trace and span ids are hashes of the runs' ids."""
    flow = TriggerFlow(name="work")
    runs: list[Any] = []

    def handler(data: Any) -> None:
        from flowdeck.events.lineage import current_run

        runs.append(current_run.get())

    flow.to(("a", handler))
    with exported() as (_, receiver):
        flow.start(1)

    step = by_name(receiver)["step a"]
    assert int.from_bytes(step.span_id, "big") == span_id_of(runs[0].run_id)
    assert int.from_bytes(step.trace_id, "big") == trace_id_of(runs[0].root_run_id)


def test_an_action_loop_shows_each_call_once() -> None:
    """A real loop gives one execute_tool span a call, below the loop's own, and none for the tool.* twins."""
    with exported() as (runtime, receiver):

        @runtime.actions.action_func
        async def look(order: str) -> dict[str, Any]:
            """Look an order up."""
            return {"order": order}

        def plan(context: dict[str, Any], request: dict[str, Any]) -> Any:
            if len(context["records"]) < 2:
                return [{"action_id": "look", "action_input": {"order": f"o-{len(context['records'])}"}}]

            return {"next_action": "response"}

        async def go() -> Any:
            return await runtime.actions.create_loop(plan, max_rounds=4).create_execution().async_start("o")

        state = asyncio.run(go())

    assert [record["status"] for record in state["records"]] == ["success", "success"]
    tools = [span for span in receiver.spans if span.name.startswith("execute_tool")]
    loop = next(span for span in receiver.spans if span.name.startswith("action_loop"))
    assert [span.name for span in tools] == ["execute_tool look"] * 2
    assert {span.parent_span_id for span in tools} == {loop.span_id}
    assert set(receiver.copies().values()) == {1}


def test_without_the_sink_nothing_of_it_is_loaded() -> None:
    """A program that does not export never imports OpenTelemetry, and executions look at no context."""
    code = (
        "import sys, flowdeck; from flowdeck import TriggerFlow; flow = TriggerFlow(name='w');"
        "flow.to(('a', lambda d: d.input)); flow.start(1); from flowdeck import runtime;"
        "assert runtime.center.enter_run is None;"
        "assert not [m for m in sys.modules if m.startswith(('opentelemetry', 'grpc', 'requests'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_grpc_is_imported_only_when_asked_for() -> None:
    """HTTP export leaves grpc alone."""
    code = (
        "import sys; from flowdeck_sinks.otlp.sink import OTLPSink;"
        "s = OTLPSink('http://127.0.0.1:9', mode='memory'); s.close();"
        "assert 'grpc' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_detached_sink_leaves_the_context_alone() -> None:
    """Once the sink is removed executions set no context any more."""
    runtime = Runtime()
    sink = OTLPSink(settings=OtlpSettings.from_environment("http://127.0.0.1:9", environ={}))
    runtime.center.add_sink(sink)
    assert runtime.center.enter_run is not None
    runtime.center.remove_sink(sink)
    assert runtime.center.enter_run is None
    sink.close(0.1)


@pytest.mark.parametrize("text", ["", "00-zz-1-01", "x" * 500, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_bad_traceparent_is_ignored(text: str) -> None:
    """What is no traceparent starts a trace of its own."""
    flow = TriggerFlow(name="work")
    flow.to(("a", lambda data: data.input))
    with exported() as (_, receiver):
        flow.start(1, traceparent=text)

    assert len({span.trace_id for span in receiver.spans}) == 1
    assert len(receiver.spans) == 2


def test_a_failing_entry_never_fails_a_flow() -> None:
    """A sink whose `enter_run` raises is logged; the execution goes on."""

    class Broken:
        name = "broken"

        def enter_run(self, run: Any) -> None:
            raise RuntimeError("no")

        def accept(self, record: Any) -> None: ...

        def flush(self, timeout: float) -> bool:
            return True

        def close(self, timeout: float) -> None: ...

        def statistics(self) -> dict[str, int | float | str]:
            return {}

    runtime = Runtime()
    runtime.center.add_sink(Broken())
    flow = TriggerFlow(name="work")
    done: list[int] = []
    flow.to(("a", lambda data: done.append(data.input)))
    with use_services(runtime.services):
        flow.start(7)

    assert done == [7]
