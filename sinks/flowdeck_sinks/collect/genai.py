"""What a span is about: a model, a tool, an agent or a step; from GenAI's and OpenInference's attributes.

OpenTelemetry's GenAI conventions count first, then OpenInference, then the names that came before both
(``gen_ai.system``, ``gen_ai.usage.prompt_tokens``). Sources: the semantic conventions 1.41.1 and OpenInference's, as in
:mod:`flowdeck_sinks.otlp.conventions`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from flowdeck_sinks.collect.values import count_of, structure, text_of

__all__ = [
    "AGENT",
    "MODEL",
    "STEP",
    "TOOL",
    "agent_of",
    "input_of",
    "kind_of",
    "message_of",
    "model_facts",
    "output_of",
]

MODEL: Final = "model_request"
TOOL: Final = "action"
AGENT: Final = "agent_turn"
STEP: Final = "chunk_execution"

_OPERATIONS: Final = {
    "chat": MODEL,
    "generate_content": MODEL,
    "text_completion": MODEL,
    "completion": MODEL,
    "embeddings": MODEL,
    "embedding": MODEL,
    "execute_tool": TOOL,
    "invoke_agent": AGENT,
    "create_agent": STEP,
    "invoke_workflow": STEP,
}
_INFERENCE: Final = {"LLM": MODEL, "EMBEDDING": MODEL, "TOOL": TOOL, "AGENT": AGENT}
_MESSAGE: Final = re.compile(r"^llm\.(input|output)_messages\.(\d{1,4})\.message\.(.+)$")
_CALL: Final = re.compile(r"^tool_calls\.(\d{1,4})\.tool_call\.(.+)$")
_EVENT_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "assistant",
}


def kind_of(attributes: dict[str, Any]) -> str:
    """Return the run kind of a span."""
    operation = attributes.get("gen_ai.operation.name")
    if isinstance(operation, str):
        known = _OPERATIONS.get(operation)
        if known is not None:
            return known

    inference = attributes.get("openinference.span.kind")
    if isinstance(inference, str):
        return _INFERENCE.get(inference.upper(), STEP)

    if operation is None and "gen_ai.request.model" in attributes:
        return MODEL  # instrumentations older than gen_ai.operation.name

    return STEP


def agent_of(attributes: dict[str, Any]) -> str | None:
    """Return the agent at work."""
    return text_of(attributes, "gen_ai.agent.name", "agent.name")


def model_facts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return model, provider, finish reason and usage, as ``model.meta`` has them; what is not said is left out."""
    out: dict[str, Any] = {}
    model = text_of(
        attributes,
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.model_name",
        "embedding.model_name",
        "llm.request.model",
    )
    if model is not None:
        out["model"] = model

    provider = text_of(attributes, "gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
    if provider is not None:
        out["provider"] = provider

    reasons = structure(attributes.get("gen_ai.response.finish_reasons"))
    if isinstance(reasons, list) and reasons and isinstance(reasons[0], str):
        out["finish_reason"] = reasons[0]

    read = count_of(attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
    written = count_of(
        attributes, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"
    )
    usage = {
        name: number for name, number in (("input_tokens", read), ("output_tokens", written)) if number is not None
    }
    if usage:
        out["usage"] = usage

    return out


def input_of(kind: str, attributes: dict[str, Any], events: list[dict[str, Any]]) -> Any:
    """Return what went in, ``None`` when the span does not say. ``events`` are messages told as span events."""
    if kind == MODEL:
        messages = _first(attributes, "gen_ai.input.messages", "gen_ai.prompt")
        if messages is None:
            messages = _inference_messages(attributes, "input") or [m for m in events if not m.get("choice")] or None

        system = _first(attributes, "gen_ai.system_instructions")
        if system is not None:
            messages = [{"role": "system", "parts": system}, *(messages if isinstance(messages, list) else [messages])]

        if messages is not None:
            return messages
    elif kind == TOOL:
        arguments = _first(attributes, "gen_ai.tool.call.arguments", "tool.parameters")
        if arguments is not None:
            return arguments

    return _first(attributes, "input.value")


def output_of(kind: str, attributes: dict[str, Any], events: list[dict[str, Any]]) -> Any:
    """Return what came out, ``None`` when the span does not say."""
    if kind == MODEL:
        messages = _first(attributes, "gen_ai.output.messages", "gen_ai.completion")
        if messages is None:
            messages = _inference_messages(attributes, "output") or [m for m in events if m.get("choice")] or None

        if messages is not None:
            return messages
    elif kind == TOOL:
        result = _first(attributes, "gen_ai.tool.call.result")
        if result is not None:
            return result

    return _first(attributes, "output.value")


def message_of(name: str, attributes: dict[str, Any]) -> dict[str, Any] | None:
    """Return the message a span event tells, ``None`` when it tells none."""
    role = _EVENT_ROLES.get(name)
    if role is None:
        return None

    out: dict[str, Any] = {"role": role, **{key: structure(value) for key, value in attributes.items()}}
    out.pop("gen_ai.system", None)
    if name == "gen_ai.choice":
        out["choice"] = True

    return out


def _first(attributes: dict[str, Any], *names: str) -> Any:
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            return structure(value)

    return None


def _inference_messages(attributes: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """Return OpenInference's flattened messages (``llm.input_messages.0.message.role``) as a list."""
    messages: dict[int, dict[str, Any]] = {}
    prefix = f"llm.{side}_messages."
    for key, value in attributes.items():
        if not key.startswith(prefix):
            continue

        found = _MESSAGE.match(key)
        if found is None:
            continue

        message = messages.setdefault(int(found[2]), {})
        call = _CALL.match(found[3])
        if call is None:
            message[found[3]] = value
        else:
            message.setdefault("tool_calls", {}).setdefault(int(call[1]), {})[call[2]] = structure(value)

    for message in messages.values():
        if isinstance(calls := message.get("tool_calls"), dict):
            message["tool_calls"] = [calls[number] for number in sorted(calls)]

    return [messages[number] for number in sorted(messages)]
