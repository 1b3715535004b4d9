"""Requests through pydantic-ai: its providers, and any OpenAI-compatible server.

A model object belongs to one event loop, because its connections do; :func:`close_models` ends those of the running
loop. Retries inside provider SDKs are turned off: every try is an attempt of ours, with events of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from flowdeck.errors import ModelError, ModelNotConfigured, ModelStreamCut
from flowdeck.models.config import ModelConfig
from flowdeck.models.failures import named, scrub
from flowdeck.models.requester import Message, ModelRequest, Piece

__all__ = ["PydanticAIRequester", "close_models"]

_models: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, Any]] = WeakKeyDictionary()
_NO_SETTINGS: Final[Mapping[str, Any]] = {}


class PydanticAIRequester:
    """Answers requests with one configured model."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.loading_ns = 0
        """How long importing pydantic-ai took, in the first request of a process; no part of the model's time."""

    def __repr__(self) -> str:
        return f"<PydanticAIRequester {self.config.name!r}>"

    async def stream(self, request: ModelRequest) -> AsyncIterator[Piece]:
        """Answer one request; see :class:`~flowdeck.models.requester.ModelRequester`."""
        config = self.config
        if "pydantic_ai.direct" not in sys.modules:
            began = time.perf_counter_ns()
            await asyncio.to_thread(_library)  # about a second, which would hold up everything else on the loop
            self.loading_ns = time.perf_counter_ns() - began

        library = _library()
        try:
            model = _model_of(config)
            settings = {**config.settings, **request.get("settings", _NO_SETTINGS)}
            if getattr(getattr(model, "client", None), "max_retries", None) != 0:
                settings["max_retries"] = 0  # a copy of the client for every request

            tools = [
                library.tools.ToolDefinition(
                    name=tool["name"], description=tool["description"], parameters_json_schema=tool["parameters"]
                )
                for tool in request.get("tools", ())
            ]
            opened = library.direct.model_request_stream(
                model,
                _messages(request["messages"], library.messages),
                model_settings=settings,
                model_request_parameters=library.models.ModelRequestParameters(function_tools=tools),
            )
            calls: dict[int, int] = {}
            async with opened as answer:
                async for event in answer:
                    piece = _piece(event, calls)
                    if piece is not None:
                        yield piece

                yield "meta", _meta(answer, config)
        except (ModelError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as problem:
            raise named(problem, config) from None  # the cause may hold headers, and bodies that repeat the key


def _piece(event: Any, calls: dict[int, int]) -> Piece | None:
    """Return what an event of pydantic-ai adds to the answer; ``None`` for one that only tells of its structure."""
    kind = event.event_kind
    if kind == "part_delta":
        delta = event.delta
        part_kind = delta.part_delta_kind
        if part_kind == "text":
            return ("delta", delta.content_delta) if delta.content_delta else None

        if part_kind == "thinking":
            return ("reasoning_delta", delta.content_delta) if delta.content_delta else None

        if part_kind == "tool_call":
            arguments = delta.args_delta
            index = calls.setdefault(event.index, len(calls))
            return "tool_calls", [_call(index, delta.tool_call_id, delta.tool_name_delta, arguments)]

    elif kind == "part_start":
        part = event.part
        if part.part_kind == "text":
            return ("delta", part.content) if part.content else None

        if part.part_kind == "thinking":
            return ("reasoning_delta", part.content) if part.content else None

        if part.part_kind == "tool-call":
            index = calls.setdefault(event.index, len(calls))
            return "tool_calls", [_call(index, part.tool_call_id, part.tool_name, part.args)]

    return None


def _call(index: int, call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    return {
        "index": index,
        "id": call_id or "",
        "name": name or "",
        "arguments": "" if arguments is None else arguments,
    }


def _meta(answer: Any, config: ModelConfig) -> dict[str, Any]:
    """Return what the provider says of a whole answer.

    Raises:
        ModelStreamCut: the provider never said that it had finished.
    """
    details = answer.provider_details or {}
    if "finish_reason" not in details and type(answer).__name__.startswith("OpenAI") and answer.provider_name:
        raise ModelStreamCut(
            f"the answer of {config.name!r} ended without a finish reason: it is not whole", model=config.name
        )

    whole = answer.get()
    usage = whole.usage
    counted = {
        name: value
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        if isinstance(value := getattr(usage, name, None), int) and value
    }
    reasoning = (getattr(usage, "details", None) or {}).get("reasoning_tokens")
    if reasoning:
        counted["reasoning_tokens"] = reasoning

    if getattr(usage, "unmeasured_requests", 0):
        counted = {}

    return {
        "finish_reason": whole.finish_reason,
        "usage": counted,
        "model": whole.model_name,
        "provider": whole.provider_name or config.provider,
        "id": whole.provider_response_id,
    }


def _messages(messages: list[Message], library: Any) -> list[Any]:
    """Return messages as pydantic-ai's; neighbours of one side become one."""
    out: list[Any] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "assistant":
            parts: list[Any] = [library.TextPart(content)] if content else []
            parts += [
                library.ToolCallPart(call["name"], call["arguments"], tool_call_id=call["id"])
                for call in message.get("tool_calls", ())
            ]
            out.append(library.ModelResponse(parts=parts))
            continue

        if role == "system":
            part: Any = library.SystemPromptPart(content)
        elif role == "tool":
            part = library.ToolReturnPart(
                tool_name=message["name"], content=content, tool_call_id=message["tool_call_id"]
            )
        else:
            part = library.UserPromptPart(_content(content, library))

        if out and isinstance(out[-1], library.ModelRequest):
            out[-1].parts.append(part)
        else:
            out.append(library.ModelRequest(parts=[part]))

    return out


def _content(content: Any, library: Any) -> Any:
    """Return a user's content: a text, or the parts of the chat completions API (``text``, ``image_url``)."""
    if not isinstance(content, list):
        return "" if content is None else content if isinstance(content, str) else str(content)

    parts: list[Any] = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type") == "image_url":
            url = part["image_url"]
            url = url["url"] if isinstance(url, Mapping) else url
            if str(url).startswith("data:"):
                parts.append(library.BinaryContent.from_data_uri(url))
            else:
                parts.append(library.ImageUrl(url=url))
        else:
            parts.append(str(part.get("text", "")) if isinstance(part, Mapping) else str(part))

    return parts


# -- models --------------------------------------------------------------------------------------------------------


def _library() -> Any:
    """Return pydantic-ai.

    Raises:
        ModelNotConfigured: it is not installed.
    """
    try:
        import pydantic_ai
        import pydantic_ai.direct
        import pydantic_ai.messages
        import pydantic_ai.models
        import pydantic_ai.tools
    except ImportError:
        raise ModelNotConfigured("models need the package pydantic-ai: pip install 'flowdeck[models]'") from None

    return pydantic_ai


def _model_of(config: ModelConfig) -> Any:
    """Return the model object of a config for the running event loop.

    Raises:
        ModelNotConfigured: it cannot be had.
    """
    if config.model is not None:
        return config.model

    loop = asyncio.get_running_loop()
    known = _models.get(loop)
    if known is None:
        for ended in [each for each in list(_models) if each.is_closed()]:
            _models.pop(ended, None)  # its connections hold on to it

        known = _models.setdefault(loop, {})

    key = (config.name, config.base_url, config.api_key, repr(sorted(config.options.items())))
    model = known.get(key)
    if model is None:
        try:
            model = known[key] = _without_retries(_make(config))
        except ImportError as problem:
            raise ModelNotConfigured(scrub(f"model {config.name!r}: {problem}", config.secrets)) from None
        except Exception as problem:
            raise ModelNotConfigured(scrub(f"model {config.name!r}: {problem}", config.secrets)) from None

    return model


def _make(config: ModelConfig) -> Any:
    if config.base_url is not None:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        name = config.name.removeprefix("openai:")
        provider = OpenAIProvider(base_url=config.base_url, api_key=config.api_key or "none")
        return OpenAIChatModel(name, provider=provider, **config.options)

    from pydantic_ai.models import infer_model
    from pydantic_ai.providers import infer_provider, infer_provider_class

    if ":" not in config.name and config.name != "test":
        raise ValueError("a model without base_url= is named provider:model, such as 'openai:gpt-5-mini'")

    def provider_of(name: str) -> Any:
        kind: Any = infer_provider_class(name)
        return infer_provider(name) if config.api_key is None else kind(api_key=config.api_key)

    return infer_model(config.name, provider_of)


def _without_retries(model: Any) -> Any:
    """Turn the SDK's own retries off, where it has a switch for all requests: per request it would copy its client."""
    client: Any = getattr(model, "client", None)
    if hasattr(client, "max_retries"):
        client.max_retries = 0

    return model


async def close_models() -> None:
    """Close the connections of the models of the running event loop; they are made anew when needed."""
    for model in _models.pop(asyncio.get_running_loop(), {}).values():
        with suppress(Exception):
            async with model:
                pass
