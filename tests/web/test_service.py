"""Flows behind HTTP: a real server on loopback, a real client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from starlette.requests import HTTPConnection
from tests.web.served_flows import make_counter, make_quick, make_review, make_typed
from tests.web.server import following, serving
from websockets.sync.client import connect

from flowdeck import Runtime, TriggerFlow
from flowdeck.web import Caller, FlowService, Webhook
from flowdeck.web.webhooks import sign_standard

SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="


async def known_by_name(connection: HTTPConnection) -> Caller:
    name, _, tenant = connection.headers.get("x-user", "").partition("@")
    if not name:
        raise HTTPException(401, "who are you?")

    return Caller(user_id=name, tenant_id=tenant or None)


@pytest.fixture(scope="module", params=["memory", "store"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service whose runs live in memory, or in a store."""
    store = tmp_path_factory.mktemp("store") / "store" if request.param == "store" else None
    service = FlowService(
        make_review(),
        make_quick(),
        make_counter(),
        store=store,
        runtime=Runtime(),
        wait=5.0,
        max_body=10_000,
        webhooks=[Webhook("bank", SECRET, value=lambda body: {"ok": body["status"] == "paid"})],
    )
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as made:
        yield made


def start(client: httpx.Client, flow: str, value: Any, wait: float = 5.0, **headers: str) -> httpx.Response:
    return client.post(f"/{flow}/runs?wait={wait}", json={"input": value}, headers=headers)


def test_a_run_that_ends_is_answered_with_its_result(client: httpx.Client) -> None:
    response = start(client, "quick", 3)
    run = response.json()
    assert (response.status_code, run["status"], run["result"]) == (200, "completed", {"n": 3})
    assert client.get(response.headers["location"]).json() == run


def test_a_failed_run_is_a_500_that_tells_nothing_of_the_inside(client: httpx.Client) -> None:
    response = start(client, "quick", "boom")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "flowdeck why" in response.json()["detail"] and "secret details" not in response.text


def test_a_run_that_pauses_is_202_with_its_question_and_goes_on_when_answered(client: httpx.Client) -> None:
    response = start(client, "review", "doc")
    run = response.json()
    assert (response.status_code, run["status"]) == (202, "waiting")
    asked = run["interrupts"][0]
    assert (asked["interrupt_id"], asked["schema"]["required"]) == ("approve", ["ok"])
    place = f"/review/runs/{run['execution_id']}/interrupts/approve"
    assert client.post(place, json={"value": {"no": 1}}).status_code == 422
    assert client.post(place, json={"value": {"ok": True}}).json()["outcome"] == "applied"
    late = client.post(place, json={"value": {"ok": False}})
    assert (late.status_code, late.json()["title"]) == (409, "Somebody was first")
    done = client.get(f"/review/runs/{run['execution_id']}/result?wait=5")
    assert (done.status_code, done.json()["result"]) == (200, {"answer": {"ok": True}})


