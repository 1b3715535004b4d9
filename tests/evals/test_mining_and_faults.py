"""What production teaches: stored runs become cases, and recorded runs are tried with one fault in them."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, find, settings

from flowdeck import Runtime, TriggerFlow
from flowdeck.execution.ports import Reply
from flowdeck.execution.services import use_services
from flowdeck_evals.cli.app import run_command
from flowdeck_evals.faults import Fault, faults, replay_with
from flowdeck_evals.looping import run_loop
from flowdeck_evals.mining import mine
from flowdeck_evals.single import record_live
from flowdeck_sinks.journal import JournalSink

FLOW = """
from flowdeck import TriggerFlow

flow = TriggerFlow(name="Shop Orders")


async def take(data):
    return data.input


async def charge(data):
    order = data.input
    if order < 0:
        raise ValueError(f"order {order} has no amount")

    if order == 99:
        raise KeyError("nobody")

    return await data.call("bank", "charge", lambda amount: {"paid": amount}, order)


async def approve(data):
    if data.input["paid"] > 50:
        return await data.async_pause_for(type="approve", payload=data.input)

    return data.input


flow.to(take).to(charge).to(approve)
"""


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A store with twelve runs: seven well, three and one that failed in two ways, one that a person answered."""
    module = f"shop_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(FLOW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLOWDECK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("FLOWDECK_PUBLISH", "off")
    request.addfinalizer(lambda: sys.modules.pop(module, None))
    flow = __import__(module).flow

    class Ada:
        def answer(self, question: Any) -> Reply:
            return Reply({"yes": True}, "ada")

    async def run() -> None:
        runtime = Runtime()
        sink = JournalSink(tmp_path / "store", lossless=True)
        runtime.center.add_sink(sink)
        runtime.services.answerer = Ada()
        with use_services(runtime.services):
            for order in (1, 2, 3, 4, 5, 6, 7, -1, -2, -3, 99, 60):
                execution = flow.create_execution(auto_close=True, auto_close_timeout=0.0)
                with suppress(ValueError, KeyError):
                    await execution.async_start(order)

        sink.flush(5)
        sink.close(2)

    run_loop(run())
    return tmp_path


def test_stored_runs_become_cases_once(production: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of one error and path are one cluster, whose newest run is kept once and passes when it is replayed."""
    found = mine(production / "store", ["failures"])
    assert [(one.seen, len(one.runs), one.path) for one in found] == [
        (3, 3, ("take", "charge")),
        (1, 1, ("take", "charge")),
    ]
    assert "ValueError: order #" in found[0].kind or "ValueError" in found[0].kind
    assert [one.seen for one in mine(production / "store", ["answered"])] == [1]
    assert mine(production / "store", ["slow"], slower_s=3600) == []
    assert mine(production / "store", ["failures"], flow="another") == []
    assert mine(production / "store", since="2100-01-01") == []

    (module,) = (file.stem for file in production.glob("shop_*.py"))
    args = ["mine", "failures", "answered", "--out", "evals", "--target", f"{module}:flow"]
    assert run_command(args) == 0
    assert "clusters=3 kept=3" in capsys.readouterr().out
    assert run_command(["run", "evals", "-q"]) == 0
    assert mine(production / "store", ["failures"]) == found  # what evals ran is no production
    assert run_command(args) == 0
    assert "clusters=3 kept=0" in capsys.readouterr().out
    assert len(list((production / "evals" / "tapes").glob("*.tape"))) == 3
    assert run_command(["mine", "everything"]) == 2
    assert run_command(["mine", "--since", "yesterday?"]) == 2


def booking() -> TriggerFlow:
    """A trip that books, then charges; when charging fails it forgets what it booked unless it ran out of time."""
    flow = TriggerFlow(name="trip")

    async def trip(data: Any) -> None:
        seat = await data.call("airline", "book", lambda: "12A")
        try:
            await data.call("bank", "charge", lambda: {"paid": 1})
        except TimeoutError:
            await data.call("airline", "cancel", lambda: None)
        except ConnectionError:
            seat = None

        await data.call("mail", "send", lambda seat: None, seat)

    flow.to(trip)
    return flow


def test_a_fault_is_drawn_and_shrunk() -> None:
    """Hypothesis finds the one fault after which a booked seat is neither paid nor given back, and repeats it."""
    single = asyncio.run(record_live(booking(), 1))
    flow = booking()

    def lost(fault: Fault) -> bool:
        done = {
            event.subject
            for event in replay_with(single.tape, flow, fault).evidence.events
            if event.kind == "call.done"
        }
        paid = "bank.charge" in done or "airline.cancel" in done
        return "airline.book" in done and not paid and fault.call == "bank.charge"

    quick = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    found = find(
        faults(single.tape, kinds=("raise",), errors=("TimeoutError", "ConnectionError")), lost, settings=quick
    )
    assert found.call == "bank.charge" and found.kind == "raise"
    assert lost(found)
    assert str(Fault("bank.charge", 1, "delay", 60.0)) == "bank.charge, call 1, takes 60 s longer"
    with pytest.raises(ValueError, match="asked nothing"):
        faults(single.tape, calls=["no.call"])


def test_late_and_odd_answers() -> None:
    """A delay passes on the round's clock, not on the wall; a wrong type reaches the flow in place of the answer."""
    single = asyncio.run(record_live(booking(), 1))
    late = replay_with(single.tape, booking(), Fault("bank.charge", 1, "delay", 3600.0))
    assert late.evidence.virtual_us is not None and late.evidence.virtual_us >= 3600e6
    assert late.evidence.wall_us < 60e6 and not late.evidence.error_type
    odd = replay_with(single.tape, booking(), Fault("airline.book", 1, "wrong_type"))
    sent = [event for event in odd.evidence.events if event.kind.startswith("call.") and event.subject == "mail.send"]
    assert odd.divergence is not None or sent
