"""Burr. An application is built for every run, as its documentation does; it has no fan-out of plain steps."""

import asyncio
import sqlite3
import tempfile

from _timing import Growth, Timing, main
from burr.core import ApplicationBuilder, State
from burr.core.action import action
from burr.core.persistence import SQLLitePersister
from burr.tracking import LocalTrackingClient


@action(reads=["n"], writes=["n"])
async def step(state: State) -> State:
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
async def nap(state: State) -> State:
    await asyncio.sleep(0.001)
    return state.update(n=state["n"] + 1)


@action(reads=["n"], writes=["n"])
async def human(state: State, answer: int) -> State:
    return state.update(n=answer)


@action(reads=["n"], writes=["n"])
def sync_step(state: State) -> State:
    return state.update(n=state["n"] + 1)


def chain(steps, each=step):
    return (
        ApplicationBuilder()
        .with_actions(**{f"s{n}": each for n in range(steps)})
        .with_transitions(*[(f"s{n}", f"s{n + 1}") for n in range(steps - 1)])
        .with_state(n=0)
        .with_entrypoint("s0")
    )


def pausing():
    return (
        ApplicationBuilder()
        .with_actions(s0=step, human=human, commit=step)  # it cannot halt before its first action
        .with_transitions(("s0", "human"), ("human", "commit"))
        .with_state(n=0)
        .with_entrypoint("s0")
    )


async def w1(t: Timing) -> None:
    async def run():
        application = await chain(20).abuild()
        await application.arun(halt_after=["s19"])

    await t.cpu("step, nobody observes", run, 20, 20)
    with tempfile.TemporaryDirectory() as folder:

        async def tracked():
            tracker = LocalTrackingClient(project="p", storage_dir=folder)
            application = await chain(20).with_tracker(tracker).abuild()
            await application.arun(halt_after=["s19"])

        await t.cpu("step, observed", tracked, 6, 20)


async def w3(t: Timing) -> None:
    async def one():
        application = await chain(10, nap).abuild()
        await application.arun(halt_after=["s9"])

    growth = Growth()
    await t.cpu("1,000 x 10 naps", lambda: asyncio.gather(*[one() for _ in range(1000)]), 1, unit="s")
    t.put("RSS growth", "MB", growth.peak_mb())


async def w4(t: Timing) -> None:
    async def once():
        application = await pausing().abuild()
        await application.arun(halt_before=["human"])
        await application.arun(halt_after=["commit"], inputs={"answer": 5})

    await t.cpu("pause + resume, whole execution", once, 30)
    with tempfile.TemporaryDirectory() as folder:
        persister = SQLLitePersister(db_path=f"{folder}/b.db", table_name="t")
        persister.initialize()
        application = (
            ApplicationBuilder()
            .with_actions(s0=sync_step, s1=sync_step)
            .with_transitions(("s0", "s1"))
            .with_state(n=0)
            .with_entrypoint("s0")
            .with_identifiers(app_id="a")
            .with_state_persister(persister)
            .build()
        )
        application.run(halt_after=["s0"])
        size = sqlite3.connect(f"{folder}/b.db").execute("select max(length(state)) from t").fetchone()[0]
        t.put("snapshot", "B", size)


async def w7(t: Timing) -> None:
    held = []

    async def make(count):
        for _ in range(count):
            application = await pausing().abuild()
            await application.arun(halt_before=["human"])
            held.append(application)

    await make(20)
    growth = Growth()
    await make(2000)
    t.put("parked execution", "B", growth.bytes() / 2000)


main({"W1": w1, "W3": w3, "W4": w4, "W7": w7}, "burr")
