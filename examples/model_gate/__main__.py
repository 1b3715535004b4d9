"""Assess a claim; a person answers what the model asks."""

import asyncio

from flowdeck.interaction import ProductMapper, QuestionRule

from .flow import flow

ANSWERS = {"When did it happen?": "On Monday.", "Are there photos?": "yes, three"}


async def main() -> None:
    execution = flow.create_execution(auto_close_timeout=0, task_id="claim-9")
    running = asyncio.create_task(execution.async_start("A pipe burst in the kitchen."))
    rule = QuestionRule("question_asked", stage="review", title="We have a question")
    async for event in ProductMapper(questions={"review": rule}).follow(execution):
        if event.status == "waiting":
            question = event.data["question"]["question"]
            print(f"{event.title}: {question} {ANSWERS[question]}")
            await execution.async_continue_with(event.interrupt_id, ANSWERS[question], actor="ann")

    print((await running)["verdict"])


if __name__ == "__main__":
    asyncio.run(main())
