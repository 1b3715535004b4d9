"""`FastAPIHelper` of the compatible API: envelopes, and the mended ways of flows that pause."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from tests.web.served_flows import make_counter, make_quick, make_review
from tests.web.server import events_of, serving_app
from websockets.sync.client import connect

from flowdeck import Runtime
from flowdeck.compat import FastAPIHelper
from flowdeck.testing import LocalModel


def payload(data: Any, **options: Any) -> dict[str, str]:
    return {"payload": json.dumps({"data": data, "options": options})}


def test_a_flow_answers_in_envelopes_with_real_status_codes() -> None:
    app = FastAPIHelper(response_provider=make_quick()).use_post("/run").use_get("/get")
    with serving_app(app) as base, httpx.Client(base_url=base, timeout=10) as client:
        done = client.post("/run", json={"data": 3})
        assert (done.status_code, done.json()) == (200, {"status": 200, "data": {"n": 3}, "msg": None})
        assert client.get("/get", params=payload(4)).json()["data"] == {"n": 4}
        failed = client.post("/run", json={"data": "boom"})
        assert failed.status_code == 400 and failed.json()["error"]["type"] == "RuntimeError"
        assert client.post("/run", json={"datum": 1}).status_code == 422
        assert client.get("/get", params={"payload": "{"}).json()["status"] == 422
        late = client.post("/run", json={"data": "hang", "options": {"timeout": 0.05}})
        assert late.status_code == 504
        assert client.post("/run", json={"data": 1, "options": {"runtime_resources": {}}}).status_code == 422


def test_the_always_200_of_the_reference_is_an_option() -> None:
    """Scenario A22."""
    app = FastAPIHelper(response_provider=make_quick(), always_200=True).use_post("/run").use_get("/get")
    with serving_app(app) as base, httpx.Client(base_url=base, timeout=10) as client:
        done = client.post("/run", json={"data": {"q": 1}})
        assert done.json() == {"status": 200, "data": {"n": {"q": 1}}, "msg": None}
        failed = client.post("/run", json={"data": "boom"})
        assert (failed.status_code, failed.json()["status"]) == (200, 400)
        assert client.post("/run", json={}).status_code == 422
        bad = client.get("/get", params={"payload": "bad"})
        assert (bad.status_code, bad.json()["status"]) == (200, 422)


def test_a_flow_that_pauses_answers_202_and_its_stream_ends_with_waiting() -> None:
    app = FastAPIHelper(response_provider=make_review()).use_post("/run").use_sse("/stream")
    with serving_app(app) as base, httpx.Client(base_url=base, timeout=10) as client:
        paused = client.post("/run", json={"data": "doc"})
        assert (paused.status_code, paused.json()["status"]) == (202, 202)
        run = paused.json()["data"]["execution_id"]
        done = client.post(f"/run/{run}/interrupts/approve", json={"ok": True})
        assert done.json()["data"] == {"answer": {"ok": True}}
        assert client.post(f"/run/{run}/interrupts/nope", json=1).status_code in (404, 409)
        with client.stream("GET", "/stream", params=payload("doc")) as response:
            events = list(events_of(response.iter_lines()))

        assert [e.event for e in events] == ["message", "message", "waiting"]
        assert events[-1].data["data"]["interrupts"][0]["interrupt_id"] == "approve"


def test_streams_are_live_over_sse_and_websocket() -> None:
    app = FastAPIHelper(response_provider=make_counter()).use_sse("/stream").use_websocket("/ws")
    with serving_app(app) as base, httpx.Client(base_url=base, timeout=10) as client:
        with client.stream("GET", "/stream", params=payload(3)) as response:
            assert [e.data["data"]["n"] for e in events_of(response.iter_lines())] == [0, 1, 2]

        with connect(base.replace("http", "ws", 1) + "/ws") as socket:
            for count in (2, 3):
                socket.send(json.dumps({"data": count}))
                assert [json.loads(socket.recv(5))["data"]["n"] for _ in range(count)] == list(range(count))

            socket.send("{")
            assert json.loads(socket.recv(5))["status"] == 422


def test_generators_agents_and_a_shape_of_ones_own() -> None:
    def numbers(data: int, step: int = 1) -> Any:
        yield from range(0, data, step)

    app = FastAPIHelper(response_provider=numbers, response_warper=lambda value: {"mine": value}).use_post("/run")
    with serving_app(app) as base:
        assert httpx.post(base + "/run", json={"data": 4, "options": {"step": 2}}).json() == {"mine": [0, 2]}

    with serving_app(FastAPIHelper(response_provider=numbers).use_sse("/stream")) as base:
        frames = 'data: {"status":200,"data":0,"msg":null}\n\ndata: {"status":200,"data":1,"msg":null}\n\n'
        assert httpx.get(base + "/stream", params=payload(2)).text == frames

    with LocalModel(["four"]) as model:
        agent = Runtime().create_agent("helper").use_model("local", base_url=model.base_url, api_key=model.api_key)
        with serving_app(FastAPIHelper(response_provider=agent).use_post("/ask")) as base:
            answer = httpx.post(base + "/ask", json={"data": {"input": "2 + 2?"}}, timeout=10)
            assert answer.json()["data"] == "four"

    with pytest.raises(TypeError, match="generator function"):
        FastAPIHelper(response_provider=3)


def test_what_one_client_sends_is_in_no_other_prompt() -> None:
    prompts: list[str] = []

    def answer(request: dict[str, Any]) -> str:
        prompts.append(json.dumps(request["messages"]))
        return "ok"

    with LocalModel(answer) as model:
        agent = Runtime().create_agent("helper").use_model("local", base_url=model.base_url, api_key=model.api_key)
        request = agent.create_request().input("always")
        with serving_app(FastAPIHelper(response_provider=request).use_post("/ask")) as base:
            for data in ({".agent": {"info": "first secret"}}, {"instruct": "second"}):
                assert httpx.post(base + "/ask", json={"data": data}, timeout=10).json()["data"] == "ok"

            refused = httpx.post(base + "/ask", json={"data": {"nonsense": 1}}, timeout=10)
            assert refused.status_code == 422 and "nonsense" in refused.json()["msg"]

    assert "first secret" in prompts[0] and "always" in prompts[1] and "first secret" not in prompts[1]


def test_a_client_that_leaves_a_websocket_ends_what_it_waits_for() -> None:
    left = threading.Event()

    async def endless(data: Any) -> Any:
        try:
            yield data
            await asyncio.Event().wait()
        finally:
            left.set()

    app = FastAPIHelper(response_provider=endless).use_websocket("/ws")
    with serving_app(app) as base:
        with connect(base.replace("http", "ws", 1) + "/ws") as socket:
            socket.send(json.dumps({"data": 1}))
            assert json.loads(socket.recv(5))["data"] == 1
        assert left.wait(5)


def test_a_contract_types_the_body() -> None:
    flow = make_quick()
    flow.set_contract(initial_input=int)
    app = FastAPIHelper(response_provider=flow).use_post("/run")
    with serving_app(app) as base:
        described = httpx.get(base + "/openapi.json").json()["paths"]["/run"]["post"]
        assert described["x-agently-triggerflow-contract"]["initial_input"]["schema"] == {"type": "integer"}
        assert httpx.post(base + "/run", json={"data": "x"}).status_code == 422
