"""What an answer shall look like: said to the model, read from its text, checked.

A specification is written as the answer itself, with types in place of values::

    {"title": (str, "at most ten words"), "tags": [(str, "lower case")], "score": int, "author": {"name": str}}

A third element ``True`` in a tuple names a key that must be there. A pydantic model or any other type is one, too: its
JSON Schema is shown to the model, and an answer that does not fit is refused.

A mapping may be asked for in sections, a heading for each key (:mod:`flowdeck.models.sections`), in place of JSON.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError, create_model

from flowdeck.models.document import ReadAnswer, Root, read_document
from flowdeck.models.sections import Kind, SectionReader

__all__ = ["OutputFormat", "OutputSpec", "ReadAnswer"]

OutputFormat = Literal["json", "flat_markdown", "hybrid", "auto"]
"""How a structured answer is written: JSON; sections of text; sections of text and JSON; as the values suggest."""


class OutputSpec:
    """How an answer shall look.

    Args:
        spec: ``None`` for plain text; else a specification, a pydantic model or another type.
        format: how it is written. Only a mapping can be asked for in sections; anything else is JSON, with a warning.

    Raises:
        ValueError: it is none, or there is no such format.
    """

    def __init__(self, spec: Any = None, format: OutputFormat | None = None) -> None:
        if format is not None and format not in get_args(OutputFormat):
            raise ValueError(f"output format {format!r}: there are {', '.join(get_args(OutputFormat))}")

        self.spec = spec
        self._adapter: TypeAdapter[Any] | None = None
        self._object: TypeAdapter[Any] | None = None
        self.root: Root = "object"
        self.ensured: list[str] = []
        """Keys the specification itself marks as needed."""
        self._sections: dict[str, Kind] = {}
        if spec is None or spec is str:
            self.format = "text"
        elif isinstance(spec, Mapping | list):
            self.root = "object" if isinstance(spec, Mapping) else "array"
            self.format = _format_of(spec, format)
            if self.format != "json" and isinstance(spec, Mapping):
                self._sections = {key: _kind_of(item) for key, item in spec.items()}
                self._description = "\n\n".join(_section(key, item) for key, item in spec.items())
            else:
                self._description = _written(spec, 0)

            self.ensured = list(_ensured(spec, ""))
        else:
            self.format = _format_of(spec, format)
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

        if self._sections:
            return (
                "Answer in Markdown with these sections, in this order, and nothing else. Each begins with its "
                f"heading, exactly as it stands here, on a line of its own.\n\n{self._description}"
            )

        how = "fits this JSON Schema" if self._adapter is not None else "looks like this, with values for the types"
        kind = {"object": "JSON object", "array": "JSON array", "any": "JSON value"}[self.root]
        return f"Answer with one {kind} and nothing else. It {how}:\n{self._description}"

    def read(self, text: str) -> ReadAnswer:
        """Read an answer. Fences and sentences around it are passed over; broken JSON is not mended."""
        if self.format == "text":
            return ReadAnswer(text, text)

        if self._sections:
            return self._read_sections(text)

        found = read_document(text, self.root)
        if found.problem is not None or self._adapter is None:
            return found

        try:
            value = self._adapter.validate_python(found.data)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'answer'}: {each['msg']}" for each in first[:5])
            return ReadAnswer(found.data, found.text, said, "schema")

        return found._replace(data=self._adapter.dump_python(value, mode="json"))

    def section_reader(self) -> SectionReader | None:
        """Return what reads an answer in sections while it is written; ``None`` when it is JSON."""
        return SectionReader(self._sections) if self._sections else None

    def _read_sections(self, text: str) -> ReadAnswer:
        reader = SectionReader(self._sections)
        reader.feed(text)
        reader.end()
        if reader.problem is not None:
            return ReadAnswer(None, text, reader.problem, "parse")

        if reader.root:
            return ReadAnswer(reader.root, text)

        found = read_document(text, "object")  # the model would rather write JSON
        if found.problem is None and not self._sections.keys().isdisjoint(found.data):
            return found

        headings = ", ".join(f"'### {key}'" for key in self._sections)
        return ReadAnswer(None, text, f"none of the sections is in the answer: {headings}", "parse")

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


def _kind_of(spec: Any) -> Kind:
    """Return what stands in the section of a key."""
    kind = _split(spec)[0]
    if isinstance(kind, Mapping) or kind is dict or get_origin(kind) is dict:
        return "object"

    if isinstance(kind, list) or kind is list or get_origin(kind) is list:
        return "array"

    return "text" if kind is str or isinstance(kind, str) or get_origin(kind) is Literal else "value"


def _format_of(spec: Any, wanted: OutputFormat | None) -> str:
    """Return how a structured answer is written."""
    if wanted is None or wanted == "json":
        return "json"

    if not isinstance(spec, Mapping) or not spec:
        if wanted != "auto":
            warnings.warn(
                f"output format {wanted!r} needs a mapping with keys, not {spec!r:.60}; it is JSON", stacklevel=2
            )

        return "json"

    if wrong := [key for key in spec if str(key).strip() != key or len(key.splitlines()) != 1 or key.endswith("#")]:
        raise ValueError(f"output format {wanted!r}: {wrong[0]!r} cannot be a heading")

    if wanted != "auto":
        return wanted

    kinds = {_kind_of(item) for item in spec.values()}
    if kinds == {"text"}:
        return "flat_markdown"

    return "json" if "text" not in kinds or "value" in kinds else "hybrid"


def _section(key: str, spec: Any) -> str:
    """Return what the model is told of a section."""
    kind, about = _kind_of(spec), _comment(spec)
    if kind in ("object", "array"):
        said = f" ({about})" if about else ""
        return f"### {key}\n```json\n{_written(spec, 0)}\n```{said}"

    name = "text" if kind == "text" and _split(spec)[0] is str else _named(_split(spec)[0])
    return f"### {key}\n<{name}: {about}>" if about else f"### {key}\n<{name}>"


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
