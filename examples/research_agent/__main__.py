"""Ask a question of the archive, and show what the answer stands on."""

import asyncio

from .flow import agent, flow

QUESTION = "Since when does the night train to Rome run again, and how many compartments has it?"


async def main() -> None:
    agent.activate_session(session_id="s-1")
    state = await flow.async_start({"question": QUESTION, "task_id": "t-1"})
    print(state["answer"]["text"])

    for link in await agent.workspace.links(state["answer"]["ref"]):
        print(link["relation"], await agent.workspace.get(link["target_id"]), end="")

    print([message["role"] for message in agent.activated_session.context_window])


if __name__ == "__main__":
    asyncio.run(main())
