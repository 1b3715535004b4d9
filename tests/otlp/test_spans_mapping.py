"""What each event becomes: spans of agents, tools and models, errors, twins, span events, context and sampling."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from tests.otlp.hand import Hand, notes, said
from tests.otlp.scenarios import make_mapper, tree

from flowdeck.events import RunContext
from flowdeck_sinks.otlp.content import Capture, Limits
from flowdeck_sinks.otlp.ids import span_id_of, trace_id_of
from flowdeck_sinks.otlp.sampling import make_sampler


def test_an_agent_a_model_and_a_tool(hand: Hand) -> None:
    """invoke_agent, request, chat and execute_tool nest by lineage and carry the GenAI and OpenInference names."""
    turn = hand.step.create_child(run_kind="agent_turn", agent_id="a1", agent_name="helper", session_id="s7")
    request = turn.create_child(run_kind="request", response_id="resp1")
    loop = request.create_child(run_kind="action_loop")
    action = loop.create_child(run_kind="action", meta={"action_name": "search"})
    call = request.create_child(run_kind="model_request")
    hand("agent_turn.started", turn, {"agent_id": "a1", "agent_name": "helper"})
    hand("request.started", request, {"agent_name": "helper", "attempt_index": 1})
    hand("action.loop_started", loop, {"agent_name": "helper", "action_count": 1})
    command = {"call_id": "call-1", "action_input": {"q": "parcel"}}
    hand("action.started", action, {"action_name": "search", "action_type": "tool", "command": command})
    hand("action.completed", action, {"action_name": "search", "record": {"result": [1, 2]}})
    hand("action.loop_completed", loop, {"record_count": 1})
    hand("model.request_started", call, {"attempt_index": 1})
    hand("prompt.built", call, {"prompt_messages": [{"role": "user", "content": "where?"}]})
    hand("model.requesting", call, {"request": {"data": {"model": "gpt-9"}, "provider": "openai"}})
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    hand("model.meta", call, {"meta": {"finish_reason": "stop", "usage": usage, "model": "gpt-9-mini"}})
    hand("model.completed", call, {"result": "at the depot"})
    hand("request.completed", request, {})
    hand("agent_turn.completed", turn, {})
    spans = hand.end().spans()
    assert tree(hand.all) == [
        "invoke_workflow shop",
        "  step work",
        "    invoke_agent helper",
        "      request helper",
        "        action_loop helper",
        "          execute_tool search",
        "        chat gpt-9",
    ]
    chat = said(spans["chat gpt-9"])
    assert spans["chat gpt-9"].kind is SpanKind.CLIENT
    assert (chat["gen_ai.operation.name"], chat["openinference.span.kind"]) == ("chat", "LLM")
    assert (chat["gen_ai.provider.name"], chat["gen_ai.response.model"]) == ("openai", "gpt-9-mini")
    assert (chat["gen_ai.usage.input_tokens"], chat["gen_ai.usage.output_tokens"]) == (12, 3)
    assert (chat["llm.token_count.total"], chat["gen_ai.response.finish_reasons"]) == (15, ("stop",))
    assert chat["gen_ai.conversation.id"] == chat["session.id"] == "s7"
    assert json.loads(chat["gen_ai.input.messages"]) == [{"role": "user", "content": "where?"}]
    assert chat["output.value"] == "at the depot"
    tool = said(spans["execute_tool search"])
    assert (tool["gen_ai.operation.name"], tool["gen_ai.tool.name"], tool["tool.name"]) == (
        "execute_tool",
        "search",
        "search",
    )
    assert (tool["gen_ai.tool.call.id"], tool["gen_ai.tool.type"]) == ("call-1", "function")
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"q": "parcel"}
    assert json.loads(tool["gen_ai.tool.call.result"]) == [1, 2]
    agent = said(spans["invoke_agent helper"])
    assert (agent["gen_ai.agent.name"], agent["gen_ai.agent.id"]) == ("helper", "a1")
    assert agent["openinference.span.kind"] == "AGENT"


def test_the_ids_are_hashes_of_the_runs(hand: Hand) -> None:
    """trace_id = h(root_run_id), span_id = h(run_id), the parent's is h(parent_run_id): DESIGN §2."""
    spans = hand.end().spans()
    root, step = spans["invoke_workflow shop"], spans["step work"]
    assert root.context is not None and step.context is not None and step.parent is not None
    assert root.context.trace_id == trace_id_of(hand.root.run_id)
    assert root.context.span_id == span_id_of(hand.root.run_id) == step.parent.span_id
    assert step.context.span_id == span_id_of(hand.step.run_id)
    assert root.parent is None


