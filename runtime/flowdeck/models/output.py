"""What an answer shall look like: said to the model, read from its text, checked.

A specification is written as the answer itself, with types in place of values::

    {"title": (str, "at most ten words"), "tags": [(str, "lower case")], "score": int, "author": {"name": str}}

A third element ``True`` in a tuple names a key that must be there. A pydantic model or any other type is one, too: its
JSON Schema is shown to the model, and an answer that does not fit is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError, create_model
from pydantic_core import from_json

__all__ = ["OutputSpec", "ReadAnswer"]

Root = Literal["object", "array", "any"]
_FENCE: Final = re.compile(r"```[a-zA-Z0-9]*\s*\n(.*?)```", re.DOTALL)
_LONE: Final = re.compile("[\ud800-\udfff]")
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


class OutputSpec:
    """How an answer shall look.

    Args:
        spec: ``None`` for plain text; else a specification, a pydantic model or another type.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, spec: Any = None) -> None:
        self.spec = spec
        self._adapter: TypeAdapter[Any] | None = None
        self._object: TypeAdapter[Any] | None = None
        self.root: Root = "object"
        self.ensured: list[str] = []
        """Keys the specification itself marks as needed."""
        if spec is None or spec is str:
            self.format = "text"
        elif isinstance(spec, Mapping | list):
            self.format = "json"
            self.root = "object" if isinstance(spec, Mapping) else "array"
            self._description = _written(spec, 0)
            self.ensured = list(_ensured(spec, ""))
        else:
            self.format = "json"
            try:
                self._adapter = TypeAdapter(spec)
                schema = self._adapter.json_schema()
            except Exception as problem:  # pydantic raises many kinds here
                raise ValueError(f"output({spec!r:.200}): no specification of an answer: {problem}") from problem

            self.root = {"object": "object", "array": "array"}.get(schema.get("type", "object"), "any")  # type: ignore[assignment]
            self._description = json.dumps(schema, ensure_ascii=False, indent=1)

    @property
    def described(self) -> str:
        """What the model is told."""
        if self.format == "text":
            return ""

        how = "fits this JSON Schema" if self._adapter is not None else "looks like this, with values for the types"
        kind = {"object": "JSON object", "array": "JSON array", "any": "JSON value"}[self.root]
        return f"Answer with one {kind} and nothing else. It {how}:\n{self._description}"

    def read(self, text: str) -> ReadAnswer:
        """Read an answer. Fences and sentences around it are passed over; broken JSON is not mended."""
        if self.format == "text":
            return ReadAnswer(text, text)

        found = _document(text, self.root)
        if found.problem is not None or self._adapter is None:
            return found

        try:
            value = self._adapter.validate_python(found.data)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'answer'}: {each['msg']}" for each in first[:5])
            return ReadAnswer(found.data, found.text, said, "schema")

        return found._replace(data=self._adapter.dump_python(value, mode="json"))

    def as_object(self, data: Any) -> Any:
        """Return parsed data as an object: an instance of the given class, or of one made from the specification.

        Raises:
            ValidationError: the data do not fit.
        """
        if self._adapter is not None:
            return self._adapter.validate_python(data)

        if self.format == "text":
            return data

        if self._object is None:
            self._object = TypeAdapter(_type_of(self.spec, "Answer"))

        return self._object.validate_python(data)


def _document(text: str, root: Root) -> ReadAnswer:
    """Return the first JSON document of the wanted kind in ``text``."""
    wanted: Any = {"object": dict, "array": list, "any": object}[root]
    stripped = text.strip()
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
            return ReadAnswer(_writable(value), stripped[at:end])

    kind = {"object": "JSON object", "array": "JSON array", "any": "JSON value"}[root]
    return ReadAnswer(None, stripped, f"no whole {kind} in the answer: {first or 'there is none'}", "parse")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _writable(value: Any) -> Any:
    """Return ``value`` with a replacement character for every half of a surrogate pair."""
    if isinstance(value, str):
        return value if value.isascii() else _LONE.sub("\N{REPLACEMENT CHARACTER}", value)

    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}

    return [_writable(item) for item in value] if isinstance(value, list) else value


def _candidates(text: str, root: Root) -> Iterator[str]:
    if text[:1] in "{[" or root == "any":
        yield text

    for fence in _FENCE.finditer(text):
        yield fence[1].strip()


# -- specifications ------------------------------------------------------------------------------------------------


def _split(spec: Any) -> tuple[Any, str, bool]:
    """Return the type, the description and whether it must be there."""
    if isinstance(spec, tuple) and spec:
        return spec[0], str(spec[1]) if len(spec) > 1 and spec[1] is not None else "", len(spec) > 2 and spec[2] is True

    return spec, "", False


def _written(spec: Any, depth: int) -> str:
    kind = _split(spec)[0]
    pad = "  " * depth
    if isinstance(kind, Mapping):
        lines = []
        for at, (key, item) in enumerate(kind.items(), 1):
            comma = "," if at < len(kind) else ""
            comment = _comment(item)
            said = f"  // {comment}" if comment else ""
            lines.append(f"{pad}  {json.dumps(str(key), ensure_ascii=False)}: {_written(item, depth + 1)}{comma}{said}")

        return "{\n" + "\n".join(lines) + f"\n{pad}}}"

    if isinstance(kind, list):
        return f"[{_written(kind[0] if kind else Any, depth)}, …]"

    return f"<{_named(kind)}>"


def _comment(spec: Any) -> str:
    """Return what the specification says of a value, in one line; of a list what it says of each member."""
    kind, about, _ = _split(spec)
    if not about and isinstance(kind, list) and kind:
        inner = _split(kind[0])[1]
        about = f"each: {inner}" if inner else ""

    return " ".join(about.split())


def _named(kind: Any) -> str:
    if isinstance(kind, str):
        return kind

    return "any" if kind is Any or kind is None else getattr(kind, "__name__", None) or str(kind).replace("typing.", "")


def _ensured(spec: Any, path: str) -> Iterator[str]:
    kind, _, needed = _split(spec)
    if needed and path:
        yield path

    if isinstance(kind, Mapping):
        for key, item in kind.items():
            yield from _ensured(item, f"{path}.{key}" if path else str(key))
    elif isinstance(kind, list) and kind:
        yield from _ensured(kind[0], f"{path}[*]")


def _type_of(spec: Any, name: str) -> Any:
    """Return a type that parsed data of a specification fit."""
    kind = _split(spec)[0]
    if isinstance(kind, Mapping):
        fields: dict[str, Any] = {}
        for key, item in kind.items():
            inner = _type_of(item, f"{name}_{key}")
            must = _split(item)[2]
            fields[str(key)] = (inner, ...) if must else (inner | None if isinstance(inner, type) else Any, None)

        return create_model(name, **fields)

    if isinstance(kind, list):
        inner = _type_of(kind[0], f"{name}_item") if kind else Any
        return list[inner]  # type: ignore[valid-type]

    return Any if isinstance(kind, str) or kind is None else kind
