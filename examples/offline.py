"""The model of the examples: the one FLOWDECK_MODEL names, else a server on this machine that answers from a script.

The server speaks HTTP and server-sent events, so everything above it works as with a provider. It is no model: it says
what the script holds. In your own code this module is one line: ``agent.use_model("openai:gpt-5-mini")``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import Any

from flowdeck.models import ModelConfig
from flowdeck.models.pydantic_ai import PydanticAIRequester
from flowdeck.models.requester import ModelRequest, Piece
from flowdeck.testing import LocalModel

__all__ = ["model_of", "said"]

Script = Callable[[dict[str, Any]], Any]


def model_of(script: Script) -> ModelConfig:
    """Return the model an example asks. ``script(request)`` answers for it when FLOWDECK_MODEL names none."""
    return ModelConfig.of(os.environ.get("FLOWDECK_MODEL") or Offline(script))


def said(request: dict[str, Any]) -> str:
    """Return what the user's side said last in a request, as one text."""
    return str(next(m["content"] for m in reversed(request["messages"]) if m["role"] == "user"))


class Offline:
    """Asks a scripted server, which is started when it is asked first; a run that is replayed never starts it."""

    name = "local"

    def __init__(self, script: Script) -> None:
        self._script = script

    @cached_property
    def _requester(self) -> PydanticAIRequester:
        server = LocalModel(self._script).start()
        return PydanticAIRequester(ModelConfig(self.name, server.base_url, server.api_key))

    async def stream(self, request: ModelRequest) -> AsyncIterator[Piece]:
        """Answer one request, over HTTP."""
        async for piece in self._requester.stream(request):
            yield piece
