"""Flows behind HTTP over a PostgreSQL store."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.postgres.server import Server
from tests.postgres.shelves import PostgresBench
from tests.web.served_flows import make_review
from tests.web.server import following, serving

from flowdeck import Runtime
from flowdeck.web import FlowService


@pytest.fixture
def bench(server: Server) -> Iterator[PostgresBench]:
    made = PostgresBench(server)
    yield made
    made.close()


def test_a_run_that_was_taken_over_ends_its_streams_and_goes_on_when_it_is_left_again(bench: PostgresBench) -> None:
    service, other = FlowService(make_review(), store=bench.url, runtime=Runtime()), Runtime()
    with serving(service) as base, httpx.Client(base_url=base, timeout=10) as client, other.use():
        key = {"idempotency-key": "k"}
        run = client.post("/review/runs", json={"input": "doc"}, headers=key).json()["execution_id"]
        assert len(client.get("/review/interrupts").json()) == 1
        with other.use_store(bench.url) as holder, following(client, f"/review/runs/{run}/events") as events:
            assert [next(events).event for _ in range(3)][-1] == "waiting"
            token = holder.store.claim(run, force=True).token
            service.desk._durable.host.look_around()
            assert [event.event for event in events] == ["dropped"]
            assert client.get(f"/review/runs/{run}/events").status_code == 409
            again = client.post("/review/runs", json={"input": "doc"}, headers=key)
            assert (again.status_code, again.json()["execution_id"]) == (202, run)
            assert client.post("/review/runs", json={"input": "another"}, headers=key).status_code == 422
            holder.store.release(run, token)

        answered = client.post(f"/review/runs/{run}/interrupts/approve", json={"value": {"ok": True}})
        assert answered.status_code in (200, 202)
        assert client.get(f"/review/runs/{run}/result?wait=5").json()["result"]["answer"] == {"ok": True}
