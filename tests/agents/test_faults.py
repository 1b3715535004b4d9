"""What goes wrong at a provider, over a real connection: a named error or a further attempt, and no secret told."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.agents.asking import SleepCounter, asking, told
from tests.workspace.conftest import Collector

from flowdeck import Runtime
from flowdeck.errors import (
    ModelAuthenticationFailed,
    ModelError,
    ModelOutputError,
    ModelProtocolError,
    ModelRateLimited,
    ModelRequestRefused,
    ModelServerFailed,
    ModelStreamCut,
    ModelTimeout,
    ModelUnreachable,
)
from flowdeck.testing import LocalModel, ModelReply

pytestmark = pytest.mark.anyio

GOOD = ModelReply("Everything is fine here. " * 4)
LONG = "word " * 40


@pytest.mark.parametrize(
    ("bad", "error", "shown", "slept"),
    [
        (ModelReply(LONG, cut_after=900), ModelStreamCut, True, [0.5]),
        (ModelReply(LONG, end_early=3), ModelStreamCut, True, [0.5]),
        (ModelReply(LONG, stall_after=3), ModelTimeout, True, [0.5]),
        (ModelReply(status=429, retry_after=1.5), ModelRateLimited, False, [1.5]),
        (ModelReply(status=429), ModelRateLimited, False, [0.5]),
        (ModelReply(status=500), ModelServerFailed, False, [0.5]),
        (ModelReply(status=408), ModelTimeout, False, [0.5]),
        (ModelReply(raw="data: {broken\n\n"), ModelProtocolError, False, [0.5]),
        (ModelReply(raw="<html>a gateway's page</html>"), ModelError, False, [0.5]),
        (ModelReply(raw=""), ModelError, False, [0.5]),
    ],
    ids=lambda value: None,
)
async def test_tried_again(
    host: Runtime, events: Collector, bad: ModelReply, error: type[ModelError], shown: bool, slept: list[float]
) -> None:
    """A further attempt answers; who was shown a part of the broken one is told that it broke, by name."""
    clock = host.services.clock = SleepCounter()
    with asking(host, [bad, GOOD], settings={"timeout": 0.3}) as (agent, _):
        response = agent.input("x").get_response()
        streamed: list[str] = []
        broke: Exception | None = None
        try:
            async for text in response.get_async_generator("delta"):
                streamed.append(text)
        except ModelError as problem:
            broke = problem

        assert await response.async_get_text() == GOOD.text
        assert (type(broke) if broke else None) is (error if shown else None)
        assert ("".join(streamed) == GOOD.text) is not shown

    assert clock.slept == slept
    (failed,) = events.of("model.request_failed")
    assert failed.error is not None
    assert issubclass({c.__name__: c for c in _tree(ModelError)}[failed.error.type], error)
    assert events.of("model.retrying")[0].payload["retry_reason"] == "provider_error"
    assert told(events, "agent_turn") == ["agent_turn.started", "agent_turn.completed"]


def _tree(kind: type) -> list[type]:
    return [kind, *(each for child in kind.__subclasses__() for each in _tree(child))]


@pytest.mark.parametrize(
    ("script", "error", "attempts"),
    [
        ([ModelReply(status=503)] * 9, ModelServerFailed, 4),
        ([ModelReply(status=429, retry_after=3_600)], ModelRateLimited, 1),
        ([ModelReply(status=400, error="temperature is too high")], ModelRequestRefused, 1),
        ([ModelReply(status=404)], ModelRequestRefused, 1),
        (['{"a": [1, 2'] * 9, ModelOutputError, 4),
        ([ModelReply('{"a": "cut', finish_reason="length")] * 9, ModelOutputError, 4),
    ],
)
async def test_given_up(
    host: Runtime, events: Collector, script: list[Any], error: type[ModelError], attempts: int
) -> None:
    """After all attempts, or where none can help, there is one error with its reason, told once in each run."""
    host.services.clock = SleepCounter()
    with asking(host, script) as (agent, server):
        response = agent.input("x").output({"a": [int]}).get_response()
        with pytest.raises(error) as raised:
            await response.async_get_data()

        with pytest.raises(error):
            await response.async_get_text()

        assert len(server.requests) == attempts

    assert told(events)[-2:] == ["request.failed", "agent_turn.failed"]
    assert len(events.of("agent_turn.failed")) == len(events.of("request.failed")) == 1
    assert "local" in str(raised.value)


async def test_nobody_listens(host: Runtime, events: Collector) -> None:
    """A closed port is a server that cannot be reached."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    host.services.clock = SleepCounter()
    agent = host.create_agent("x").use_model("local", base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-0123456789")
    with pytest.raises(ModelUnreachable, match="cannot be reached"):
        await agent.input("x").async_start(max_retries=1)


async def test_no_key_and_no_header_reaches_an_event(host: Runtime, events: Collector) -> None:
    """Not of a good call, and not of a provider that repeats them in its messages; nor does an error show them."""
    secret, header, user = "sk-very-secret-0123", "Bearer-of-another-0123", "hidden-pass-0123"
    settings = {"extra_headers": {"X-Team": header}, "extra_body": {"team_key": secret}}
    script = [GOOD, ModelReply(status=400, error=f"the header {header} is wrong"), ModelReply(status=500, error=secret)]
    host.services.clock = SleepCounter()
    problems: list[BaseException] = []
    with LocalModel(script, api_key=secret) as server:
        named = server.base_url.replace("//", f"//me:{user}@")
        plain = server.base_url
        for key, url in ((secret, plain), (secret, plain), (f"{secret}-x", plain), (secret, named), (secret, plain)):
            agent = host.create_agent("x").use_model("local", base_url=url, api_key=key, settings=settings)
            try:
                await agent.input("x").async_start(max_retries=0)
            except ModelError as problem:
                problems.append(problem)

        assert server.headers[0]["x-team"] == header

    kinds = [ModelRequestRefused, ModelAuthenticationFailed, ModelAuthenticationFailed, ModelServerFailed]
    assert [type(problem) for problem in problems] == kinds
    told_all = b"".join(record.encoded for record in events.records) + " ".join(map(repr, problems)).encode()
    basic = base64.b64encode(f"me:{user}".encode()).decode()
    for text in (secret, header, user, basic, "uthorization", "X-Team", "x-team", "team_key"):
        assert text.encode() not in told_all, text

    assert b"[redacted]" in told_all
    assert all(problem.__cause__ is None and problem.__suppress_context__ for problem in problems)


class Odd:
    """A requester that says what is no text."""

    name = "odd"

    async def stream(self, request: Any) -> AsyncIterator[tuple[str, Any]]:
        yield "delta", "some"
        yield "delta", 5
        yield "meta", {"finish_reason": "stop"}


async def test_a_defect_in_the_middle_ends_every_reader(host: Runtime, events: Collector) -> None:
    """Whatever breaks while an answer is read, readers get the error, and every run its end."""
    response = host.create_agent("x").use_model(Odd()).input("x").get_response()
    with pytest.raises(TypeError):
        async with asyncio.timeout(5):
            assert [text async for text in response.get_async_generator("delta")]

    with pytest.raises(TypeError):
        await response.async_get_data()

    assert told(events)[-3:] == ["model.request_failed", "request.failed", "agent_turn.failed"]


@pytest.mark.parametrize(
    ("said", "data"),
    [
        ('{"a": "x\ud83d y"}', {"a": "x\N{REPLACEMENT CHARACTER} y"}),
        ('{"a": "x\\ud83d y"}', {"a": "x\N{REPLACEMENT CHARACTER} y"}),
        ('{"a": "line\nnext"}', {"a": "line\nnext"}),
        ('{"a": "1", "a": "2"}', {"a": "2"}),
        ('{"a": NaN}', None),
        ("{'a': 1}", None),
        ('{"a": ' + "[" * 5_000, None),
        ('{"a": 1' + "0" * 5_000 + "}", None),
        ("", None),
    ],
)
async def test_odd_answers(host: Runtime, events: Collector, said: str, data: Any) -> None:
    """They are read as far as they can be written down again, or refused by name; instant never says otherwise."""
    with asking(host, [ModelReply(said, piece=3)]) as (agent, _):
        response = agent.input("x").output({"a": str}).get_response(max_retries=0)
        done = {item.path: item.value async for item in response.get_async_generator("instant") if item.is_complete}
        if data is None:
            with pytest.raises(ModelOutputError, match="no whole JSON object"):
                await response.async_get_data()
        else:
            assert await response.async_get_data() == data == done

    assert all(record.encoded.decode() for record in events.records)


@pytest.mark.slow
async def test_ten_megabytes(host: Runtime, events: Collector) -> None:
    """A long answer comes whole, as data and field by field."""
    answer = {"rows": [{"n": n, "text": "some text " * 100} for n in range(10_000)]}
    with asking(host, [ModelReply(answer, piece=4_096)]) as (agent, _):
        response = agent.input("x").output({"rows": [{"n": int, "text": str}]}).get_response()
        count = 0
        async for item in response.get_async_generator("instant"):
            count += item.is_complete and item.wildcard_path == "rows[*]"

        assert count == 10_000
        assert await response.async_get_data() == answer


def test_connections_end_with_the_loop(host: Runtime, events: Collector, recwarn: pytest.WarningsRecorder) -> None:
    """Synchronous requests leave no connection open; each loop has its own, so many may follow each other."""
    with asking(host, lambda request: "ok") as (agent, _):
        assert [agent.input("x").start() for _ in range(3)] == ["ok"] * 3

        async def two() -> list[str]:
            return [await agent.input("x").async_start() for _ in range(2)]

        assert asyncio.run(two()) == asyncio.run(two()) == ["ok", "ok"]
