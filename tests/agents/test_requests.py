"""Requests: what is asked, what is read, what is told."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel, Field
from tests.agents.asking import asking, runs_of, told
from tests.workspace.conftest import Collector

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.errors import FlowdeckError, ModelNotConfigured, ModelOutputError
from flowdeck.testing import ModelReply, ToolCall

pytestmark = pytest.mark.anyio

REPORT = {"title": (str, "the title"), "tags": [(str, "a tag")], "n": int}
ANSWER = {"title": "Rain & snow", "tags": ["a", "b"], "n": 3}
ATTEMPT = ["model.request_started", "prompt.built", "model.requesting"]
TURN = ["agent_turn.started", "request.started", *ATTEMPT, "model.meta", "model.completed", "request.completed",
        "agent_turn.completed"]  # fmt: skip


async def test_one_turn(host: Runtime, events: Collector) -> None:
    """All readers share one call; events come in the documented order, each run below the one it belongs to."""
    with asking(host, [ModelReply(ANSWER, piece=7, reasoning="let me think")]) as (agent, server):
        response = agent.input("weather").output(REPORT).get_response()

        async def items() -> list[Any]:
            return [item async for item in response.get_async_generator("instant")]

        instant, data, meta = await asyncio.gather(items(), response.async_get_data(), response.async_get_meta())
        late = [text async for text in response.get_async_generator("delta")]
        thing = await response.async_get_data_object()
        assert len(server.requests) == 1

    assert data == ANSWER
    assert "".join(late) == await response.async_get_text() == await response.async_get_data(type="original")
    assert (thing.title, thing.tags) == ("Rain & snow", ["a", "b"])
    assert [i.delta for i in instant if i.path == "title"] == ["Rai", "n & sno", "w", None]
    assert [i.path for i in instant if i.is_complete] == ["title", "tags[0]", "tags[1]", "tags", "n"]
    assert meta["usage"]["output_tokens"] == 12
    assert (meta["finish_reason"], meta["reasoning_text"], meta["attempt_count"]) == ("stop", "let me think", 1)
    assert 0 < meta["time_to_first_token_us"] <= meta["duration_us"]
    assert told(events) == TURN
    turn, request, call = (events.of(name)[0].run for name in ("agent_turn.started", "request.started", "model.meta"))
    assert turn is not None and request is not None and call is not None
    assert (turn.parent_run_id, request.parent_run_id, call.parent_run_id) == (None, turn.run_id, request.run_id)
    assert turn.response_id == call.response_id == response.id
    completed = events.of("model.completed")[0].payload
    assert (completed["result"], completed["reasoning_text"]) == (ANSWER, "let me think")
    assert [r.payload["delta"] for r in events.of("model.streaming")] == late
    built = events.of("prompt.built")[0].payload
    assert built["output_format"] == "json"
    assert '"title": <str>,  // the title' in built["prompt_messages"][0]["content"]


async def test_a_turn_ends_once_whatever_the_attempts(host: Runtime, events: Collector) -> None:
    """A retry is a model request of its own with a response id of its own; request and turn end after the last."""
    script = ['{"title": "cut', {"tags": []}, {"title": None}, ANSWER]
    with asking(host, script) as (agent, server):
        response = agent.input("weather").output(REPORT).get_response(ensure_keys=["title"])
        first = [text async for text in response.get_async_generator("delta")]
        assert "".join(first) == script[0]
        assert await response.async_get_data() == ANSWER
        assert "Your last answer was not accepted" in server.requests[1]["messages"][-1]["content"]

    assert told(events, "agent_turn", "request") == [
        "agent_turn.started", *["request.started"] * 4, "request.completed", "agent_turn.completed",
    ]  # fmt: skip
    assert [e.payload["retry_reason"] for e in events.of("model.retrying")] == ["output_constraints"] * 3
    calls = {kind for kind, _ in runs_of(events).values()}
    assert calls == {"agent_turn", "request", "model_request"}
    assert len({e.payload["response_id"] for e in events.of("model.request_started")}) == 4
    assert events.of("agent_turn.completed")[0].payload["attempt_count"] == 4
    assert len(events.of("model.parse_failed")) == 1


async def test_checks_that_come_late(host: Runtime, events: Collector) -> None:
    """Asked for after the answer was judged, they open a further turn; the first one has ended and stays ended."""
    with asking(host, [{"a": 1}, {"a": 1, "b": 2}]) as (agent, _):
        response = agent.input("x").output({"a": int, "b": int}).get_response()
        assert await response.async_get_data() == {"a": 1}
        assert await response.async_get_data(ensure_keys=["a"]) == {"a": 1}
        assert await response.async_get_data(ensure_keys=["b"]) == {"a": 1, "b": 2}
        assert response.attempt_index == 2

    assert told(events, "agent_turn") == ["agent_turn.started", "agent_turn.completed"] * 2


async def test_validators(host: Runtime, events: Collector) -> None:
    """They refuse with reasons, stop, raise, or fail themselves; each is told and none is lost."""
    seen: list[dict[str, Any]] = []

    async def strict(result: Any, context: dict[str, Any]) -> Any:
        seen.append(context)
        return {"ok": result["n"] == 3, "reason": "n must be 3", "payload": {"n": result["n"]}}

    with asking(host, [{"n": 1}, {"n": 3}, {"n": 1}, {"n": 1}, {"n": 1}, {"n": 1}, {"n": 1}]) as (agent, _):
        ask = agent.input("x").output({"n": int})
        assert await ask.async_start(validate_handler=strict) == {"n": 3}
        assert [c["attempt_index"] for c in seen] == [1, 2]
        assert seen[0]["input"] == "x"
        with pytest.raises(ModelOutputError, match="refuses it") as failed:
            await ask.validate(lambda result, context: False).async_start(max_retries=1)

        assert (failed.value.reason, failed.value.attempts) == ("validation", 2)
        own = KeyError("mine")
        with pytest.raises(KeyError, match="mine"):
            await (
                agent.input("x")
                .output({"n": int})
                .async_start(validate_handler=lambda r, c: {"ok": False, "raise": own})
            )

        with pytest.raises(ModelOutputError, match="expected a bool"):
            await agent.input("x").output({"n": int}).async_start(validate_handler=lambda r, c: None, max_retries=0)

        kept = agent.input("x").output({"n": int}).ensure_keys("m")
        assert await kept.async_start(max_retries=0, raise_ensure_failure=False) == {"n": 1}

    assert events.of("model.validation_failed")[0].payload["validation_payload"] == {"n": 1}
    assert len(events.of("model.validation_error")) == 1
    assert [e.payload["retry_reason"] for e in events.of("model.retrying")] == ["validation"] * 2


class Clause(BaseModel):
    """A clause of a contract."""

    number: int = Field(ge=1)
    risk: str


async def test_outputs(host: Runtime, events: Collector) -> None:
    """Pydantic models, lists, text; JSON in fences and between sentences; what does not fit is asked for again."""
    fenced = 'Here:\n```json\n{"number": 4, "risk": "high"}\n```'
    script = ['{"number": 0, "risk": "x"}', fenced, 'Sure {ok}: {"a": 1} Bye {', ["x", "y"], "[plain] {text}"]
    with asking(host, script) as (agent, server):
        response = agent.input("x").output(Clause).get_response()
        assert await response.async_get_data_object() == Clause(number=4, risk="high")
        assert await response.async_get_data() == {"number": 4, "risk": "high"}
        broken = agent.input("x").output({"a": int}).get_response()
        assert [item.path async for item in broken.get_async_generator("instant")] == ["a", "a"]
        assert await broken.async_get_data() == {"a": 1}
        assert await agent.input("x").output([(str, "a word")]).async_start() == ["x", "y"]
        text = agent.input({"any": "data"}).get_response()
        assert [item async for item in text.get_async_generator("instant")] == []
        assert await text.async_get_data() == "[plain] {text}"
        assert '"any": "data"' in server.requests[-1]["messages"][0]["content"]

    assert events.of("model.parse_failed")[0].payload["reason"] == "schema"
    with pytest.raises(ValueError, match="no specification"):
        host.create_agent().use_model("test").input("x").output(object()).get_response()


async def test_generators(host: Runtime, events: Collector) -> None:
    """``all`` tells everything, ``specific`` what is named, ``original`` deltas of the wire; tool calls are whole."""
    reply = ModelReply("Hello you", reasoning="hm", tool_calls=[ToolCall("look", {"q": "rain"})], piece=5)
    with asking(host, [reply]) as (agent, _):
        response = agent.input("x").get_response()
        everything = [pair async for pair in response.get_async_generator("all")]
        named = [pair async for pair in response.get_async_generator("specific", specific=["done", "meta"])]
        original = [piece async for piece in response.get_async_generator("original")]
        whole = await response.async_get_data(type="all")
        response.cancel_logs()
        response.cancel_logs()
        with pytest.raises(ValueError, match="expected one of"):
            await anext(response.get_async_generator("nope"))  # type: ignore[call-overload]

        with pytest.raises(ValueError, match="expected some of"):
            await anext(response.get_async_generator("specific"))  # type: ignore[call-overload]

    assert len(events.of("model.streaming_canceled")) == 1
    kinds = [kind for kind, _ in everything if kind != "original_delta"]
    assert kinds[0] == "reasoning_delta"
    assert kinds[-4:] == ["meta", "original_done", "reasoning_done", "done"]
    assert {"delta", "tool_calls"} < set(kinds)
    assert [kind for kind, _ in named] == ["meta", "done"]
    assert "".join(piece.get("content", "") for piece in original) == "Hello you"
    (call,) = whole["tool_calls"]
    assert (call["name"], call["arguments"]) == ("look", '{"q": "rain"}')


async def test_later_attempts_can_be_streamed(host: Runtime, events: Collector) -> None:
    """``retries=True`` goes on with them; items say which attempt they belong to."""
    with asking(host, [{"a": 1}, {"a": 1, "b": 2}]) as (agent, _):
        response = agent.input("x").output({"a": int, "b": int}).get_response(ensure_keys=["b"])
        items = [
            (i.attempt, i.path) async for i in response.get_async_generator("instant", retries=True) if i.is_complete
        ]
        pairs = [pair async for pair in response.get_async_generator("all", retries=True)]

    assert items == [(1, "a"), (2, "a"), (2, "b")]
    assert [data for kind, data in pairs if kind == "retry"] == [{"attempt_index": 2}]


async def test_prompts(host: Runtime, events: Collector) -> None:
    """The agent's slots and the request's add up; texts are filled in; requests of one agent do not mix."""
    with asking(host, lambda request: request["messages"][-1]["content"]) as (agent, server):
        agent.system("You are ${name}.", {"name": "Ada"}, always=True).set_agent_prompt("info", {"today": "Monday"})
        chains = [agent.input(f"question {n}").info({"n": n}) for n in range(5)]
        answers = await asyncio.gather(*(chain.async_start() for chain in chains))
        assert server.requests[0]["messages"][0] == {"role": "system", "content": "You are Ada."}
        for n, answer in enumerate(answers):
            assert f"[INPUT]\nquestion {n}" in answer
            assert f'"n": {n}' in answer
            assert '"today": "Monday"' in answer

        await agent.input("see").attachment("http://127.0.0.1/a.png").async_start()
        assert server.requests[-1]["messages"][-1]["content"][1]["image_url"]["url"] == "http://127.0.0.1/a.png"
        with pytest.raises(ValueError, match="there are system"):
            agent.create_request().set_request_prompt("inptu", 1)

        loaded = agent.create_request().load_prompt({"input": "hi ${who}", "info": {"n": 1}}, {"who": "Bo"})
        assert "[INPUT]\nhi Bo" in await loaded.async_start()
        with pytest.raises(ValueError, match="'model'"):
            loaded.load_prompt({"input": "no", "model": "other"})

        assert loaded.slots["input"] == "hi Bo"
        assert "[INPUT]\nhalf \N{REPLACEMENT CHARACTER}" in await agent.input("half \ud83d").async_start()


async def test_sections_over_the_wire(host: Runtime, events: Collector) -> None:
    """Fields come while the model writes; a section that is missing is asked for again; events name the format."""
    first = "### title\nA storm\n\n### tags\n```json\n[]\n```\n"
    second = f"{first}### body\nIt rains.\n\n### Notes\nStill.\n"
    with asking(host, [first, ModelReply(second, piece=3)]) as (agent, server):
        spec = {"title": (str, "short"), "tags": [(str, "lower case")], "body": (str, "long", True)}
        response = agent.input("x").output(spec, format="auto").get_response()
        items = [item async for item in response.get_async_generator("instant", retries=True)]
        assert await response.async_get_data() == {
            "title": "A storm",
            "tags": [],
            "body": "It rains.\n\n### Notes\nStill.",
        }

    assert [(item.path, item.attempt) for item in items if item.is_complete] == [
        ("title", 1), ("tags", 1), ("title", 2), ("tags", 2), ("body", 2)
    ]  # fmt: skip
    asked = server.requests[0]["messages"][-1]["content"]
    assert "### title\n<text: short>" in asked
    assert "### tags\n```json\n[<str>, …]\n```" in asked
    (built, _) = events.of("prompt.built")
    assert built.payload["output_format"] == "hybrid"
    assert built.payload["prompt"]["output"].startswith("Answer in Markdown")


async def test_sessions(host: Runtime, events: Collector) -> None:
    """The window enters the request; the turn is remembered after it has ended, and only if it went well."""
    with asking(host, ["One.", "Two.", ModelReply(status=400)]) as (agent, server):
        agent.activate_session(session_id="s-1")
        await agent.input("first").async_start()
        await agent.input("second").async_start()
        with pytest.raises(ValueError, match="refuses"):
            await agent.input("third").async_start()

        said = [(m["role"], m["content"]) for m in server.requests[1]["messages"]]

    assert said == [("user", "first"), ("assistant", "One."), ("user", "second")]
    assert len(agent.chat_history) == 4
    assert told(events)[1:4] == ["agent_turn.started", "request.started", "session.applied_to_request"]
    assert told(events)[len(TURN) + 2] == "session.context_appended"
    assert {r.run.session_id for r in events.of("model.completed") if r.run} == {"s-1"}


async def test_the_last_reader_to_be_cancelled_cancels_the_call(host: Runtime, events: Collector) -> None:
    """It is told in every run; a reader that merely stops listening cancels nothing."""
    with asking(host, [ModelReply("slow answer", piece=2, stall_after=2), "quick"]) as (agent, _):
        response = agent.input("x").get_response()
        execution = response.execution
        reader = asyncio.create_task(response.async_get_data())
        async for _text in response.get_async_generator("delta"):
            break

        other = asyncio.create_task(response.async_get_text())
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        assert execution.status == "running"
        other.cancel()
        await asyncio.wait([other])
        assert execution.status == "cancelled"
        assert told(events)[-3:] == ["model.request_failed", "request.failed", "agent_turn.failed"]
        assert {e.error.type for e in events.records if e.error} == {"CancelledError"}  # type: ignore[union-attr]
        with pytest.raises(asyncio.CancelledError):
            await response.async_get_data()

        assert await agent.input("x").async_start() == "quick"


async def test_cancelled_before_it_began(host: Runtime, events: Collector) -> None:
    """Nobody waits for ever for a turn that was given up before its first step."""
    with asking(host, ["never asked"]) as (agent, server):
        response = agent.input("x").get_response()
        response.execution.begin()
        response.execution._task.cancel()  # type: ignore[union-attr]
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await response.async_get_data()

            assert [text async for text in _quiet(response)] == []

        assert (response.execution.status, server.requests) == ("cancelled", [])


async def _quiet(response: Any) -> AsyncIterator[str]:
    with contextlib.suppress(asyncio.CancelledError):
        async for text in response.get_async_generator("delta"):
            yield text


async def test_inside_a_chunk(host: Runtime, events: Collector) -> None:
    """The turn stands below the chunk, its call on the run's tape; fields become signals before the answer is whole."""
    order: list[str] = []
    go_on = asyncio.Event()

    def script(request: dict[str, Any]) -> Any:
        return ModelReply({"first": "now", "second": "later"}, piece=4, delay=0.01)

    with asking(host, script) as (agent, _):
        flow = TriggerFlow(name="f")

        async def ask(data: TriggerFlowRuntimeData) -> None:
            response = agent.input("x").output({"first": str, "second": str}).get_response(data=data)
            await data.async_set_state("answer", await response.async_emit_signals(data, {"first": "First"}))
            order.append("whole")

        async def first(data: TriggerFlowRuntimeData) -> None:
            order.append(data.value["value"])
            go_on.set()

        flow.to(("ask", ask))
        flow.when("First").to(("first", first))
        with host.use():
            state = await flow.async_start(1)

    assert order == ["now", "whole"]
    assert state["answer"] == {"first": "now", "second": "later"}
    runs = runs_of(events)
    turn = events.of("agent_turn.started")[0].run
    assert turn is not None and turn.parent_run_id is not None
    assert runs[turn.parent_run_id][0] == "chunk_execution"
    (port,) = events.of("triggerflow.port_returned")
    assert (port.payload["port"], port.payload["name"], port.payload["stream"]) == ("model", "local", True)


