"""Answers in sections: a heading for each key, text as it is, everything else as JSON below its heading.

Models write long texts better so than inside JSON strings. :class:`SectionReader` reads such an answer while it is
written, as :class:`~flowdeck.models.json_stream.JsonReader` reads JSON: every character is looked at once. A heading
that is no key, comes again, or stands inside a fence belongs to the text. Source: behaviour, Appendix D.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic_core import from_json

from flowdeck.models.document import read_document, writable
from flowdeck.models.json_stream import Grown, JsonReader, Text, copied

__all__ = ["Kind", "SectionReader"]

Kind = Literal["text", "value", "object", "array"]
"""What stands in a section: text; a number or truth value; a JSON object; a JSON array."""

_HEADING: Final = re.compile(r" {0,3}###[ \t]+(.*?)(?:[ \t]+#+)?\s*")
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)")
_MARKS: Final = ("###", "```", "~~~")
_MARK_LENGTH: Final = 400
"""Characters a heading or the opening of a fence may have; a longer line is text."""


class SectionReader:
    """Reads one answer that comes in pieces.

    Args:
        kinds: what stands in the section of each key.

    Attributes:
        root: the sections that are complete; see :meth:`partial` for the one under way.
        problem: what is wrong with a section; ``None`` while nothing is.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds
        self.root: dict[str, Any] = {}
        self.problem: str | None = None
        self._line = ""  # of the line under way, while it may become a heading or a fence
        self._is_text = False  # the line under way is neither
        self._fence = ""
        self._around = ""  # a fence around the whole answer
        self._ended = False
        self._begun: set[str] = set()
        self._name: str | None = None
        self._text = Text()
        self._blank: list[str] = []  # white space that counts only when something follows
        self._json: JsonReader | None = None
        self._told = False

    def partial(self) -> dict[str, Any]:
        """Return a copy of the answer as far as it is known, with the section under way."""
        out: dict[str, Any] = copied(self.root)
        if self._name is not None and self._kinds[self._name] == "text":
            out[self._name] = self._text.upto(self._text.length)
        elif self._name is not None and self._json is not None and self._json.started:
            out[self._name] = self._json.partial()

        return out

    def feed(self, piece: str) -> list[Grown]:
        """Read on, and return what ``piece`` said, in the answer's order."""
        out: list[Grown] = []
        at = 0
        while at < len(piece) and not self._ended:
            end = piece.find("\n", at)
            ended = end >= 0
            self._read(piece[at : end if ended else None], ended, out)
            at = end + 1 if ended else len(piece)

        return out

    def end(self) -> list[Grown]:
        """Return what only the end of the answer tells: the last section is complete."""
        out: list[Grown] = []
        if not self._ended:
            if self._line:
                self._whole_line(self._line, "", out)

            self._close(out)
            self._ended = True

        return out

    # -- lines -----------------------------------------------------------------------------------------------------

    def _read(self, part: str, ended: bool, out: list[Grown]) -> None:
        """Read a part of a line, or the rest of it."""
        if not self._is_text:
            self._line += part
            if not ended and _may_become_mark(self._line):
                return

            line, self._line = self._line, ""
            if ended:
                self._whole_line(line, "\n", out)
                return

            self._is_text = True
            part = line

        self._say(part + "\n" if ended else part, out)
        self._is_text = not ended

    def _whole_line(self, line: str, newline: str, out: list[Grown]) -> None:
        fence = _FENCE.fullmatch(line.rstrip()) if line.lstrip(" ")[:1] in ("`", "~") else None
        if fence is not None and self._read_fence(fence[1], fence[2], out):
            return

        in_fence = self._fence and (self._json is None or not self._json.complete)  # one left open ends with its JSON
        if not in_fence and (heading := _HEADING.fullmatch(line)) is not None:
            name = heading[1]
            if name in self._kinds and name not in self._begun:
                self._close(out)
                self._open(name)
                return

        self._say(line + newline, out)

    def _read_fence(self, marks: str, more: str, out: list[Grown]) -> bool:
        """Follow fences; true when it is the end of the one around the answer."""
        closes = not more.strip()
        if self._fence:
            if closes and marks.startswith(self._fence):
                self._fence = ""
        elif closes and self._around and marks.startswith(self._around):
            self._around = ""
            if self._name is not None:
                self._close(out)
                self._ended = True
                return True
        elif self._name is None:
            self._around = marks
        else:
            self._fence = marks

        return False

    # -- sections --------------------------------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        kind = self._kinds[name]
        self._begun.add(name)
        self._name, self._text, self._blank, self._fence, self._told = name, Text(), [], "", False
        self._json = JsonReader(kind) if kind in ("object", "array") else None

    def _say(self, text: str, out: list[Grown]) -> None:
        name = self._name
        if name is None:
            return  # a sentence before the first heading

        if self._kinds[name] != "text":
            self._text.add(text)
            if self._json is not None:
                self._tell(self._json, text, out)

            return

        said = text.rstrip()
        if not said:
            self._blank.append(text)
            return

        blank, self._blank = "".join(self._blank), [text[len(said) :]]
        said = writable(blank + said if self._text.length else said.lstrip())
        self._text.add(said)
        out.append(Grown((name,), self._text, said, self._text.length))

    def _tell(self, reader: JsonReader, text: str, out: list[Grown]) -> None:
        """Tell what the JSON of a section says, below the section's key."""
        name = self._name
        assert name is not None
        out += (grown._replace(parts=(name, *grown.parts)) for grown in reader.feed(text))
        if reader.complete and not self._told:
            self._told = True
            out.append(Grown((name,), reader.root, None, -1))

    def _close(self, out: list[Grown]) -> None:
        """End the section under way."""
        name, self._name = self._name, None
        if name is None:
            return

        kind, whole = self._kinds[name], self._text.upto(self._text.length)
        if kind == "text":
            self.root[name] = whole
            out.append(Grown((name,), whole, None, -1))
        elif kind == "value":
            self.root[name] = value = _value(writable(whole.strip()))
            if value is not None:
                out.append(Grown((name,), value, str(value), -1))

            out.append(Grown((name,), value, None, -1))
        else:
            found = read_document(whole, kind)
            if found.problem is not None:
                self.problem = self.problem or f"section {name!r}: {found.problem}"
                return

            self.root[name] = found.data
            if self._json is not None and not self._json.started:
                self._name = name
                self._tell(JsonReader(kind), found.text, out)
                self._name = None


def _may_become_mark(line: str) -> bool:
    """Whether the beginning of a line may become a heading or a fence."""
    if len(line) > _MARK_LENGTH:
        return False

    begun = line.lstrip(" ")
    return len(line) - len(begun) <= 3 and any(begun.startswith(mark) or mark.startswith(begun) for mark in _MARKS)


def _value(text: str) -> Any:
    """Return a number, a truth value or what else JSON says in ``text``; else the text."""
    plain = {"True": "true", "False": "false", "None": "null"}.get(text, text)
    try:
        return from_json(plain, allow_inf_nan=False)
    except ValueError:
        return text
