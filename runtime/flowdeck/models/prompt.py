"""The prompt of a request: named slots, and the messages made of them.

``system``, ``developer``, ``info``, ``instruct``, ``examples``, ``input``, ``attachment`` and ``output`` may be given
to an agent, for all its requests, or to one request; both add up. Source: behaviour §8.4 and the compatible API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from flowdeck.models.output import OutputSpec
from flowdeck.models.requester import Message

__all__ = ["SLOTS", "Prompt"]

_ELSEWHERE: Final = ("output", "output_format", "attachment")
"""Slots events show in another place, or described."""
SLOTS: Final = ("system", "developer", "info", "instruct", "examples", "input", "tools", *_ELSEWHERE)
_TITLES: Final = (
    ("info", "INFORMATION"),
    ("examples", "EXAMPLES"),
    ("action_results", "ACTION RESULTS"),
    ("instruct", "INSTRUCTIONS"),
    ("correction", "CORRECTION"),
)


class Prompt:
    """The slots of one request.

    Args:
        agent: what the agent gives to all its requests.
        request: what this one adds. Mappings and lists of both are joined; of two values the request's counts.

    Raises:
        ValueError: an unknown slot, or an output that is no specification.
    """

    def __init__(self, agent: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        self.slots: dict[str, Any] = {}
        for layer in (agent, request):
            for name, value in layer.items():
                if name not in SLOTS:
                    raise ValueError(f"prompt slot {name!r}: there are {', '.join(SLOTS)}")

                self.slots[name] = _joined(self.slots[name], value) if name in self.slots else value

        self.output = OutputSpec(self.slots.get("output"), self.slots.get("output_format"))
        self.history: list[Message] = []
        self.action_results: Any = None
        self.correction: str = ""
        """What was wrong with the answer before, told to the model in another attempt."""

    @property
    def request_slots(self) -> dict[str, Any]:
        """The slots as events show them."""
        shown = {name: value for name, value in self.slots.items() if name not in _ELSEWHERE}
        if self.output.format != "text":
            shown["output"] = self.output.described

        return shown

    @property
    def attachments(self) -> list[Any]:
        """The parts that go beside the text: images."""
        given = self.slots.get("attachment") or []
        return list(given) if isinstance(given, list | tuple) else [given]

    @property
    def user_text(self) -> str:
        """What the user said: the input as text."""
        return _text(self.slots.get("input"))

    def text(self) -> str:
        """Return the user's side of the request as one text; an input alone stands for itself."""
        more = {"action_results": self.action_results, "correction": self.correction}
        sections = [
            (title, _text(value)) for name, title in _TITLES if (value := more.get(name) or self.slots.get(name))
        ]
        said = self.user_text
        if not sections and self.output.format == "text":
            return said

        parts = [f"[{title}]\n{body}" for title, body in sections]
        if said:
            parts.append(f"[INPUT]\n{said}")

        if self.output.format != "text":
            parts.append(f"[OUTPUT]\n{self.output.described}")

        return "\n\n".join(parts)

    def messages(self) -> list[Message]:
        """Return the messages to send: the system's, the session's, the request's."""
        system = "\n\n".join(_text(self.slots[name]) for name in ("system", "developer") if self.slots.get(name))
        out: list[Message] = [{"role": "system", "content": system}] if system else []
        out += ({"role": each["role"], "content": each["content"]} for each in self.history)
        text, attached = self.text(), self.attachments
        content: Any = [{"type": "text", "text": text}, *map(_attachment, attached)] if attached else text
        out.append({"role": "user", "content": content})
        return out


def _attachment(given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {"type": "image_url", "image_url": {"url": str(given)}}


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**first, **second}

    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]

    return second


def _text(value: Any) -> str:
    if value is None:
        return ""

    if isinstance(value, str):
        return value

    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return "\n".join(f"- {each}" for each in value)

    try:
        return json.dumps(value, ensure_ascii=False, indent=1, default=str)
    except (TypeError, ValueError):
        return str(value)
