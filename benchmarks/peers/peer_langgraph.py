"""LangGraph. Its pause needs a checkpointer; in memory that is ``InMemorySaver``."""

import asyncio
import operator
import os
import sqlite3
import tempfile
import uuid
from typing import Annotated, TypedDict

from _timing import Growth, Timing, main
from langchain_core.callbacks import AsyncCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

os.environ["LANGSMITH_TRACING"] = "false"
CONFIG = {"recursion_limit": 200}


class State(TypedDict):
    n: int


class Fan(TypedDict):
    out: Annotated[list, operator.add]


def chain(steps, nap=0):
    graph = StateGraph(State)

    async def step(state):
        if nap:
            await asyncio.sleep(nap)

        return {"n": state["n"]}

    for n in range(steps):
        graph.add_node(f"s{n}", step)
        graph.add_edge(START if n == 0 else f"s{n - 1}", f"s{n}")

    graph.add_edge(f"s{steps - 1}", END)
    return graph.compile()


def pausing(saver):
    graph = StateGraph(State)

    async def ask(state):
        return {"n": 7 if interrupt({"q": "ok?"}) else 0}

    async def commit(state):
        return {"n": state["n"] + 1}

    graph.add_node("ask", ask)
    graph.add_node("commit", commit)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "commit")
    graph.add_edge("commit", END)
    return graph.compile(checkpointer=saver)


def thread():
    return {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 200}


class Callback(AsyncCallbackHandler):
    async def on_chain_start(self, *args, **options):
        return None

    async def on_chain_end(self, *args, **options):
        return None


async def w1(t: Timing) -> None:
    graph = chain(20)
    await t.cpu("step, nobody observes", lambda: graph.ainvoke({"n": 0}, CONFIG), 15, 20)
    observed = {**CONFIG, "callbacks": [Callback()]}
    await t.cpu("step, observed", lambda: graph.ainvoke({"n": 0}, observed), 10, 20)


async def w2(t: Timing) -> None:
    graph = StateGraph(Fan)

    async def branch(item):
        return {"out": [item]}

    async def join(state):
        return {}

    graph.add_node("branch", branch)
    graph.add_node("join", join)
    graph.add_conditional_edges(START, lambda state: [Send("branch", n) for n in range(100)], ["branch"])
    graph.add_edge("branch", "join")
    graph.add_edge("join", END)
    compiled = graph.compile()
    await t.cpu("branch of 100 + join", lambda: compiled.ainvoke({"out": []}, CONFIG), 5, 100)


async def w3(t: Timing) -> None:
    graph = chain(10, 0.001)
    growth = Growth()
    await t.cpu(
        "1,000 x 10 naps", lambda: asyncio.gather(*[graph.ainvoke({"n": 0}, CONFIG) for _ in range(1000)]), 1, unit="s"
    )
    t.put("RSS growth", "MB", growth.peak_mb())


async def w4(t: Timing) -> None:
    graph = pausing(InMemorySaver())

    async def once():
        config = thread()
        await graph.ainvoke({"n": 0}, config)
        done = await graph.ainvoke(Command(resume=True), config)
        assert done["n"] == 8

    await t.cpu("pause + resume, whole execution", once, 20)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/c.db"
        async with AsyncSqliteSaver.from_conn_string(path) as saver:
            await pausing(saver).ainvoke({"n": 0}, thread())

        db = sqlite3.connect(path)
        size = db.execute("select sum(length(checkpoint) + length(metadata)) from checkpoints").fetchone()[0]
        size += db.execute("select sum(length(value)) from writes").fetchone()[0] or 0
        t.put("snapshot", "B", size)


async def w7(t: Timing) -> None:
    graph = pausing(InMemorySaver())

    async def make(count):
        for _ in range(count):
            await graph.ainvoke({"n": 0}, thread())

    await make(20)
    growth = Growth()
    await make(1000)
    t.put("parked execution", "B", growth.bytes() / 1000)


main({"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W7": w7}, "langgraph", "langgraph-checkpoint", "langchain-core")
