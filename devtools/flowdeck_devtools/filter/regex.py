"""Regular expressions that Python and RE2 (which DuckDB uses) read alike.

A filter is tested on live lines by the one and in SQL by the other. So what only one knows is refused (looking around,
references back, possessive repeats), and where the two differ in silence (``\\d`` of other scripts, ``$`` before a last
newline) the Python side is rewritten to what RE2 does.
"""

from __future__ import annotations

import re
from functools import lru_cache

from flowdeck_devtools.filter.fields import FilterError

__all__ = ["portable"]

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_SAME = frozenset("ntrf\\.+*?()[]{}|^$/-\"'#&~@!%,:;<>= _`")
_MAX = 500
_MOST = 1000
"""RE2's bound on counted repeats, nested ones multiplied."""
_REPEAT = re.compile(r"\{(\d{1,4})(,?)(\d{0,4})\}")


@lru_cache(maxsize=256)
def portable(pattern: str, column: int = 0) -> re.Pattern[str]:
    """The pattern for Python, ignoring case.

    Raises:
        FilterError: it is no regular expression, or one that SQL could not apply.
    """
    if len(pattern) > _MAX:
        raise FilterError(f"a regular expression has at most {_MAX} characters", column)
    try:
        return re.compile(_rewritten(pattern, column), re.IGNORECASE | re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise FilterError(f"no regular expression: {error}", column) from None


def _rewritten(pattern: str, column: int) -> str:
    out: list[str] = []
    at, in_class, class_start = 0, False, 0
    repeats = 1
    while at < len(pattern):
        char, following = pattern[at], pattern[at + 1 : at + 2]
        step = 1
        if char == "\\":
            out.append(_escaped(following, in_class, column + at))
            step = 2
        elif in_class:
            if char == "]" and at > class_start:
                in_class = False
            elif char == "[":
                char = "\\["  # no sets in sets: RE2 takes the bracket as itself, Python warns
                if following == ":":
                    raise FilterError("named classes are not supported: write [a-z]", column + at)
            elif char in "&~|" and following == char:
                raise FilterError(f"{char}{char} in a class is not supported", column + at)
            out.append(char)
        elif char == "[":
            in_class = True
            class_start = at + (2 if following == "^" else 1)
            out.append("[^" if following == "^" else "[")
            step = 2 if following == "^" else 1
        elif char == "(" and following == "?":
            if not pattern.startswith("(?:", at):
                raise FilterError("only (…) and (?:…) are supported", column + at)
            out.append("(?:")
            step = 3
        elif char == "$":
            out.append("\\Z")
        elif char in "*+?}" and following == "+":
            raise FilterError("repeats without giving back are not supported", column + at)
        elif char == "{":
            found = _REPEAT.match(pattern, at)
            repeats *= max(1, int(found[1] or 0), int(found[3] or 0)) if found is not None else 1
            if found is None or not found[1] or repeats > _MOST:
                raise FilterError(f"a repeat is {{2}}, {{2,}} or {{2,5}}, up to {_MOST} in all", column + at)
            out.append(found[0])
            step = len(found[0])
        else:
            out.append(char)
        at += step
    return "".join(out)


def _escaped(char: str, in_class: bool, column: int) -> str:
    if char in _SAME and char:
        return f"\\{char}"
    if char and char in "dws":
        return _CLASSES[char] if in_class else f"[{_CLASSES[char]}]"
    if char and char in "DWS" and not in_class:
        return f"[^{_CLASSES[char.lower()]}]"
    if char and char in "bB" and not in_class:
        return f"(?a:\\{char})"
    raise FilterError(f"\\{char} is not supported here", column)
