"""Completion of SQL over a store: columns, views and macros with what they mean, and SQL's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["complete"]

_KEYWORDS: Final = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "HAVING", "JOIN", "LEFT JOIN", "USING", "WITH", "AS",
    "AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "BETWEEN", "IS NULL", "IS NOT NULL", "CASE", "WHEN", "THEN", "ELSE",
    "END", "DISTINCT", "UNION ALL", "DESC", "COUNT(*)", "FILTER", "DESCRIBE", "SUMMARIZE", "EXPLAIN", "PIVOT",
    "QUALIFY", "OVER", "PARTITION BY", "INTERVAL", "DATE_TRUNC", "QUANTILE_CONT",
)  # fmt: skip
_WORD: Final = re.compile(r"[\w.\\]*\Z")
_NAMED: Final = re.compile(r"\w+")


def complete(before: str) -> Iterator[tuple[str, int, str]]:
    """Yield completions of the text before the cursor: ``(text, characters to replace, what it is)``.

    Columns of the views that the statement names come first, then views and macros, then SQL.
    """
    from flowdeck_sinks.store.views import MACROS, VIEWS

    found = _WORD.search(before)
    typed = found.group().rpartition(".")[2] if found else ""
    if before.lstrip().startswith("\\") and " " not in before.strip():
        for name in ("\\d", "\\watch", "\\csv", "\\json", "\\table", "\\limit", "\\q"):
            if name.startswith(before.strip()):
                yield name, len(before.lstrip()), "command"
        return

    if not typed:
        return

    words = set(_NAMED.findall(before.lower()))
    seen: set[str] = set()
    named = [view for view in VIEWS if view.name in words]
    named += [view for macro in MACROS if macro.name in words for view in VIEWS if view.name == macro.like]
    lowered = typed.lower()
    for view in named:
        for column, summary in view.columns.items():
            if column.startswith(lowered) and column not in seen:
                seen.add(column)
                yield column, len(typed), summary

    for view in VIEWS:
        if view.name.startswith(lowered):
            yield view.name, len(typed), view.summary
    for macro in MACROS:
        if macro.name.startswith(lowered):
            yield f"{macro.name}(", len(typed), macro.summary
    for word in _KEYWORDS:
        if word.lower().startswith(lowered):
            yield (word if typed.isupper() else word.lower()), len(typed), ""
