"""Whatever is sent, nothing is a server error: requests made from the OpenAPI, and frames on a WebSocket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from tests.web.served_flows import make_review, make_typed
from tests.web.server import serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from flowdeck import Runtime
from flowdeck.web import FlowService, Webhook

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
FEW = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=QUIET, phases=[Phase.generate])
MANY = settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
CHECKS = [not_a_server_error]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a store; one flow with a contract, one that asks."""
    store = tmp_path_factory.mktemp("hostile") / "store"
    hook = Webhook("bank", scheme=lambda headers, body: headers.get("x-delivery"))
    service = FlowService(
        make_review(), make_typed(), store=store, runtime=Runtime(), wait=1.0, max_body=50_000, webhooks=[hook]
    )
    with serving(service) as address:
        yield address


@pytest.fixture(scope="module")
def run(base: str) -> str:
    """A run that waits, so that some of the requests meet one."""
    return str(httpx.post(base + "/review/runs", json={"input": "doc"}).json()["execution_id"])


@pytest.fixture(scope="module")
def api(base: str) -> Any:
    """The service as its own OpenAPI describes it."""
    config = SchemathesisConfig()
    config.projects.default.phases.coverage.enabled = False
    return schemathesis.openapi.from_url(base + "/openapi.json", config=config)


schema = schemathesis.pytest.from_fixture("api")


def attempt(case: Any, run: str) -> None:
    """Send a request as it was made, and once more to a run there is."""
    if "wait" in (case.query or {}):
        case.query = {**case.query, "wait": 0}  # any other is only slower

    answer = case.call(timeout=10)
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code < 500, (case.as_curl_command(), answer.text)
    if "execution_id" in (case.path_parameters or {}) and not case.path.endswith("/cancel"):
        real = {"execution_id": run, "webhook": "bank", "interrupt_id": "approve"}
        case.path_parameters = {name: real[name] for name in case.path_parameters}
        if case.path.endswith("/events"):
            case.query = {"until": "waiting"}

        answer = case.call(timeout=10)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)


@schema.parametrize()
@FEW
def test_no_request_that_the_openapi_allows_is_a_server_error(case: Any, run: str) -> None:
    attempt(case, run)


@pytest.mark.slow
@pytest.mark.timeout(900)  # twenty operations in one test
@schema.parametrize()
@MANY
def test_no_request_that_the_openapi_allows_is_a_server_error_at_length(case: Any, run: str) -> None:
    attempt(case, run)


# -- frames ------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
NAMES = (
    "flow",
    "execution_id",
    "interrupt_id",
    "after",
    "until",
    "input",
    "value",
    "payload",
    "key",
    "task_id",
    "note",
)
OPS = st.sampled_from(["start", "follow", "status", "answer", "intervene", "cancel", "forget", "x"])
FRAMES = st.fixed_dictionaries(
    {"id": st.integers(0, 5) | st.text(max_size=3), "op": OPS},
    optional={
        name: VALUES | st.sampled_from(["review", "typed", "approve", "1:0", "waiting", "RUN"]) for name in NAMES
    },
).map(lambda frame: json.dumps(frame))
MESSAGES = st.lists(FRAMES | VALUES.map(json.dumps) | st.text(max_size=50) | st.binary(max_size=50), max_size=12)


def converse(base: str, run: str, messages: list[str | bytes]) -> None:
    """Send frames; the connection must still serve the one after them, and nothing told may be an internal error."""
    with connect(base.replace("http", "ws", 1) + "/socket", close_timeout=1) as socket:
        for message in messages:
            socket.send(message.replace("RUN", run) if isinstance(message, str) else message)

        socket.send(json.dumps({"id": "last", "op": "status", "flow": "review", "execution_id": run}))
        while (frame := json.loads(socket.recv(10)))["id"] != "last":
            assert frame["type"] != "error" or frame["data"]["status"] < 500, (messages, frame)

        assert frame["type"] == "run"


@FEW
@given(messages=MESSAGES)
def test_no_frame_breaks_a_websocket(base: str, run: str, messages: list[str | bytes]) -> None:
    converse(base, run, messages)


@pytest.mark.slow
@MANY
@given(messages=MESSAGES)
def test_no_frame_breaks_a_websocket_at_length(base: str, run: str, messages: list[str | bytes]) -> None:
    converse(base, run, messages)


def told(socket: ClientConnection, message: str | bytes) -> dict[str, Any]:
    socket.send(message)
    return dict(json.loads(socket.recv(5)))


def test_a_websocket_has_bounds(base: str) -> None:
    """Too many requests at a time are refused one by one; too big a message ends the connection."""
    run = httpx.post(base + "/review/runs", json={"input": "doc"}).json()["execution_id"]
    address = base.replace("http", "ws", 1) + "/socket"
    with connect(address) as socket:
        follow = {"op": "follow", "flow": "review", "execution_id": run, "after": "1:99"}
        seen = []
        for number in range(105):
            socket.send(json.dumps({**follow, "id": number}))
        while len(refused := [each for each in seen if each["type"] == "error"]) < 5:
            seen.append(json.loads(socket.recv(5)))

        assert {each["data"]["status"] for each in refused} == {429}
        socket.send(json.dumps({"id": 0, "op": "forget"}))
        while (frame := json.loads(socket.recv(5)))["type"] != "forgotten":
            pass

        assert frame["id"] == 0
        socket.send("x" * 60_000)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(5)

        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009

    with pytest.raises(Exception, match="403"):
        connect(address, additional_headers={"Origin": "http://evil.example"}).close()


@pytest.mark.parametrize(
    "text", ["1e400", "-1e400", "123456789012345678901234567890", '"\\ud800"', "1e-400", '{"":{}}']
)
def test_odd_values_are_taken_or_refused_alike_everywhere(base: str, text: str) -> None:
    """What JSON can say goes into a run and comes out, or is refused as the client's mistake; also as a key or id."""
    body = f'{{"input": {text}, "task_id": "t"}}'.encode()
    answer = httpx.post(base + "/review/runs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (202, 422), answer.text
    if answer.status_code == 202:
        assert httpx.get(base + answer.headers["location"]).json()["status"] == "waiting"

    for path in (
        "/review/runs/%00",
        "/review/runs/%ff",
        "/review/runs/" + "x" * 5_000,
        "/review/runs/%ED%A0%80/events",
    ):
        assert httpx.get(base + path).status_code == 404

    for wait in ("nan", "inf", "-1", "1e999", "x"):
        assert httpx.post(f"{base}/typed/runs?wait={wait}", json={"input": 1}).status_code == 422


def test_store_is_private(tmp_path: Path) -> None:
    """What a service keeps is for its user only."""
    with serving(FlowService(make_typed(), store=tmp_path / "store", runtime=Runtime())) as base:
        assert httpx.post(base + "/typed/runs", json={"input": 1}).status_code == 200
        assert (tmp_path / "store").stat().st_mode & 0o077 == 0
