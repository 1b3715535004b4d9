"""The samples of seed 003 (pause and resume), run as they are written, with only the import changed.

Replaced: ``agently`` by ``flowdeck.compat``; ``runtime_resources={...}``, an ellipsis in the seed, by resources the
sample's chunks need. The words in the questions are the seed's own.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from tests.execution.support import World, keep

from flowdeck.compat import TriggerFlow, TriggerFlowRuntimeData
from flowdeck.errors import HiddenHandleError, PendingInterruptsError

pytestmark = pytest.mark.anyio

IMPORT = "from agently import TriggerFlow, TriggerFlowRuntimeData"

ASK = """
async def ask(data: TriggerFlowRuntimeData):
    return await data.async_pause_for(
        type="human_input",
        payload={"question": f"批准 {data.input} 的操作?"},
        resume_to="next",
    )
"""
CONTINUE = """
interrupt_id = next(iter(execution.get_pending_interrupts()))
await execution.async_continue_with(interrupt_id, {"approved": True})
"""
GATE = """
async def gate(data: TriggerFlowRuntimeData):
    if data.is_resume:
        return {"decision": data.resume.value}
    return await data.async_pause_for(
        type="approval",
        payload={"question": "批准?"},
        resume_to="self",
    )
"""
COMPLETE = """
import asyncio
from agently import TriggerFlow, TriggerFlowRuntimeData


async def main():
    flow = TriggerFlow(name="approval")

    async def ask(data: TriggerFlowRuntimeData):
        return await data.async_pause_for(
            type="approval",
            payload={"question": f"批准工单 {data.input} 退款?"},
            resume_to="next",
        )

    async def commit(data: TriggerFlowRuntimeData):
        await data.async_set_state("decision", data.input)

    flow.to(ask).to(commit)

    execution = flow.create_execution(auto_close=False)
    await execution.async_start("T-001")

    # 真实系统里 UI / webhook 后续调 continue_with。
    # 这里在同一协程里恢复仅作 demo。
    interrupt_id = next(iter(execution.get_pending_interrupts()))
    await execution.async_continue_with(interrupt_id, {"approved": True})

    snapshot = await execution.async_close()
    print(snapshot["decision"])  # {'approved': True}


asyncio.run(main())
"""
SAVE = """
execution = flow.create_execution(auto_close=False)
await execution.async_start("topic")
# 此时已碰到 pause_for;存在 pending interrupt

saved = execution.save()
# 持久化 saved
"""
RESTORE = """
# 后续在另一进程 / worker:
restored = flow.create_execution(
    auto_close=False,
    runtime_resources={...},   # chunk 需要的全部重新注入
)
restored.load(saved)
interrupt_id = next(iter(restored.get_pending_interrupts()))
await restored.async_continue_with(interrupt_id, {"approved": True})
snapshot = await restored.async_close()
"""
CANCEL = """
snapshot = await execution.async_close(pending_interrupts="cancel")
"""

FLOW = """
from agently import TriggerFlow, TriggerFlowRuntimeData

flow = TriggerFlow(name="topics")

async def ask(data: TriggerFlowRuntimeData):
    return await data.async_pause_for(type="approval", payload={"topic": data.input})

async def publish(data: TriggerFlowRuntimeData):
    await data.async_set_state("published", [data.require_resource("press"), data.input])

flow.to(ask).to(publish)
"""


def changed(source: str) -> str:
    return source.replace("from agently import", "from flowdeck.compat import").replace("{...}", '{"press": "press 7"}')


async def run_sample(source: str, **given: Any) -> dict[str, Any]:
    """Run a block of the seed with the names it takes for granted."""
    namespace = {"TriggerFlow": TriggerFlow, "TriggerFlowRuntimeData": TriggerFlowRuntimeData, **given}
    code: CodeType = compile(changed(source), "<seed 003>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, namespace)
    if outcome is not None:
        await outcome

    return namespace


async def test_pause_and_continue(world: World) -> None:
    """The chunk asks, the execution stays alive and idle, and the answer becomes the paused chunk's output."""
    ask = (await run_sample(ASK))["ask"]
    flow = TriggerFlow(name="f")
    flow.to(ask).to(keep("answer"))
    execution = world.execution(flow)
    await execution.async_start("T-9")
    (record,) = execution.get_pending_interrupts().values()
    assert (record["type"], record["payload"]) == ("human_input", {"question": "批准 T-9 的操作?"})
    assert execution.is_waiting() and execution.is_idle() and execution.is_open()
    await run_sample(CONTINUE, execution=execution)
    assert await execution.async_close() == {"answer": {"approved": True}}


