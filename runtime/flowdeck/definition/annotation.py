"""What ``.____("note", log_info=True)`` adds to a flow: a side branch that says something when a value passes."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Annotation"]


class Annotation:
    """A handler that emits ``triggerflow.annotation``, prints a line, or both. Source: the compatible API's ``____``.

    Args:
        texts: what to say; kept as text.
        log: emit an event.
        show: print a line.
        value: say the value that passes, too.
    """

    def __init__(self, texts: list[str], *, log: bool, show: bool, value: bool) -> None:
        self.texts = texts
        self.log = log
        self.show = show
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Annotation) and self.to_dict() == other.to_dict()

    __hash__ = object.__hash__

    def to_dict(self) -> dict[str, Any]:
        """Return the annotation as a config holds it."""
        return {"texts": self.texts, "log": self.log, "show": self.show, "value": self.value}

    def __call__(self, data: Any) -> Any:
        if self.show:
            line = " ".join([*self.texts, *([repr(data.input)] if self.value else [])])
            print("".join(char if char.isprintable() else " " for char in line), file=sys.stdout)

        if self.log:
            execution = data.execution
            payload = {"ANNOTATIONS": self.texts, "VALUE": data.input if self.value else None}
            execution._emit_event(
                execution._services.center.type("triggerflow.annotation"), payload, run=data.run, scope=data.scope
            )

        return data.input
