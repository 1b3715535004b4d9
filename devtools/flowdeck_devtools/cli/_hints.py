"""What to type next: commands a person can copy, made from what waits."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowdeck_devtools.cli._options import command_store
from flowdeck_devtools.core.text import clean

__all__ = ["example_answer", "how_to_answer", "question_of", "this_command"]

_QUESTION_KEYS = ("question", "title", "message", "prompt", "text")


def this_command() -> str:
    """Return how the person at this shell calls us: ``flowdeck``, or its path where the shell would not find it."""
    started = Path(sys.argv[0])
    if started.name != "flowdeck":
        return "flowdeck"  # python -m …: what is usual is as good a hint

    found = shutil.which("flowdeck")
    try:
        return "flowdeck" if found is not None and started.samefile(found) else shlex.quote(sys.argv[0])
    except OSError:  # it is gone meanwhile
        return "flowdeck"


def how_to_answer(interrupt_id: str, kind: str | None, payload: Any, schema: Any, store: Path) -> str:
    """Return two lines: what is asked, and the command that answers it."""
    value = shlex.quote(json.dumps(example_answer(schema), ensure_ascii=False))
    asked = clean(f"waiting for {kind or 'an answer'}: {question_of(payload)}".rstrip(": "))
    command = f"{this_command()} interrupts answer {shlex.quote(clean(interrupt_id))} --value {value}"
    return f"{asked}\n  {command}{command_store(store)}"


def question_of(payload: Any) -> str:
    """Return what is asked in one line: the payload's question, else the payload itself."""
    if isinstance(payload, Mapping):
        for key in _QUESTION_KEYS:
            if isinstance(payload.get(key), str):
                return str(payload[key])

    if payload is None or isinstance(payload, str):
        return payload or ""

    return json.dumps(payload, ensure_ascii=False, default=str)


def example_answer(schema: Any, depth: int = 0) -> Any:
    """Return a value that the JSON Schema allows, to be edited; ``true`` when nothing is known."""
    if not isinstance(schema, Mapping) or depth > 5:
        return True

    if schema.get("enum"):
        return schema["enum"][0]

    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]

    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or list(properties)
        return {name: example_answer(properties.get(name), depth + 1) for name in wanted}

    examples = {"string": "…", "integer": 1, "number": 1.0, "boolean": True, "array": [], "null": None}
    return examples.get(kind, True) if isinstance(kind, str) else True
