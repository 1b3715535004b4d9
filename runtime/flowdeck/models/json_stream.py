"""Reading JSON while it is still being written: every character is looked at once.

:class:`JsonReader` takes text in pieces of any size and returns what each piece said: a string grew, a value is
complete. The libraries' partial parsers (jiter, ``pydantic_core.from_json(allow_partial=…)``) start at the beginning
for every piece, which is quadratic: 1 MB in pieces of 64 bytes is 8 GB of parsing. So the structure is followed here,
with regular expressions that run in C over each piece, and the library reads only what one piece brought of a string.

Text before the document (a fence, a sentence) and after it is skipped. What is no JSON stops the reader with the place.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal, NamedTuple

__all__ = ["MAX_DEPTH", "Grown", "JsonReader", "Text", "copied"]

MAX_DEPTH: Final = 200
"""Nesting a model's answer may have; the same as jiter's limit."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_PLAIN: Final = re.compile(r'[^"\\]*')
_SCALAR: Final = re.compile(r"[^\s,\]}:\"{\[]*")
_ESCAPE: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[\"\\/bfnrt])")
_HIGH: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS: Final = {"true": True, "false": False, "null": None}
_LONE: Final = re.compile("[\ud800-\udfff]")
_decode: Final = json.JSONDecoder(strict=False).decode

# States: what may come next.
_BEFORE, _VALUE, _FIRST_ITEM, _FIRST_KEY, _KEY, _IN_KEY, _COLON, _IN_TEXT, _IN_SCALAR, _AFTER = range(10)
_DONE, _BROKEN = 10, 11

Part = str | int
"""One step of a path: a key, or an index."""


class Text:
    """A string that grows; :meth:`upto` joins what has come only when somebody asks."""

    __slots__ = ("_joined", "_parts", "length")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._joined = ""
        self.length = 0

    def add(self, piece: str) -> None:
        self._parts.append(piece)
        self.length += len(piece)

    def upto(self, length: int) -> str:
        """Return the first ``length`` characters."""
        if self._parts:
            self._joined += "".join(self._parts)
            self._parts.clear()

        return self._joined if length == len(self._joined) else self._joined[:length]


class Grown(NamedTuple):
    """What a piece of text said of one place in the document."""

    parts: tuple[Part, ...]
    value: Any
    """The complete value; of a string that still grows its :class:`Text`."""
    delta: str | None
    """What was added to a string; the whole value, as text, of a number or a truth value; ``None`` at the end."""
    length: int
    """Of a string that still grows: how long it is now; else -1."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come for this place."""
        return self.delta is None


class _Open:
    """An object or a list that is not closed yet."""

    __slots__ = ("key", "parts", "value")

    def __init__(self, value: Any, parts: tuple[Part, ...]) -> None:
        self.value = value
        self.parts = parts
        self.key: Part = 0 if type(value) is list else ""