async def test_a_failing_branch_cancels_a_siblings_request(host: Runtime, events: Collector) -> None:
    """The failure is told in the request's runs before the flow fails."""
    with asking(host, [ModelReply("slow answer", piece=2, stall_after=2)]) as (agent, _):
        flow = TriggerFlow(name="f")
        begun = asyncio.Event()

        async def ask(data: TriggerFlowRuntimeData) -> None:
            async for _ in agent.input("x").get_async_generator("delta", data=data):
                begun.set()

        async def fail(data: TriggerFlowRuntimeData) -> None:
            await begun.wait()
            raise LookupError("broken")

        flow.to(("ask", ask))
        flow.to(("fail", fail))
        with host.use(), pytest.raises(LookupError):
            await flow.async_start(1)

    names = [r.event_type for r in events.records]
    assert names.index("agent_turn.failed") < names.index("triggerflow.execution_failed")


def test_synchronous_twins(host: Runtime, events: Collector) -> None:
    """They work without a loop, one after the other; in the loop that would have to do the work they say so."""
    with asking(host, lambda request: {"a": request["messages"][-1]["content"][:3]}) as (agent, server):
        ask = agent.input("abc").output({"a": str})
        response = ask.get_response()
        assert [i.path for i in response.get_generator("instant") if i.is_complete] == ["a"]
        assert response.get_data() == ask.start()
        assert response.get_meta()["model"] == "local"
        assert len(server.requests) == 2

        async def inside() -> None:
            response = ask.get_response()
            response.execution.begin()
            with pytest.raises(FlowdeckError, match="would block the event loop"):
                response.get_data()

            assert response.execution.ended is False
            await response.async_get_data()

        asyncio.run(inside())


