"""What the SQL screen keeps beside the query: a history across windows, rows as text, a plot's numbers, an export."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from flowdeck_devtools.core.asking import Answer
from flowdeck_devtools.core.text import clean

__all__ = ["EXAMPLES", "QueryHistory", "badge", "cell_text", "export", "plain", "plot_columns"]

KEPT = 200

EXAMPLES: tuple[tuple[str, str], ...] = (
    (
        "flows: runs, failures, p95",
        "select flow_name, count(*) runs, count(*) filter (status = 'failed') failed,\n"
        "  quantile_cont(duration_ms, 0.95) p95_ms\nfrom runs group by 1 order by runs desc",
    ),
    ("errors, grouped", "select * from error_groups"),
    ("slowest steps", "select flow_name, step_name, duration_ms, run_id from spans order by duration_ms desc limit 50"),
    (
        "what waited for people",
        "select flow_name, type, status, actor, wait_ms from interrupts order by raised_at desc",
    ),
    (
        "events per minute",
        "select time_bucket(interval 1 minute, ts) as minute, count(*) as events from events group by 1 order by 1",
    ),
    ("tokens by model", "select * from model_usage"),
)
"""Queries to begin with."""


class QueryHistory:
    """Queries asked before, the latest first, in a file only its author can read. Without the file it forgets."""

    def __init__(self, path: Path | None = None) -> None:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        self.path = path or Path(state).expanduser() / "flowdeck" / "devtools_sql.jsonl"
        self.queries: list[str] = []
        with suppress(OSError, ValueError):
            lines = self.path.read_text("utf-8").splitlines()[-KEPT:]
            self.queries = [one for one in (json.loads(line) for line in reversed(lines)) if isinstance(one, str)]

    def add(self, query: str) -> None:
        """Remember a query; one that was asked before moves to the top."""
        query = query.strip()
        if not query or (self.queries and self.queries[0] == query):
            return
        self.queries = [query, *(one for one in self.queries if one != query)][:KEPT]
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in reversed(self.queries))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)


def badge(kind: str) -> str:
    """A SQL type in two or three signs, as a header shows it."""
    kind = kind.upper()
    if any(name in kind for name in ("INT", "HUGE")):
        return "##"
    if any(name in kind for name in ("DOUBLE", "FLOAT", "DECIMAL")):
        return "#.#"
    if any(name in kind for name in ("TIME", "DATE", "INTERVAL")):
        return "t"
    if kind == "BOOLEAN":
        return "b"
    return "{}" if "JSON" in kind or "STRUCT" in kind or "MAP" in kind or "[]" in kind else "s"


def cell_text(value: Any) -> str:
    """A value as a table shows it, on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal):
        number = float(value)
        return f"{number:,.3f}".rstrip("0").rstrip(".") if math.isfinite(number) else str(number)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "milliseconds")
    return clean(str(plain(value)).replace("\n", "⏎"), limit=400)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    return str(value)


def export(answer: Answer, path: Path) -> int:
    """Write the rows of an answer as ``.csv``, ``.json``, ``.jsonl`` or ``.md``; return how many.

    Raises:
        ValueError: The name has none of these endings.
        OSError: It cannot be written.
    """
    writers = {".csv": _write_csv, ".json": _write_json, ".jsonl": _write_lines, ".md": _write_markdown}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"{path.name}: a file's name ends with {', '.join(writers)}")
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        write(answer, file)
    return len(answer.rows)


def _write_csv(answer: Answer, file: Any) -> None:
    writer = csv.writer(file)
    writer.writerow(answer.columns)
    writer.writerows([plain(value) if value is not None else "" for value in row] for row in answer.rows)


def _records(answer: Answer) -> Iterable[dict[str, Any]]:
    return ({name: plain(value) for name, value in zip(answer.columns, row, strict=True)} for row in answer.rows)


def _write_json(answer: Answer, file: Any) -> None:
    json.dump(list(_records(answer)), file, ensure_ascii=False, indent=1)


def _write_lines(answer: Answer, file: Any) -> None:
    file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in _records(answer))


def _write_markdown(answer: Answer, file: Any) -> None:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    file.write(line(answer.columns) + line("---" for _ in answer.columns))
    file.writelines(line(cell_text(value) for value in row) for row in answer.rows)


def plot_columns(answer: Answer) -> tuple[str, list[tuple[str, list[float | None]]]]:
    """What of an answer can be drawn: the name of the first column, and every numeric column's values by row."""
    series: list[tuple[str, list[float | None]]] = []
    for place, (name, kind) in enumerate(zip(answer.columns, answer.types, strict=True)):
        if badge(kind) in ("##", "#.#") and (place > 0 or len(answer.columns) == 1):
            series.append((name, [_number(row, place) for row in answer.rows]))
    return (answer.columns[0] if answer.columns else ""), series


def _number(row: Sequence[Any], place: int) -> float | None:
    value = row[place]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
