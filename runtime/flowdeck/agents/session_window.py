"""What of a conversation enters the next request: messages as they are remembered, and the window cut to its length."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Analysis", "Message", "Resize", "rendered", "simple_cut", "too_long"]

Message = dict[str, Any]
"""``{"role": "user" | "assistant" | …, "content": …}``."""
Analysis = Callable[..., Any]
"""``(full_context, context_window, memo, settings) -> strategy name or None``; may be async."""
Resize = Callable[..., Any]
"""``(full_context, context_window, memo, settings) -> (full or None, window or None, memo or None)``; may be async."""


def too_long(full: list[Message], window: list[Message], memo: Any, settings: Mapping[str, Any]) -> str | None:
    """The analysis of a session that has no other: cut once the window is longer than ``max_length``."""
    limit = settings.get("max_length")
    return "simple_cut" if limit is not None and sum(len(str(each)) for each in window) > limit else None


def simple_cut(
    full: list[Message], window: list[Message], memo: Any, settings: Mapping[str, Any]
) -> tuple[None, list[Message], None]:
    """Keep the newest messages that fit, or the tail of the last one."""
    limit = settings.get("max_length")
    if limit is None:
        return None, window, None

    kept: list[Message] = []
    room = limit
    for message in reversed(window):
        room -= len(str(message))
        if room < 0:
            break

        kept.append(message)

    if not kept and window:
        last = window[-1]
        kept = [{**last, "content": str(last["content"])[-limit:]}]

    return None, kept[::-1], None


def rendered(keys: list[str] | None, text: str, request: Mapping[str, Any], agent: Mapping[str, Any]) -> str:
    """Return ``text``, or what stands at the dotted ``keys``, each as ``[key]:\\nvalue``."""
    if not keys:
        return text

    parts: list[str] = []
    for key in keys:
        path = key.removeprefix(".request.").removeprefix(".")
        here: Any = request
        if key.startswith(".agent."):
            here, path = agent, key.removeprefix(".agent.")

        for part in path.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None

        if here is not None:
            parts.append(f"[{key}]:\n{here if isinstance(here, str) else json.dumps(here, ensure_ascii=False)}")

    return "\n".join(parts)