class JsonReader:
    """Reads one JSON document that comes in pieces.

    Args:
        root: ``"object"`` or ``"array"`` when the document must be one; text before it is skipped.

    Attributes:
        root: what has been read of the document; grows in place. A string under way is not in it, see :meth:`partial`.
        problem: what is wrong, and at which character; ``None`` while nothing is.
    """

    def __init__(self, root: Literal["object", "array", "any"] = "any") -> None:
        self._start = re.compile({"object": r"\{", "array": r"\[", "any": r"[{\[]"}[root])
        self._state = _BEFORE
        self._stack: list[_Open] = []
        self._rest = ""
        self._offset = 0
        self._text: Text | None = None
        self._key: list[str] = []
        self._scalar_at = 0
        self.root: Any = None
        self.problem: str | None = None

    @property
    def started(self) -> bool:
        """Whether the document has begun."""
        return self._state != _BEFORE

    @property
    def complete(self) -> bool:
        """Whether the document has ended."""
        return self._state == _DONE

    def partial(self) -> Any:
        """Return a copy of the document as far as it is known, with the string under way."""
        if self._text is None or not self._stack:
            return copied(self.root)

        top, text = self._stack[-1], self._text.upto(self._text.length)
        if type(top.value) is list:
            top.value.append(text)
            copy = copied(self.root)
            top.value.pop()
        else:
            missing = object()
            before = top.value.get(top.key, missing)
            top.value[top.key] = text
            copy = copied(self.root)
            if before is missing:
                del top.value[top.key]
            else:
                top.value[top.key] = before

        return copy

    def feed(self, piece: str) -> list[Grown]:
        """Read on, and return what ``piece`` said, in the document's order."""
        if self._state >= _DONE:
            return []

        out: list[Grown] = []
        text = self._rest + piece
        end = len(text)
        at = 0
        while at < end:
            state = self._state
            if state in (_IN_TEXT, _IN_KEY):
                upto = self._read_text(text, at, end, out)
                if upto == at:
                    break  # an escape that is not whole yet

                at = upto
            elif state == _BEFORE:
                found = self._start.search(text, at)
                if found is None:
                    at = end
                    break

                at = found.start()
                self._state = _VALUE
            elif state == _IN_SCALAR:
                at = self._read_scalar(text, at, end, out)
            else:
                at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
                if at < end:
                    at = self._read_mark(text, at, out)

            if self._state >= _DONE:
                at = end

        self._rest = text[at:]
        self._offset += at
        return out

    def end(self) -> list[Grown]:
        """Return what only the end of the text tells: nothing, a document says itself that it is complete."""
        return []

    # -- the parts -------------------------------------------------------------------------------------------------

    def _read_mark(self, text: str, at: int, out: list[Grown]) -> int:
        """Read one character that is no part of a string or a scalar."""
        mark, state = text[at], self._state
        if state == _AFTER:
            top = self._stack[-1]
            is_list = type(top.value) is list
            if mark == ",":
                self._state = _VALUE if is_list else _KEY
                if is_list:
                    top.key += 1  # type: ignore[operator]
            elif mark == ("]" if is_list else "}"):
                self._close(out)
            else:
                self._broken(at, f"expected a comma or the end of the {'list' if is_list else 'object'}", mark)
        elif state == _COLON:
            if mark != ":":
                return self._broken(at, "expected a colon", mark)

            self._state = _VALUE
        elif state in (_KEY, _FIRST_KEY):
            if mark == '"':
                self._key = []
                self._state = _IN_KEY
            elif mark == "}" and state == _FIRST_KEY:
                self._close(out)
            else:
                self._broken(at, "expected a key", mark)
        elif mark == '"':
            self._text = Text()
            self._state = _IN_TEXT
        elif mark == "{" or mark == "[":
            self._open({} if mark == "{" else [], at)
        elif mark == "]" and state == _FIRST_ITEM:
            self._close(out)
        elif _SCALAR.match(mark).end():  # type: ignore[union-attr]
            self._key = []
            self._scalar_at = self._offset + at
            self._state = _IN_SCALAR
            return at
        else:
            self._broken(at, "expected a value", mark)

        return at + 1

    def _read_text(self, text: str, at: int, end: int, out: list[Grown]) -> int:
        """Read a string, or what is there of it; return ``at`` when nothing more can be read yet."""
        here, escaped, closed = at, False, False
        while here < end:
            here = _PLAIN.match(text, here).end()  # type: ignore[union-attr]
            if here == end:
                break

            if text[here] == '"':
                closed = True
                break

            escape = _ESCAPE.match(text, here)
            if escape is None:
                if end - here >= 6 or not _may_become_escape(text[here:end]):
                    return self._broken(here, "no such escape", text[here : here + 2])

                break

            escaped = True
            here = escape.end()

        upto = here
        if not closed and escaped and _HIGH.search(text, at, upto):
            upto -= 6  # the first half of a surrogate pair waits for the second

        if upto > at:
            raw = text[at:upto]
            said = _unescaped(raw) if escaped else raw
            if self._state == _IN_KEY:
                self._key.append(said)
            else:
                grown = self._text
                assert grown is not None
                grown.add(said)
                out.append(Grown(self._parts(), grown, said, grown.length))

        if not closed:
            return upto

        if self._state == _IN_KEY:
            self._stack[-1].key = "".join(self._key)
            self._state = _COLON
        else:
            self._end_text(out)

        return upto + 1

    def _end_text(self, out: list[Grown]) -> None:
        grown, self._text = self._text, None
        assert grown is not None
        value = grown.upto(grown.length)
        self._put(value)
        out.append(Grown(self._parts(), value, None, -1))
        self._state = _AFTER

    def _read_scalar(self, text: str, at: int, end: int, out: list[Grown]) -> int:
        upto = _SCALAR.match(text, at).end()  # type: ignore[union-attr]
        self._key.append(text[at:upto])
        if upto == end:
            return upto  # it may go on

        word = "".join(self._key)
        if word in _LITERALS:
            value: Any = _LITERALS[word]
        else:
            number = _NUMBER.fullmatch(word)
            if number is None:
                return self._broken(self._scalar_at - self._offset, "expected a value", word[:40])

            try:
                value = float(word) if number[1] or number[2] else int(word)
            except ValueError:  # more digits than Python converts
                return self._broken(self._scalar_at - self._offset, "too many digits", word[:40])

        self._put(value)
        parts = self._parts()
        if value is not None:
            out.append(Grown(parts, value, str(value), -1))

        out.append(Grown(parts, value, None, -1))
        self._state = _AFTER
        return upto

    # -- the tree --------------------------------------------------------------------------------------------------

    def _parts(self) -> tuple[Part, ...]:
        top = self._stack[-1]
        return (*top.parts, top.key)

    def _put(self, value: Any) -> None:
        top = self._stack[-1]
        if type(top.value) is list:
            top.value.append(value)
        else:
            top.value[top.key] = value

    def _open(self, value: Any, at: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self._broken(at, f"nested deeper than {MAX_DEPTH}", "")
            return

        if self._stack:
            self._put(value)
            parts = self._parts()
        else:
            self.root, parts = value, ()

        self._stack.append(_Open(value, parts))
        self._state = _FIRST_ITEM if type(value) is list else _FIRST_KEY

    def _close(self, out: list[Grown]) -> None:
        closed = self._stack.pop()
        if not self._stack:
            self._state = _DONE
            return

        out.append(Grown(closed.parts, closed.value, None, -1))
        self._state = _AFTER

    def _broken(self, at: int, what: str, found: str) -> int:
        self._state = _BROKEN
        self.problem = f"character {self._offset + at}: {what}" + (f", found {found!r}" if found else "")
        return at + 1


def _unescaped(raw: str) -> str:
    """Return what the inside of a JSON string stands for; half a surrogate pair becomes a replacement character."""
    said: str = _decode(f'"{raw}"')
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", said)


def _may_become_escape(text: str) -> bool:
    """Whether what stands at the end of a piece is the beginning of an escape."""
    return len(text) == 1 or (text[1] == "u" and all(each in "0123456789abcdefABCDEF" for each in text[2:]))


def copied(value: Any) -> Any:
    """Return a copy of plain data: its objects and lists anew."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}

    return [copied(item) for item in value] if kind is list else value
