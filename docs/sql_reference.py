"""Writes the tables of docs/sql.md from the real views and macros: ``python -m docs.sql_reference``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flowdeck.layout import Layout
from flowdeck_sinks.store import StoreConnection, connect
from flowdeck_sinks.store.views import MACROS, VIEWS

__all__ = ["PAGE", "reference", "replaced"]

PAGE = Path(__file__).parent / "sql.md"
BEGIN = "<!-- made by python -m docs.sql_reference -->\n"
END = "<!-- end -->\n"
ARGUMENTS = {"run_events": "'x'", "run_tree": "'x'", "diff_runs": "'x', 'y'", "why": "'x'"}


def reference() -> str:
    """Return the Markdown of every view and macro, column by column, types as DuckDB gives them."""
    with tempfile.TemporaryDirectory() as directory:
        layout = Layout.create(Path(directory) / "store")
        with connect(layout.root) as connection:
            parts = ["## Views\n"]
            for view in VIEWS:
                parts += [f"### {view.name}\n", f"{view.summary}\n", _table(connection, view.name, view.columns)]
            parts.append("## Macros\n")
            for macro in MACROS:
                call = f"{macro.name}({ARGUMENTS.get(macro.name, '')})"
                parts += [f"### {macro.name}({', '.join(macro.parameters)})\n", f"{macro.summary}\n"]
                if macro.like:
                    parts.append(f"Columns: as [{macro.like}](#{macro.like}).\n")
                else:
                    parts.append(_table(connection, call, macro.columns))

    return "\n".join(parts)


def replaced(page: str) -> str:
    """Return ``page`` with what stands between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def _table(connection: StoreConnection, source: str, columns: dict[str, str]) -> str:
    lines = ["| column | type | |", "|---|---|---|"]
    for name, kind, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall():
        lines.append(f"| `{name}` | {kind} | {columns[name]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