async def test_the_same_chunk_again(world: World) -> None:
    """resume_to="self" runs the gate once more, with the resume context."""
    gate = (await run_sample(GATE))["gate"]
    flow = TriggerFlow(name="f")
    flow.to(gate).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start("T-9")
    await run_sample(CONTINUE, execution=execution)
    assert world.chunks() == {"gate": 2, "keep out": 1}
    assert await execution.async_close() == {"out": {"decision": {"approved": True}}}


@pytest.mark.parametrize("option", [{"resume_to": {"event": "ApprovalGiven"}}, {"resume_event": "ApprovalGiven"}])
async def test_to_an_event(world: World, option: dict[str, Any]) -> None:
    """The answer goes out as the event; so does the older form, and a matching emit answers as well."""

    async def ask(data: TriggerFlowRuntimeData) -> Any:
        return await data.async_pause_for(type="webhook", **option)

    flow = TriggerFlow(name="f")
    flow.to(ask).to(keep("not reached"))
    flow.when("ApprovalGiven").to(keep("given"))
    execution = world.execution(flow)
    await execution.async_start()
    await run_sample(CONTINUE, execution=execution)
    assert await execution.async_close() == {"given": {"approved": True}}

    execution = world.execution(flow)
    await execution.async_start()
    await execution.async_emit("ApprovalGiven", "by emit")
    assert not execution.get_pending_interrupts()
    assert await execution.async_close() == {"given": "by emit"}


def test_the_complete_example_as_a_program(tmp_path: Path) -> None:
    """The whole program prints what the seed says it prints."""
    program = tmp_path / "approval.py"
    program.write_text(changed(COMPLETE), encoding="utf-8")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{'approved': True}\n", "")


async def test_a_hidden_handle_is_refused() -> None:
    """flow.start() on a flow that pauses is an error which says what to use."""
    ask = (await run_sample(ASK))["ask"]
    flow = TriggerFlow(name="f")
    flow.to(ask)
    with pytest.raises(HiddenHandleError, match=r"create_execution\(\) or flow\.start_execution\(\)"):
        await flow.async_start("T-001")


def test_a_restart_between_question_and_answer(tmp_path: Path) -> None:
    """Saved in one process, loaded and answered in another, with the resources injected again."""
    store = tmp_path / "saved.json"
    first, second = tmp_path / "first.py", tmp_path / "worker.py"
    keeps = f"pathlib.Path({str(store)!r})"
    first.write_text(program(FLOW, f"{SAVE}\n{keeps}.write_text(json.dumps(saved))"), encoding="utf-8")
    second.write_text(
        program(FLOW, f"saved = json.loads({keeps}.read_text())\n{RESTORE}\nprint(json.dumps(snapshot))"),
        encoding="utf-8",
    )
    for script in (first, second):
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
        assert done.stderr == ""

    assert json.loads(done.stdout) == {"published": ["press 7", {"approved": True}]}


def program(top: str, body: str) -> str:
    """Return a script with ``body`` in an async main."""
    lines = "\n".join(f"    {line}" for line in changed(body).splitlines())
    return f"import asyncio, json, pathlib\n{changed(top)}\nasync def main():\n{lines}\n\nasyncio.run(main())\n"


async def test_several_at_once(world: World) -> None:
    """Two branches wait under ids of their own; each answer solves one."""

    def asking(interrupt_id: str) -> Any:
        async def ask(data: TriggerFlowRuntimeData) -> Any:
            return await data.async_pause_for(interrupt_id=interrupt_id)

        return (f"ask {interrupt_id}", ask)

    flow = TriggerFlow(name="f")
    flow.to(asking("my-id")).to(keep("mine"))
    flow.to(asking("other")).to(keep("others"))
    execution = world.execution(flow)
    await execution.async_start()
    assert set(execution.get_pending_interrupts()) == {"my-id", "other"}
    await execution.async_continue_with("my-id", 1)
    assert set(execution.get_pending_interrupts()) == {"other"} and execution.is_waiting()
    await execution.async_continue_with("other", 2)
    assert await execution.async_close() == {"mine": 1, "others": 2}


async def test_close_refuses_and_cancel_is_said_aloud(world: World) -> None:
    """async_close() refuses while somebody is asked; the wait is given up only with the cancel policy."""
    ask = (await run_sample(ASK))["ask"]
    flow = TriggerFlow(name="f")
    flow.to(ask).to(keep("out"))
    execution = world.execution(flow)
    await execution.async_start("T-1")
    with pytest.raises(PendingInterruptsError, match="cancel"):
        await execution.async_close()

    snapshot = (await run_sample(CANCEL, execution=execution))["snapshot"]
    assert snapshot == {} and execution.get_status() == "cancelled"
