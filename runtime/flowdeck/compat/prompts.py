"""``Agently.create_prompt()``: a prompt by itself, to look at the messages a request would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowdeck.agents.request import checked_slot, filled
from flowdeck.models.prompt import Prompt
from flowdeck.models.requester import Message

__all__ = ["LonePrompt"]


class LonePrompt:
    """The slots of a prompt that belongs to no request."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._slots: dict[str, Any] = {}

    def set(self, key: str, value: Any, mappings: Mapping[str, Any] | None = None) -> None:
        """Set a slot.

        Raises:
            ValueError: there is none of that name.
        """
        self._slots[checked_slot(key)] = filled(value, mappings)

    __setitem__ = set

    def get(self, key: str, default: Any = None) -> Any:
        """Return a slot."""
        return self._slots.get(key, default)

    __getitem__ = get

    def append(self, key: str, value: Any) -> None:
        """Add to a slot that is a list, or becomes one."""
        there = self._slots.get(checked_slot(key), [])
        self._slots[key] = [*there, value] if isinstance(there, list) else [there, value]

    def delete(self, key: str) -> None:
        """Empty a slot."""
        self._slots.pop(key, None)

    def to_text(self) -> str:
        """Return the user's side of the request as one text."""
        return self._prompt().text()

    def to_messages(self) -> list[Message]:
        """Return the messages to send."""
        return self._prompt().messages()

    def _prompt(self) -> Prompt:
        return Prompt({}, self._slots)
