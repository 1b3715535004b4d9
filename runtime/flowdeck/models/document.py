"""Finding the JSON document in what a model wrote: fences and sentences around it are skipped, nothing is mended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from pydantic_core import from_json

__all__ = ["LONE", "ReadAnswer", "Root", "read_document", "writable"]

Root = Literal["object", "array", "any"]
_FENCE: Final = re.compile(r"```[a-zA-Z0-9]*\s*\n(.*?)```", re.DOTALL)
LONE: Final = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs: no text that holds one can be written down."""
_TRIES: Final = 20
"""Places in a text where a document may begin that are tried, at most."""


class ReadAnswer(NamedTuple):
    """What a text was read as."""

    data: Any = None
    text: str = ""
    """The part of the answer that was read."""
    problem: str | None = None
    reason: str = ""
    """``parse`` or ``schema`` when there is a problem."""


def read_document(text: str, root: Root) -> ReadAnswer:
    """Return the first JSON document of the wanted kind in ``text``."""
    wanted: Any = {"object": dict, "array": list, "any": object}[root]
    stripped = writable(text.strip())
    first: str | None = None
    for candidate in _candidates(stripped, root):
        try:
            value = from_json(candidate, allow_inf_nan=False)
        except ValueError as problem:
            first = first or str(problem)
            continue

        if isinstance(value, wanted):
            return ReadAnswer(value, candidate)

    mark = {"object": "{", "array": "[", "any": "{["}[root]
    decoder = json.JSONDecoder(strict=False, parse_constant=_no_constant)
    at, tries = -1, 0
    while tries < _TRIES:
        places = [place for each in mark if (place := stripped.find(each, at + 1)) >= 0]
        if not places:
            break

        at, tries = min(places), tries + 1
        try:
            value, end = decoder.raw_decode(stripped, at)
        except (ValueError, RecursionError) as problem:
            first = first or str(problem)
            continue

        if isinstance(value, wanted):
            return ReadAnswer(writable(value), stripped[at:end])

    kind = {"object": "JSON object", "array": "JSON array", "any": "JSON value"}[root]
    return ReadAnswer(None, stripped, f"no whole {kind} in the answer: {first or 'there is none'}", "parse")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def writable(value: Any) -> Any:
    """Return ``value`` with a replacement character for every half of a surrogate pair."""
    if isinstance(value, str):
        return value if value.isascii() else LONE.sub("\N{REPLACEMENT CHARACTER}", value)

    if isinstance(value, dict):
        return {writable(key): writable(item) for key, item in value.items()}

    return [writable(item) for item in value] if isinstance(value, list) else value


def _candidates(text: str, root: Root) -> Iterator[str]:
    if text[:1] in "{[" or root == "any":
        yield text

    for fence in _FENCE.finditer(text):
        yield fence[1].strip()