class Echo:
    """A model of the application's own."""

    name = "echo"

    async def stream(self, request: Any) -> AsyncIterator[tuple[str, Any]]:
        yield "delta", request["messages"][-1]["content"]
        yield "meta", {"finish_reason": "stop", "usage": {}, "model": "echo", "provider": "me", "id": None}


async def test_models(host: Runtime, events: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, a mapping, a requester, a pydantic-ai model; none is an error that says how to name one."""
    from pydantic_ai.models.test import TestModel

    monkeypatch.delenv("FLOWDECK_MODEL", raising=False)
    agent = host.create_agent("x")
    with pytest.raises(ModelNotConfigured, match="no model is named; name one"):
        agent.input("x").get_response()

    with pytest.raises(ModelNotConfigured, match="provider:name|provider:model"):
        await agent.input("x").use_model("gpt").async_start()

    host.settings["model"] = Echo()
    assert await agent.input("hello").async_start() == "hello"
    assert await agent.input("x").use_model(TestModel(custom_output_text="said")).async_start() == "said"
    monkeypatch.setenv("FLOWDECK_MODEL", "test")
    del host.settings["model"]
    assert agent.model_config.name == "test"
    with asking(host, ["Hi."]) as (_, server):
        host.settings["OpenAICompatible"] = {
            "base_url": server.base_url, "model": "local",
            "auth": {"api_key": server.api_key}, "request_options": {"temperature": 0.5},
        }  # fmt: skip
        assert await agent.input("x").async_start() == "Hi."
        assert server.requests[0]["temperature"] == 0.5

    asked = events.of("model.requesting")[-1].payload["request"]
    assert asked["request_url"] == server.base_url
    assert asked["request_options"] == {"temperature": 0.5}


async def test_options_of_one_request(host: Runtime, events: Collector) -> None:
    """Model options and headers of a request reach the provider; the headers are not told."""
    with asking(host, ["Hi.", "Ho."], settings={"temperature": 0.1, "seed": 3}) as (agent, server):
        headers = {"X-Trace": "not-for-events-1"}
        assert await agent.input("x").set_model_options(temperature=0.9, extra_headers=headers).async_start() == "Hi."
        assert await agent.input("x").async_start() == "Ho."
        first, second = server.requests
        assert (first["temperature"], first["seed"], second["temperature"]) == (0.9, 3, 0.1)
        assert server.headers[0]["x-trace"] == "not-for-events-1"

    assert not [record for record in events.records if b"not-for-events" in record.encoded]


async def test_a_missing_extra_is_named(host: Runtime, events: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pydantic-ai the error says what to install; a requester of one's own needs none."""
    monkeypatch.delitem(sys.modules, "pydantic_ai.direct", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    agent = host.create_agent("x").use_model("openai:gpt-5-mini", api_key="sk-0123456789")
    with pytest.raises(ModelNotConfigured, match=r"pip install 'flowdeck\[models\]'"):
        await agent.input("x").async_start()

    assert await agent.input("hello").use_model(Echo()).async_start() == "hello"


def test_readers_in_other_threads(host: Runtime, events: Collector) -> None:
    """Two event loops share one call: whoever begins it makes it, and both get everything."""
    with asking(host, [ModelReply("a long answer " * 30, piece=3)]) as (agent, server):
        response = agent.input("x").get_response()
        with ThreadPoolExecutor(2) as pool:
            texts = list(pool.map(lambda _: asyncio.run(_joined(response)), range(2)))

        assert texts == ["a long answer " * 30] * 2
        assert len(server.requests) == 1


async def _joined(response: Any) -> str:
    text = "".join([text async for text in response.get_async_generator("delta")])
    await response.execution.done()
    return text
