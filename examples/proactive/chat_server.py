"""A chat server on this machine, in place of the one a company has: keeps messages, and calls back for buttons."""

import asyncio
import json
import urllib.request

from fastapi import FastAPI, HTTPException


def make_chat_server(callback: str) -> FastAPI:
    """``POST /messages``, ``GET /messages``, ``POST /messages/{n}/press/{button}``; ``POST /down`` loses messages."""
    app = FastAPI()
    messages: list[dict] = []
    state = {"down": False}

    @app.post("/messages")
    def send(message: dict) -> dict[str, int]:
        if state["down"]:
            raise HTTPException(503)

        messages.append(message)
        return {"number": len(messages) - 1}

    @app.get("/messages")
    def listed() -> list[dict]:
        return messages

    @app.post("/down")
    def down(is_down: bool) -> None:
        state["down"] = is_down

    @app.post("/messages/{number}/press/{button}")
    async def press(number: int, button: int) -> dict:
        content = json.dumps(messages[number]["buttons"][button]["content"]).encode()
        request = urllib.request.Request(callback + "/pressed", content, {"content-type": "application/json"})
        return await asyncio.to_thread(lambda: json.load(urllib.request.urlopen(request, timeout=10)))

    return app
