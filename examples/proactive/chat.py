"""An adapter for a chat: shows how a task stands, and hands on which button was pressed. It decides nothing.

What a button means stands in the button; whether it may still be pressed, and what follows, the flow says.
"""

import asyncio
import json
import urllib.request

from fastapi import FastAPI
from pydantic import BaseModel

from flowdeck.errors import InterruptError

from .office import Office, Task

TEXTS = {
    "waiting": "The report on {topic} is ready to be published.",
    "completed": "The report on {topic} is done.",
    "cancelled": "The report on {topic} was given up.",
    "failed": "There is no report on {topic}: something went wrong.",
    "reminder": "Still waiting: shall the report on {topic} be published?",
}


class Pressed(BaseModel):
    """What the chat sends when somebody presses a button: the content of the button."""

    task_id: str
    interrupt_id: str
    value: dict


class Chat:
    """Sends messages to a chat server at ``url``. Give :meth:`tell` to the :class:`Office`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def tell(self, task: Task, kind: str) -> None:
        """Show a task. Raises OSError when the chat cannot be reached."""
        text = TEXTS[kind if kind == "reminder" else task.status].format(topic=task.topic)
        answers = {"Publish": {"publish": True}, "Discard": {"publish": False}} if task.interrupt_id else {}
        where = {"task_id": task.task_id, "interrupt_id": task.interrupt_id}
        buttons = [{"label": label, "content": {**where, "value": value}} for label, value in answers.items()]
        await asyncio.to_thread(self._post, {"text": text, "buttons": buttons})

    def _post(self, message: dict) -> None:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self._url + "/messages", json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=5):
            pass


def make_callback(office: Office) -> FastAPI:
    """What the chat server calls when a button is pressed."""
    app = FastAPI()

    @app.post("/pressed")
    async def pressed(button: Pressed) -> dict[str, str]:
        try:
            await office.continue_with(button.task_id, button.interrupt_id, button.value)
        except InterruptError as refused:
            return {"reply": f"Not possible any more: {refused}"}

        return {"reply": "Thank you."}

    return app
