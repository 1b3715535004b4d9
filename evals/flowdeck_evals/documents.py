"""Reading YAML and JSON with the line of every key, as plain JSON values.

YAML is read as its version 1.2 has it: ``on`` and ``no`` are text, and so is a date. The C parser is used where it
is there (four times faster). Lines are kept beside the value, by container, so that the value itself stays plain.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from flowdeck.errors import SuiteError

__all__ = ["Document", "read_json", "read_yaml"]

_INT: Final = re.compile(r"[-+]?\d+\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?\Z")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_QUOTED: Final = ("'", '"', "|", ">")
MOST_VALUES: Final = 5_000_000
"""Values in a document with its aliases written out; more is taken for an attack."""
MOST_DEPTH: Final = 200


class Document:
    """A value and where its parts were written."""

    def __init__(self, file: str, value: Any = None) -> None:
        self.file = file
        self.value = value
        self._lines: dict[int, dict[Any, int]] = {}
        self._keep: list[Any] = []
        """Containers whose identity the lines go by must stay alive."""

    def place(self, container: Any, lines: dict[Any, int]) -> None:
        """Remember the lines of a container's keys; under ``None`` its own."""
        self._lines[id(container)] = lines
        self._keep.append(container)

    def line(self, container: Any, key: Any = None) -> int:
        """Return the line of a key (of the container itself without one); 1 when it is not known."""
        lines = self._lines.get(id(container), {})
        return lines.get(key) or lines.get(None) or 1

    def problem(self, container: Any, key: Any, message: str) -> str:
        name = f"{key}: " if isinstance(key, str) and not message.startswith(("unknown key", "duplicate")) else ""
        return f"{self.file}:{self.line(container, key)}: {name}{message}"


def read_yaml(text: str, file: str) -> Document:
    """Read one YAML document.

    Raises:
        SuiteError: it is no YAML, has a key twice, a value that is not JSON, or grows without end.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise SuiteError([f"{file}:{line}: not valid YAML: {what}"]) from None
    except RecursionError:
        raise SuiteError([f"{file}:1: nested too deeply"]) from None

    document = Document(file)
    builder = _Builder(document, yaml)
    document.value = None if node is None else builder.build(node, 0)
    if builder.problems:
        raise SuiteError(builder.problems)

    return document


class _Builder:
    def __init__(self, document: Document, yaml: Any) -> None:
        self.document = document
        self.problems: list[str] = []
        self._scalar, self._sequence = yaml.ScalarNode, yaml.SequenceNode
        self._made: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()
        self._size = 0

    def build(self, node: Any, depth: int) -> Any:
        if isinstance(node, self._scalar):
            self._size += 1
            return self._value(node)

        line = node.start_mark.line + 1
        known = self._made.get(id(node))
        if known is not None:
            self._size += known[1]
            self._check_size(line)
            return known[0]

        if depth > MOST_DEPTH or id(node) in self._open:
            self._fail(line, "nested too deeply, or in itself")

        self._open.add(id(node))
        before = self._size
        value = self._list(node, line, depth) if isinstance(node, self._sequence) else self._mapping(node, line, depth)
        self._open.discard(id(node))
        self._size += 1
        self._made[id(node)] = (value, self._size - before)
        self._check_size(line)
        return value

    def _check_size(self, line: int) -> None:
        if self._size > MOST_VALUES:
            self._fail(line, f"more than {MOST_VALUES:,} values once its aliases are written out")

    def _fail(self, line: int, message: str) -> None:
        raise SuiteError([*self.problems, f"{self.document.file}:{line}: {message}"])

    def _list(self, node: Any, line: int, depth: int) -> list[Any]:
        out = [self.build(item, depth + 1) for item in node.value]
        lines: dict[Any, int] = {index: item.start_mark.line + 1 for index, item in enumerate(node.value)}
        lines[None] = line
        self.document.place(out, lines)
        return out

    def _mapping(self, node: Any, line: int, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        lines: dict[Any, int] = {None: line}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, self._scalar) else None
            if key is None:
                self.problems.append(f"{self.document.file}:{at}: a key must be text")
                continue

            value = self.build(value_node, depth + 1)
            if key == "<<" and key_node.style not in _QUOTED:
                for part in value if isinstance(value, list) else [value]:
                    merged = {**part, **merged} if isinstance(part, dict) else merged
            elif key in out:
                self.problems.append(f"{self.document.file}:{at}: duplicate key {key!r}, first on line {lines[key]}")
            else:
                out[key] = value
                lines[key] = at

        if merged:
            out = {**merged, **out}

        self.document.place(out, lines)
        return out

    def _value(self, node: Any) -> Any:
        text: str = node.value
        if node.style in _QUOTED:
            return text

        if text in _WORDS:
            return _WORDS[text]

        if _INT.match(text) and len(text) < 4000:
            return int(text)

        return float(text) if _FLOAT.match(text) else text


def read_json(text: str, file: str, first_line: int = 1) -> Document:
    """Read one JSON document. ``first_line`` is where it begins in its file (JSON lines).

    Raises:
        SuiteError: it is no JSON.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except RecursionError:
        raise SuiteError([f"{file}:{first_line}: nested too deeply"]) from None
    except ValueError as error:
        line = first_line + getattr(error, "lineno", 1) - 1
        raise SuiteError([f"{file}:{line}: not valid JSON: {getattr(error, 'msg', error)}"]) from None

    document = Document(file, value)
    if "\n" not in text.strip():
        document.line = lambda container, key=None: first_line  # type: ignore[method-assign]
        return document

    try:  # JSON is YAML, nearly: the same parser knows the lines
        document = read_yaml(text, file)
    except SuiteError:
        pass

    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice!r}")

    return out


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
