"""Instant: the fields of a structured answer while the model still writes.

Each :class:`StreamingData` says that a string grew or that a value is complete: of every path first the deltas, then
exactly one ``done``; a list or an object is done after its members. Source: behaviour §8.4.

It is a protocol inside the process: paths are the parser's. Map them to stable business events before they leave the
service (:mod:`flowdeck.interaction`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from flowdeck.models.json_stream import Grown, JsonReader, Part, Text
from flowdeck.models.sections import SectionReader

__all__ = ["InstantParser", "PathStyle", "StreamingData"]

PathStyle = Literal["dot", "slash"]


class StreamingData:
    """One thing an answer said of one place in it.

    Attributes:
        path: ``items[0].name``, or ``items/0/name`` in slash style.
        wildcard_path: the same with ``[*]`` (``*``) in place of indexes: what handlers are chosen by.
        indexes: the indexes of the path, in order.
        delta: what was added to a string; a number or truth value as text; ``None`` when it is complete.
        is_complete: nothing more comes for the path.
        event_type: ``"delta"`` or ``"done"``.
        attempt: which attempt of the request says it, from 1.
    """

    __slots__ = ("_length", "_reader", "_style", "_value", "attempt", "delta", "indexes", "is_complete", "parts")

    def __init__(self, grown: Grown, reader: JsonReader | SectionReader | None, style: PathStyle, attempt: int) -> None:
        self.parts: tuple[Part, ...] = grown.parts
        self._value = grown.value
        self._length = grown.length
        self._reader = reader
        self._style = style
        self.delta = grown.delta
        self.is_complete = grown.delta is None
        self.indexes: tuple[int, ...] = tuple(part for part in grown.parts if type(part) is int)
        self.attempt = attempt

    @staticmethod
    def of(path: str, value: Any, attempt: int = 1) -> StreamingData:
        """Return a complete value under a path that is no part of the answer, such as ``$tool_calls``."""
        return StreamingData(Grown((path,), value, None, -1), None, "dot", attempt)

    @property
    def path(self) -> str:
        return self._path(False)

    @property
    def wildcard_path(self) -> str:
        return self._path(True)

    @property
    def event_type(self) -> str:
        return "done" if self.is_complete else "delta"

    @property
    def value(self) -> Any:
        """The value as this item found it: of a string all that had come. Joined when read."""
        value = self._value
        return value.upto(self._length) if type(value) is Text else value

    @property
    def full_data(self) -> Any:
        """The whole answer as far as it is known: a copy, made when read. Read it before asking for the next item."""
        return None if self._reader is None else self._reader.partial()

    def _path(self, wild: bool) -> str:
        parts = self.parts
        if self._style == "slash":
            return "/".join("*" if wild and type(part) is int else str(part) for part in parts)

        if len(parts) == 1 and type(parts[0]) is str:
            return parts[0]

        text = ""
        for part in parts:
            if type(part) is int:
                text += "[*]" if wild else f"[{part}]"
            else:
                text += f".{part}" if text else str(part)

        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, without the whole answer."""
        names = ("path", "wildcard_path", "indexes", "value", "delta", "is_complete", "event_type", "attempt")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        said = f"delta={self.delta!r}" if not self.is_complete else f"value={self.value!r:.80}"
        return f"<StreamingData {self.path} {said}>"


class InstantParser:
    """Turns the text of one answer, piece by piece, into :class:`StreamingData`.

    Time is linear in the answer's length, whatever the pieces' size.

    Args:
        reader: what reads the answer; JSON by default.
    """

    def __init__(
        self,
        root: Literal["object", "array", "any"] = "any",
        *,
        style: PathStyle = "dot",
        attempt: int = 1,
        reader: SectionReader | None = None,
    ) -> None:
        self.reader: JsonReader | SectionReader = JsonReader(root) if reader is None else reader
        self._style: PathStyle = style
        self._attempt = attempt

    def feed(self, piece: str) -> Iterator[StreamingData]:
        """Read ``piece`` and return what it said."""
        return self._items(self.reader.feed(piece))

    def end(self) -> Iterator[StreamingData]:
        """Return what the end of the answer said."""
        return self._items(self.reader.end())

    def _items(self, grown: list[Grown]) -> Iterator[StreamingData]:
        reader, style, attempt = self.reader, self._style, self._attempt
        return (StreamingData(each, reader, style, attempt) for each in grown)