def test_without_capture_no_content_leaves(hand: Hand) -> None:
    """The default: what went in and came out is nowhere in the spans."""
    hand("billing.paid", hand.step, {"secret_note": "SENSITIVE"}, message="paid")
    hand.end()
    hand.spans(make_mapper(content=False))
    text = "".join(span.to_json() for span in hand.all)
    assert "input.value" not in text and "output.value" not in text and "SENSITIVE" not in text
    assert "paid" in text


@pytest.mark.parametrize(
    ("text", "spans", "events"),
    [
        ("", False, False),
        ("NO_CONTENT", False, False),
        ("span_only", True, False),
        ("EVENT_ONLY", False, True),
        ("SPAN_AND_EVENT", True, True),
        ("true", True, True),
        ("everything", False, False),
    ],
)
def test_the_content_variable(text: str, spans: bool, events: bool) -> None:
    """The standard variable decides; an unknown value captures nothing and says so."""
    capture = Capture.from_environment({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": text})
    assert (capture.spans, capture.events) == (spans, events)
    assert (capture.problem is not None) == (text == "everything")


def test_an_error_is_told_once_at_the_innermost_span(hand: Hand) -> None:
    """Model, request, turn, step and flow all failed; the exception stands at the model alone."""
    turn = hand.step.create_child(run_kind="agent_turn")
    request = turn.create_child(run_kind="request")
    call = request.create_child(run_kind="model_request")
    for event_type, run in (
        ("agent_turn.started", turn),
        ("request.started", request),
        ("model.request_started", call),
    ):
        hand(event_type, run, {"agent_name": "helper"})

    error = TimeoutError("the model took too long")
    for event_type, run in (
        ("model.failed", call),
        ("model.request_failed", call),
        ("request.failed", request),
        ("agent_turn.failed", turn),
        ("chunk.failed", hand.step),
        ("triggerflow.execution_failed", hand.root),
    ):
        hand(event_type, run, {"agent_name": "helper", "will_retry": False}, level="ERROR", error=error)

    hand.spans()
    assert {span.name: notes(span).count("exception") for span in hand.all} == {
        "invoke_workflow shop": 0,
        "step work": 0,
        "invoke_agent helper": 0,
        "request helper": 0,
        "chat": 1,
    }
    for span in hand.all:
        assert (span.status.status_code, said(span)["error.type"]) == (StatusCode.ERROR, "TimeoutError")
        assert said(span)["flow.outcome"] == "timeout"


def test_a_parent_that_fails_for_its_own_reason_tells_it(hand: Hand) -> None:
    """The child's error was caught; what the parent raised afterwards is an error of its own."""
    turn = hand.step.create_child(run_kind="agent_turn")
    hand("agent_turn.started", turn, {})
    hand("agent_turn.failed", turn, {}, level="ERROR", error=ValueError("refused"))
    hand("chunk.failed", hand.step, {"status": "failed"}, level="ERROR", error=KeyError("no answer"))
    spans = hand.spans()
    assert notes(spans["step work"]) == notes(spans["invoke_agent"]) == ["exception"]


def test_a_failed_action_has_its_error_in_its_record(hand: Hand) -> None:
    """action.failed carries no error field: the text comes from the record, the type is _OTHER."""
    action = hand.step.create_child(run_kind="action")
    hand("action.started", action, {"action_name": "fetch"})
    hand("action.failed", action, {"record": {"error": "404"}}, level="WARNING")
    span = hand.end().spans()["execute_tool fetch"]
    assert (span.status.description, said(span)["error.type"]) == ("404", "_OTHER")
    assert notes(span) == ["exception"]


def test_cancelled_is_no_error(hand: Hand) -> None:
    """A cancelled run keeps its status unset and says so in flow.outcome."""
    hand("triggerflow.execution_cancelled", hand.root, {"reason": "no"}, level="WARNING")
    span = hand.spans()["invoke_workflow shop"]
    assert (span.status.status_code, said(span)["flow.outcome"]) == (StatusCode.UNSET, "cancelled")


def test_tool_twins_never_double(hand: Hand) -> None:
    """A tool.* twin that is marked is dropped and counted; an unmarked one is the same run, hence the same span."""
    loop = hand.step.create_child(run_kind="action_loop")
    for event_type, meta in (
        ("action.loop_started", {}),
        ("tool.loop_started", {"compat_event_alias": True, "compat_alias_for": "action.loop_started"}),
        ("action.plan_ready", {}),
        ("tool.plan_ready", {"compat_event_alias": True}),
        ("tool.loop_completed", {}),
        ("action.loop_completed", {}),
    ):
        hand(event_type, loop, {"round_index": 1}, meta=meta)

    mapper = make_mapper()
    spans = hand.end().spans(mapper)
    assert [span.name for span in hand.all].count("action_loop") == 1
    assert notes(spans["action_loop"]) == ["action.plan_ready"]
    assert mapper.statistics()["alias_suppressed"] == 2


def test_old_names_of_flow_events(hand: Hand) -> None:
    """workflow.* and trigger_flow.* are triggerflow.*."""
    hand("workflow.execution_completed", hand.root, {"result": {}}, meta={"epoch": 1, "seq": 9})
    assert said(hand.spans()["invoke_workflow shop"])["flow.outcome"] == "success"


def test_interventions_and_signals_are_span_events(hand: Hand) -> None:
    """They stand on the span of their run with who and what, without content."""
    hand(
        "triggerflow.signal",
        hand.step,
        {"EVENT": "Go", "TYPE": "event", "SIGNAL_ID": "s4", "VALUE": "V"},
        level="DEBUG",
    )
    intervention = {"id": "iv1", "status": "inserted", "author": "ana", "target": "work", "payload": "PAYLOAD"}
    hand("triggerflow.intervention_inserted", hand.root, {"intervention": intervention})
    hand("triggerflow.state_changed", hand.step, {"key": "k", "value": 1}, level="DEBUG")
    hand("triggerflow.stream_item_emitted", hand.step, {"item": 1})
    spans = hand.end().spans()
    (signal,) = spans["step work"].events
    assert (signal.name, signal.attributes["flow.event.target"]) == ("triggerflow.signal", "Go")  # type: ignore[index]
    (inserted,) = spans["invoke_workflow shop"].events
    assert dict(inserted.attributes or {}) == {
        "log.record.uid": dict(inserted.attributes or {})["log.record.uid"],
        "flow.event.target": "work",
        "flow.event.actor": "ana",
        "flow.event.status": "inserted",
        "flow.event.object_id": "iv1",
    }


def test_span_events_have_a_bound(hand: Hand) -> None:
    """The earliest stay, what is beyond the limit is counted on the span."""
    for number in range(20):
        hand("user.thing", hand.step, {"n": number})

    span = hand.end().spans(make_mapper(limits=Limits(events=8)))["step work"]
    assert (len(span.events), said(span)["flow.events.dropped"]) == (8, 12)


def test_a_traced_caller(hand: Hand) -> None:
    """An incoming traceparent gives the trace id and the root's parent, for every run below too."""
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    hand.root = RunContext.create(run_kind="workflow_execution", meta={"flow_name": "shop", "traceparent": caller})
    hand.step = hand.root.create_child(run_kind="chunk_execution", meta={"chunk_name": "work"})
    hand.recorder.records.clear()
    spans = hand.begin().end().spans()
    root, step = spans["invoke_workflow shop"], spans["step work"]
    assert root.parent is not None and root.context is not None and step.context is not None
    assert (root.parent.span_id, root.parent.is_remote) == (0xB7AD6B7169203331, True)
    assert root.context.trace_id == step.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C


@pytest.mark.parametrize("header", ["", "rubbish", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-" + "1" * 32, "é"])
def test_a_traceparent_that_is_none(hand: Hand, header: str) -> None:
    """A header that is not valid is as good as none."""
    hand.root = RunContext.create(run_kind="workflow_execution", meta={"flow_name": "shop", "traceparent": header})
    hand.recorder.records.clear()
    hand("triggerflow.execution_started", hand.root, {}).spans()
    assert hand.all[0].context is not None and hand.all[0].context.trace_id == trace_id_of(hand.root.run_id)


@pytest.mark.parametrize(
    ("sampler", "flags", "recorded"),
    [
        ("parentbased_always_on", "01", True),
        ("parentbased_always_on", "00", False),
        ("always_on", "00", True),
        ("always_off", "01", False),
        ("parentbased_traceidratio", "01", True),
    ],
)
def test_sampling_is_decided_once_a_trace(hand: Hand, sampler: str, flags: str, recorded: bool) -> None:
    """The standard samplers; spans that are not recorded are still measured."""
    caller = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
    hand.root = RunContext.create(run_kind="workflow_execution", meta={"flow_name": "shop", "traceparent": caller})
    hand.step = hand.root.create_child(run_kind="chunk_execution", meta={"chunk_name": "work"})
    hand.recorder.records.clear()
    measured: list[ReadableSpan] = []
    mapper = make_mapper(sampler=make_sampler(sampler, 0.0), on_final=measured.append)
    hand.begin().end().spans(mapper)
    assert (len(hand.all), len(measured)) == (2 if recorded else 0, 2)
    assert mapper.statistics()["unsampled"] == (0 if recorded else 2)


def test_a_ratio_keeps_about_its_share() -> None:
    """traceidratio decides by the trace id, so that every process decides alike."""
    sample = make_sampler("traceidratio", 0.25)
    assert sample is not None
    kept = sum(sample(trace_id_of(f"run{number}"), None) for number in range(2000))
    assert 400 < kept < 600
    assert make_sampler("always_on") is None
