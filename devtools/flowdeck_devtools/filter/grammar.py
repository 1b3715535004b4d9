"""The filter language, read into a tree. The tree is what everything else is compiled from.

::

    expr    := and (OR and)*
    and     := term+                        one beside the other: all must hold; AND may stand between
    term    := -term | NOT term | ( expr ) | field:pattern | field op value | field~regex | "phrase" | /regex/ | word
    pattern := a,b,c                        any of; * stands for anything, ? for one character; or /regex/
    op      := > >= < <= = !=
    value   := 12  1.5s  200ms  warn  -15m  2026-11-20T10:00

``level>=warn (kind:chunk.* OR kind:tool.*) -kind:chunk.completed requests last:15m``. Everything ignores case. Regular
expressions are what Python and RE2 read alike, so that a filter means the same on live lines and in SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowdeck_devtools.filter.fields import FIELDS, NUMERIC, FilterError, field_of, level, moment, number
from flowdeck_devtools.filter.regex import portable

__all__ = ["FIELDS", "All", "Any", "Compare", "FilterError", "Match", "Node", "Not", "Regex", "Word", "parse"]

_OPS = (">=", "<=", "!=", ">", "<", "=", "~")
MAX_DEPTH = 40
"""Brackets and negations inside each other; more are refused, so that no reader of the tree runs out of stack."""


@dataclass(frozen=True, slots=True)
class Word:
    """Text that must occur anywhere."""

    text: str


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression that must be found in a field, or anywhere when ``field`` is empty."""

    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Match:
    """A field that must be like one of the patterns."""

    field: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """A field compared with a value; levels, durations and times have an order of their own."""

    field: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    node: Node