def test_of_concurrent_answers_exactly_one_wins(client: httpx.Client) -> None:
    run = start(client, "review", "doc").json()
    place = f"/review/runs/{run['execution_id']}/interrupts/approve"
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(client.post(place, json={"value": {"ok": True}}).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(codes) == [200] + [409] * 7


def test_an_idempotency_key_starts_once(client: httpx.Client) -> None:
    first = start(client, "review", "doc", **{"idempotency-key": "order-1"})
    again = start(client, "review", "doc", **{"idempotency-key": "order-1"})
    assert first.json()["execution_id"] == again.json()["execution_id"]
    assert again.headers["idempotent-replayed"] == "true" and "idempotent-replayed" not in first.headers


def test_an_idempotency_key_with_another_body_is_refused(client: httpx.Client) -> None:
    """Another input or task under a key that is taken is a mistake of the caller's; also once the run has ended."""
    key = {"idempotency-key": "order-2"}
    run = start(client, "review", "doc", **key).json()["execution_id"]
    place = f"/review/runs/{run}/interrupts/approve"
    for ended in (False, True):
        for body in ({"input": "other"}, {"input": "doc", "task_id": "t"}):
            refused = client.post("/review/runs", json=body, headers=key)
            assert (refused.status_code, refused.json()["execution_id"]) == (422, run)
            assert "'order-2'" in refused.json()["detail"]
        assert start(client, "review", "doc", **key).json()["execution_id"] == run
        if not ended:
            client.post(place, json={"value": {"ok": True}})
            assert client.get(f"/review/runs/{run}/result?wait=5").status_code == 200


def test_items_come_live_as_product_events_and_reconnecting_misses_and_repeats_none(client: httpx.Client) -> None:
    run = start(client, "review", "doc").json()["execution_id"]
    path = f"/review/runs/{run}/events"
    with following(client, path) as events:
        seen = [next(events) for _ in range(3)]
        assert [e.event for e in seen] == ["message", "message", "waiting"]
        assert seen[1].data["interrupt_id"] == "approve" and "operator" not in json.dumps(seen[1].data)
        client.post(f"/review/runs/{run}/interrupts/approve", json={"value": {"ok": True}})
        rest = list(events)

    assert [e.data.get("event_type") for e in rest] == ["decision.made", "published", None]
    assert rest[-1].event == "closed"
    everything = [e.id for e in [*seen, *rest] if e.event == "message"]
    for index, last in enumerate(everything):
        with following(client, path, last) as events:
            assert [e.id for e in events if e.event == "message"] == everything[index + 1 :]

    assert client.get(path, headers={"last-event-id": rest[-1].id or ""}).status_code == 204


def test_the_first_item_leaves_while_the_run_works(client: httpx.Client) -> None:
    run = start(client, "counter", 50, wait=0).json()
    assert run["status"] == "running"
    with following(client, f"/counter/runs/{run['execution_id']}/events") as events:
        assert next(events).data == {"n": 0}
        assert client.get(f"/counter/runs/{run['execution_id']}").json()["status"] == "running"
        assert [e.data["n"] for e in events if e.event == "message"] == list(range(1, 50))


def test_a_hanging_run_is_cancelled(client: httpx.Client) -> None:
    run = start(client, "quick", "hang", wait=0).json()["execution_id"]
    assert client.post(f"/quick/runs/{run}/cancel", json={"reason": "enough"}).json()["outcome"] == "applied"
    assert client.get(f"/quick/runs/{run}/result?wait=5").json()["status"] == "cancelled"
    assert client.post(f"/quick/runs/{run}/cancel", json={}).status_code == 409


def test_an_intervention_reaches_the_run_and_its_followers(client: httpx.Client) -> None:
    run = start(client, "review", "doc").json()["execution_id"]
    with following(client, f"/review/runs/{run}/events") as events:
        assert [next(events).event for _ in range(3)][-1] == "waiting"
        said = {"payload": {"tone": "mild"}, "note": "n", "target": "publish"}
        added = client.post(f"/review/runs/{run}/interventions", json=said)
        assert (added.status_code, added.json()["outcome"]) == (200, "applied")
        assert next(events).data["event_type"].startswith("intervention.")
        client.post(f"/review/runs/{run}/cancel", json={})
        assert [event.event for event in events][-1] == "closed"

    takes_none = start(client, "quick", "hang", wait=0).json()["execution_id"]
    for refused in (f"/review/runs/{run}", f"/quick/runs/{takes_none}"):
        assert client.post(refused + "/interventions", json={"payload": 1}).status_code == 409


def test_a_webhook_continues_a_named_interrupt_when_its_signature_is_right(client: httpx.Client) -> None:
    run = start(client, "review", "doc").json()["execution_id"]
    path = f"/review/webhooks/bank/{run}/approve"
    body = b'{"status": "paid"}'
    now = str(int(time.time()))
    headers = {
        "webhook-id": "d1",
        "webhook-timestamp": now,
        "webhook-signature": "v1,other " + sign_standard(SECRET, "d1", now, body),
    }
    assert client.post(path, content=body + b" ", headers=headers).status_code == 401
    old = str(int(now) - 1_000)
    stale = {**headers, "webhook-timestamp": old, "webhook-signature": sign_standard(SECRET, "d1", old, body)}
    assert client.post(path, content=body, headers=stale).status_code == 401
    assert client.post(path, content=body).status_code == 401
    assert client.post(path, content=body, headers=headers).json()["outcome"] == "applied"
    assert client.get(f"/review/runs/{run}/result?wait=5").json()["result"] == {"answer": {"ok": True}}


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/quick/runs", b"{", {}, 422),
        ("/quick/runs", b'{"inptu": 1}', {}, 422),
        ("/quick/runs", b"[" * 9_000, {}, 422),
        ("/quick/runs", b"\xff\xfe", {}, 422),
        ("/quick/runs", b'{"input": "' + b"x" * 20_000 + b'"}', {}, 413),
        ("/quick/runs", b"input=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("/quick/runs", b"{}", {"origin": "http://evil.example"}, 403),
        ("/quick/runs", b"{}", {"idempotency-key": "k" * 300}, 422),
        ("/quick/runs?wait=1e9", b"{}", {}, 422),
        ("/review/runs/nope/interrupts/x", b'{"value": 1}', {}, 404),
        ("/review/webhooks/nobody/x/y", b"{}", {}, 404),
    ],
)
def test_a_bad_request_is_one_problem(
    client: httpx.Client, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    response = client.post(path, content=content, headers={"content-type": "application/json", **headers})
    assert response.status_code == status, response.text
    assert response.json()["detail"]


def test_bad_positions_are_refused(client: httpx.Client) -> None:
    run = start(client, "quick", 1).json()["execution_id"]
    for position in ("x", "1:2:3", "-1:2", "1:99999999999999999999"):
        assert client.get(f"/quick/runs/{run}/events", headers={"last-event-id": position}).status_code == 422

    with following(client, f"/quick/runs/{run}/events", "1:500") as events:
        assert [e.event for e in events] == ["reset", "closed"]


def test_one_websocket_carries_several_requests(client: httpx.Client) -> None:
    address = str(client.base_url).replace("http", "ws", 1) + "/socket"
    with connect(address) as socket:
        socket.send("{")
        assert json.loads(socket.recv(5))["type"] == "error"
        socket.send(json.dumps({"id": "a", "op": "start", "flow": "review", "input": "doc"}))
        socket.send(json.dumps({"id": "b", "op": "start", "flow": "counter", "input": 3}))
        frames: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
        answered = False
        while not all(f and f[-1]["type"] in ("closed", "failed") for f in frames.values()):
            frame = json.loads(socket.recv(5))
            if frame["id"] == "c":
                assert frame["type"] == "answered"
                continue

            frames[frame["id"]].append(frame)
            if frame["type"] == "waiting" and not answered:
                answered = True
                run = frame["data"]["execution_id"]
                asked = {"id": "c", "op": "answer", "flow": "review", "execution_id": run}
                socket.send(json.dumps({**asked, "interrupt_id": "approve", "value": {"ok": True}}))

    assert [f["data"]["n"] for f in frames["b"] if f["type"] == "item"] == [0, 1, 2]
    assert [f["type"] for f in frames["a"]].count("item") == 4


def test_callers_see_only_the_runs_of_their_tenant() -> None:
    service = FlowService(make_review(), runtime=Runtime(), auth=known_by_name)
    with serving(service) as base, httpx.Client(base_url=base) as client:
        assert client.post("/review/runs", json={"input": 1}).status_code == 401
        ann = {"x-user": "ann@acme"}
        run = client.post("/review/runs", json={"input": 1}, headers=ann).json()["execution_id"]
        assert client.get(f"/review/runs/{run}", headers=ann).status_code == 200
        bob = {"x-user": "bob@other"}
        assert client.get(f"/review/runs/{run}", headers=bob).status_code == 404
        assert client.get("/review/interrupts", headers=bob).json() == []
        assert len(client.get("/review/interrupts", headers=ann).json()) == 1
        execution = service.desk.flows["review"]._executions[run]
        assert execution.run_context.meta["tenant_id"] == "acme"
        place = f"/review/runs/{run}/interrupts/approve"
        assert client.post(place, json={"value": {"ok": True}}, headers=bob).status_code == 404
        assert client.post(place, json={"value": {"ok": True}}, headers=ann).status_code == 200
        assert execution.get_interrupt("approve")["actor"] == "ann"  # type: ignore[index]


def test_each_kind_of_route_has_a_guard_of_its_own() -> None:
    async def nobody() -> None:
        raise HTTPException(403, "not you")

    guards: dict[str, Any] = dict.fromkeys(("answer", "intervene", "cancel"), nobody)
    service = FlowService(
        make_review(), runtime=Runtime(), auth={**guards, "start": known_by_name, "read": lambda: "x"}
    )
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as client:
        assert client.post("/review/runs", json={"input": "doc"}).status_code == 401
        run = start(client, "review", "doc", **{"x-user": "ana"}).json()["execution_id"]
        assert client.get(f"/review/runs/{run}").json()["status"] == "waiting"
        assert client.post(f"/review/runs/{run}/interrupts/approve", json={"value": {"ok": True}}).status_code == 403
        for what in ("interventions", "cancel"):
            assert client.post(f"/review/runs/{run}/{what}", json={"payload": 1}).status_code == 403


def test_raw_items_heartbeats_and_other_origins_are_options() -> None:
    """By default items are product events, and no page of another origin is let in."""
    service = FlowService(make_review(), runtime=Runtime(), raw_items=True, heartbeat=0.02, origins=["http://ours"])
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as client:
        run = start(client, "review", "doc", origin="http://ours").json()["execution_id"]
        seen = []
        with client.stream("GET", f"/review/runs/{run}/events") as response:
            for line in response.iter_lines():
                seen.append(line)
                if line == ": alive":
                    break

        assert any('"action":"pause"' in line and '"resume_to"' in line for line in seen), seen
        asked = {"origin": "http://ours", "access-control-request-method": "POST"}
        preflight = client.options("/review/runs", headers=asked)
        assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers


def test_a_contract_is_in_the_openapi_and_refuses_before_there_is_a_run() -> None:
    flow = make_typed()
    service = FlowService(flow, runtime=Runtime())
    with serving(service) as base, httpx.Client(base_url=base) as client:
        described = client.get("/openapi.json").json()["paths"]["/typed/runs"]["post"]["requestBody"]
        assert described["content"]["application/json"]["schema"]["properties"]["input"]["type"] == "integer"
        assert client.post("/typed/runs", json={"input": "x"}).status_code == 422
        assert len(flow._executions) == 0
        assert client.post("/typed/runs", json={"input": 2}).json()["result"] == {"twice": 4}


def test_a_flow_of_any_language_has_an_address() -> None:
    with serving(FlowService(named("评审 1"), runtime=Runtime())) as base:
        started = httpx.post(base + "/评审 1/runs", json={"input": 1})
        assert httpx.get(base + started.headers["location"]).json() == started.json()


def named(name: str) -> TriggerFlow:
    flow = TriggerFlow(name=name)
    flow.to(("keep", lambda data: data.set_state("n", data.input)))
    return flow


def test_wrong_services_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one flow"):
        FlowService()
    with pytest.raises(ValueError, match="same name"):
        FlowService(make_quick(), make_quick())
    with pytest.raises(ValueError, match="is its address"):
        FlowService(named("a/b"))
    with pytest.raises(ValueError, match="read"):
        FlowService(make_quick(), auth={"start": known_by_name}).app()
    with pytest.raises(ValueError, match="reachable from other machines"):
        FlowService(make_quick(), runtime=Runtime()).run(host="0.0.0.0", port=0)
    with pytest.raises(ValueError, match="secret"):
        Webhook("bank")
