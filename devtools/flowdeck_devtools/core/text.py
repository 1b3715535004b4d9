"""Text that is safe and fits: what stands between stored data and a terminal cell.

Stored text is hostile until cleaned: it may hold escape sequences, control characters, bidirectional overrides or
zero-width characters, each of which can move the cursor, recolour the screen or break a column. ``clean`` makes one
line of plain text; ``fit`` makes it exactly so many cells wide.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from rich.cells import cell_len

__all__ = [
    "age",
    "cells",
    "clean",
    "clock_time",
    "count",
    "day_time",
    "duration",
    "fit",
    "names_id",
    "short_id",
    "size",
    "sparkline",
    "use_utc",
]

Align = Literal["left", "right"]

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"  # everything else that begins with ESC
    r"|\x9b[0-?]*[ -/]*[@-~]",  # CSI as one C1 byte
    re.DOTALL,
)
_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# Controls, surrogates, bidirectional marks and overrides, zero-width joiners, variation selectors, private planes'
# tags: characters whose width terminals disagree about, or which change the order of what follows.
_UNSAFE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff]"
)
# Two regional letters make one flag in some terminals and two letters in others; letters are certain.
_FLAGS = {0x1F1E6 + offset: chr(ord("A") + offset) for offset in range(26)}
_MARKS_KEPT = 1
"""Combining marks kept after one character; more than that climbs over the neighbouring rows."""


def clean(text: str, *, limit: int = 4096) -> str:
    """One line of printable text: escapes, controls and direction marks removed, line breaks shown as spaces.

    Only the first ``limit`` characters are looked at; the caller cuts to cells anyway.
    """
    if len(text) > limit:
        text = text[:limit]

    if text.isascii() and text.isprintable():
        return text

    text = _ESCAPES.sub("", text)
    text = _UNSAFE.sub("", _BREAKS.sub(" ", text))
    if text.isascii():
        return text

    text = unicodedata.normalize("NFC", text).translate(_FLAGS)
    if any(unicodedata.combining(char) for char in text):
        text = _trim_marks(text)

    return text


def _trim_marks(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= _MARKS_KEPT and not (marks and not kept):
            kept.append(char)

    return "".join(kept)


def cells(text: str) -> int:
    """Width of cleaned text in terminal cells."""
    return len(text) if text.isascii() else cell_len(text)


def fit(text: str, width: int, *, align: Align = "left", keep_end: bool = False) -> str:
    """Cleaned text as exactly ``width`` cells: cut with ``…`` or padded with spaces.

    ``keep_end`` cuts at the front, for text whose end tells most (paths, ids).
    """
    if width <= 0:
        return ""

    wide = cells(text)
    if wide > width:
        text = _cut_front(text, width - 1) if keep_end else _cut(text, width - 1)
        wide = cells(text)

    gap = " " * (width - wide)
    return gap + text if align == "right" else text + gap


def _cut(text: str, room: int) -> str:
    if text.isascii():
        return text[:room] + "…"

    used = 0
    for position, char in enumerate(text):
        used += cell_len(char)
        if used > room:
            return text[:position] + "…"

    return text + "…"


def _cut_front(text: str, room: int) -> str:
    if text.isascii():
        return "…" + text[len(text) - room :] if room else "…"

    used = 0
    for back in range(1, len(text) + 1):
        used += cell_len(text[-back])
        if used > room:
            start = len(text) - back + 1
            while start < len(text) and unicodedata.combining(text[start]):
                start += 1  # a mark cut off from its letter would sit on the ellipsis

            return "…" + text[start:]

    return "…" + text


def duration(us: float | None) -> str:
    """Microseconds in at most seven cells: ``85µs 12ms 0.34s 12.8s 4m07s 3h12m 5d04h``; ``–`` when unknown."""
    if us is None:
        return "–"

    us = max(us, 0)
    if us < 1_000:
        return f"{us:.0f}µs"
    if us < 99_950:
        return f"{us / 1e3:.1f}ms" if us < 9_950 else f"{us / 1e3:.0f}ms"

    seconds = us / 1e6
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"

    whole = int(seconds + 0.5)
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02d}h"


def age(us: float | None) -> str:
    """How long ago, rounded to what a person says: ``now 8s 4m 3h 2d``."""
    if us is None:
        return "–"

    seconds = us / 1e6
    for unit, step in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= step:
            return f"{seconds / step:.0f}{unit}"

    return f"{seconds:.0f}s" if seconds >= 1 else "now"


def use_utc(utc: bool) -> None:
    """Show wall times in UTC instead of the local zone (tests, and people who compare machines)."""
    global _zone
    _zone = time.gmtime if utc else time.localtime
    _second.cache_clear()


_zone: Callable[[float], time.struct_time] = time.localtime


@lru_cache(maxsize=512)
def _second(seconds: int) -> str:
    try:
        return time.strftime("%H:%M:%S", _zone(seconds))
    except (OverflowError, ValueError, OSError):  # a producer may write any number as its time
        return "??:??:??"


def clock_time(us: int | None, *, millis: bool = True) -> str:
    """Wall time of a stored time: ``10:02:31.500``, or without the milliseconds."""
    if us is None:
        return "–"

    text = _second(us // 1_000_000)
    return f"{text}.{us // 1000 % 1000:03d}" if millis else text


def day_time(us: int | None, now_us: int) -> str:
    """Wall time in eight cells; an older day shows its date instead: ``10:02:31`` or ``Nov 19``."""
    if us is None:
        return "–"
    if abs(now_us - us) < 20 * 3_600 * 1_000_000:
        return _second(us // 1_000_000)

    try:
        return time.strftime("%b %d", _zone(us // 1_000_000))
    except (OverflowError, ValueError, OSError):
        return "?"


def size(octets: int) -> str:
    """Bytes for people: ``812 B 4.1 kB 3.2 MB``."""
    if octets < 1_000:
        return f"{octets} B"

    value = float(octets)
    for unit in ("kB", "MB", "GB"):
        value /= 1_000
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"

    return f"{value / 1_000:.1f} TB"


def count(number: int) -> str:
    """A count with thousands separated below a million, shortened above: ``48,210``, ``3.1M``."""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:.1f}M"


def short_id(identifier: str, width: int = 8) -> str:
    """An id in a few cells: of the runtime's own the end of its process prefix and its counter, else its end.

    Ids are a process prefix and a counter, so neighbours differ only at the end, and the first ones of two processes
    only in the prefix: ``4fe…0002``. The filter and every command take what is shown here.
    """
    if len(identifier) <= width:
        return identifier
    if len(identifier) >= 32 and width >= 6 and _HEX_ID.fullmatch(identifier[:32]):
        rest = identifier[32:]
        tail = (identifier[22:32] + rest)[-(width // 2) :]
        head = width - 1 - len(tail)
        return f"{identifier[22 - head : 22]}…{tail}"
    return "…" + identifier[-(width - 1) :]


_HEX_ID = re.compile(r"[0-9a-f]{32}")


def names_id(typed: str, identifier: str | None) -> bool:
    """Whether what a person typed (a whole id, its end, or how it is shown) means this id."""
    if not identifier:
        return False
    first, _, last = typed.lower().rpartition("…")
    low = identifier.lower()
    return low.endswith(last) and (not first.strip("…") or first.strip("…") in low[: len(low) - len(last)])


_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[int]) -> str:
    """One cell per value, scaled to the largest; zero is the lowest block, so a flat line still shows it lives."""
    top = max(values, default=0)
    if top <= 0:
        return _BLOCKS[0] * len(values)

    return "".join(_BLOCKS[min(7, (value * 7 + top - 1) // top)] for value in values)