@dataclass(frozen=True, slots=True)
class All:
    """Everything that must hold; nothing at all holds always."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """Something of which must hold."""

    nodes: tuple[Node, ...]


Node = Word | Regex | Match | Compare | Not | All | Any


def parse(text: str) -> All:
    """The tree of a filter.

    Raises:
        FilterError: the text is not a filter; says what and at which column.
    """
    reader = _Reader(text)
    node = reader.either(0)
    reader.space()
    if reader.at < len(text):
        raise FilterError("this ) closes nothing", reader.at)
    return node if isinstance(node, All) else All((node,))


class _Reader:
    """Recursive descent over the text; ``at`` is the column it has come to."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.brackets = 0

    # -- the structure -----------------------------------------------------------------------------------------

    def either(self, depth: int) -> All | Any:
        """Alternatives; a single one is returned as it is."""
        branches = [self.both(depth)]
        while self._keyword("OR"):
            if not branches[-1].nodes:
                raise FilterError("nothing stands before this OR", self.at - 2)
            branches.append(self.both(depth))
            if not branches[-1].nodes:
                raise FilterError("nothing stands after OR", self.at)
        if len(branches) == 1:
            return branches[0]
        return Any(tuple(one.nodes[0] if len(one.nodes) == 1 else one for one in branches))

    def both(self, depth: int) -> All:
        nodes: list[Node] = []
        while True:
            self.space()
            if self.at >= len(self.text) or self._peek("OR") or (self.brackets and self._here() == ")"):
                return All(tuple(nodes))
            if self._here() == ")":
                return All(tuple(nodes))
            if self._keyword("AND"):
                self._operand("AND")
            nodes.append(self.term(depth))

    def term(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FilterError("brackets are nested too deeply", self.at)
        if self._keyword("NOT"):
            self._operand("NOT")
            return Not(self.term(depth + 1))
        here, following = self._here(), self.text[self.at + 1 : self.at + 2]
        if here == "-" and following and not following.isspace():
            self.at += 1
            return Not(self.term(depth + 1))
        if here == "(":
            return self._group(depth)
        if here == '"':
            return Word(self._quoted())
        if here == "/" and (pattern := self._slashed()) is not None:
            return Regex("", pattern)
        return self._named() or Word(self._bare())

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _group(self, depth: int) -> Node:
        opened = self.at
        self.at += 1
        self.brackets += 1
        node = self.either(depth + 1)
        self.brackets -= 1
        self.space()
        if self._here() != ")":
            raise FilterError("this ( is never closed", opened)
        if not node.nodes:
            raise FilterError("nothing between the brackets", opened)
        self.at += 1
        return node.nodes[0] if len(node.nodes) == 1 else node

    def _operand(self, word: str) -> None:
        self.space()
        if self.at >= len(self.text) or self._here() == ")" or self._peek("OR"):
            raise FilterError(f"nothing stands after {word}", self.at)

    def _here(self) -> str:
        return self.text[self.at : self.at + 1]

    def _peek(self, word: str) -> bool:
        end = self.at + len(word)
        after = self.text[end : end + 1]
        return self.text.startswith(word, self.at) and (not after or after.isspace() or after in "()")

    def _keyword(self, word: str) -> bool:
        self.space()
        if not self._peek(word):
            return False
        self.at += len(word)
        return True

    # -- terms -------------------------------------------------------------------------------------------------

    def _named(self) -> Node | None:
        """A term that begins with a field, or ``None`` when a plain word stands here."""
        end = self.at
        while end < len(self.text) and (self.text[end].isalnum() or self.text[end] in "_."):
            end += 1
        name = self.text[self.at : end]
        op = ":" if self.text.startswith(":", end) else next((op for op in _OPS if self.text.startswith(op, end)), None)
        if op is None or not name or not (name[0].isalpha() or name[0] == "_"):
            return None
        field = field_of(name, self.at)
        self.at = end + len(op)
        match op:
            case ":":
                return self._match(field)
            case "~":
                pattern = self._slashed() if self._here() == "/" else None
                start = self.at
                return _regex(field, pattern if pattern is not None else self._value(), start)
        return self._compare(field, op)

    def _match(self, field: str) -> Node:
        start = self.at
        if self._here() == "/" and (pattern := self._slashed()) is not None:
            return _regex(field, pattern, start)
        if field == "last":
            value = self._value()
            number("dur", value, start)
            return Compare("ts", ">=", value if value.startswith("-") else f"-{value}")
        patterns: list[str] = []
        while True:
            start = self.at
            pattern = self._value(stop=",")
            if field == "level" and level(pattern) is None:
                raise FilterError(_NO_LEVEL.format(pattern), start)
            if field in NUMERIC:
                number(field, pattern, start)
            patterns.append(pattern)
            if self._here() != ",":
                break
            self.at += 1
        if field == "ts":
            raise FilterError("ts is compared: ts>-15m, ts<2026-11-20T10:00, or last:15m", start)
        return Match(field, tuple(patterns))

    def _compare(self, field: str, op: str) -> Node:
        start = self.at
        value = self._value()
        if field == "last":
            raise FilterError("write last:15m", start)
        if field == "level":
            if level(value) is None:
                raise FilterError(_NO_LEVEL.format(value), start)
        elif field == "ts":
            moment(value, 0, start)
        elif field in NUMERIC or op not in ("=", "!="):
            number(field, value, start)
        # One meaning of "unequal" for every kind of value: whatever is not equal, and what is not there.
        return Not(Compare(field, "=", value)) if op == "!=" else Compare(field, op, value)

    def _value(self, stop: str = "") -> str:
        if self._here() == '"':
            return self._quoted()
        start = self.at
        self.at = self._word_end(stop)
        if self.at == start:
            raise FilterError("a value is missing here", start)
        return self.text[start : self.at]

    def _bare(self) -> str:
        start = self.at
        self.at = self._word_end("")
        return self.text[start : self.at]

    def _word_end(self, stop: str) -> int:
        """Where a word ends: at a space, and within brackets at the ) that is not the word's own."""
        end, opened = self.at, 0
        while end < len(self.text) and not self.text[end].isspace() and self.text[end] not in stop:
            if self.text[end] == "(":
                opened += 1
            elif self.text[end] == ")":
                if not opened and self.brackets:
                    break
                opened -= 1
            end += 1
        return end

    def _quoted(self) -> str:
        start = self.at
        end = self.text.find('"', start + 1)
        if end < 0:
            raise FilterError('the closing " is missing', start)
        if end == start + 1:
            raise FilterError("nothing between the quotes", start)
        self.at = end + 1
        return self.text[start + 1 : end]

    def _slashed(self) -> str | None:
        """The expression between slashes; ``None`` when this is a path such as ``/usr/lib``."""
        start, end = self.at, self.at + 1
        while end < len(self.text) and self.text[end] != "/":
            end += 2 if self.text[end] == "\\" else 1
        after = self.text[end + 1 : end + 2]
        if end >= len(self.text) or end == start + 1 or not (not after or after.isspace() or after == ")"):
            return None
        pattern = self.text[start + 1 : end].replace("\\/", "/")
        portable(pattern, start + 1)
        self.at = end + 1
        return pattern


_NO_LEVEL = "no level {!r}; levels: debug info warning error critical"


def _regex(field: str, pattern: str, column: int) -> Regex:
    if field in NUMERIC or field in ("ts", "last", "level"):
        raise FilterError(f"{field} is no text: it is compared, as in {field}>=…", column)
    portable(pattern, column)
    return Regex(field, pattern)


def describe(nodes: Sequence[Node]) -> str:
    """The tree in words of the language again: ``parse`` gives an equal tree."""
    return " ".join(_text(node) for node in nodes)


def _text(node: Node) -> str:
    match node:
        case Word(text):
            return f'"{text}"'
        case Regex(field, pattern):
            escaped = pattern.replace("/", "\\/")
            return f"{field}:/{escaped}/" if field else f"/{escaped}/"
        case Match(field, patterns):
            return f"{field}:{','.join(map(_value_text, patterns))}"
        case Compare(field, op, value):
            return f"{field}{op}{_value_text(value)}"
        case Not(inner):
            return f"-{_text(inner)}"
        case All(inner_nodes):
            return f"({describe(inner_nodes)})"
        case Any(inner_nodes):
            return f"({' OR '.join(_text(inner) for inner in inner_nodes)})"


def _value_text(value: str) -> str:
    plain = all(not char.isspace() and char not in '",()/' for char in value)
    return value if plain else f'"{value}"'
