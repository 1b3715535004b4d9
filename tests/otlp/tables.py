"""Writes the generated tables of docs/traces.md anew: ``python -m tests.otlp.tables``."""

from __future__ import annotations

import re
from pathlib import Path

from flowdeck_sinks.otlp.conventions import attributes_markdown, instruments_markdown

PAGE = Path(__file__).parents[2] / "docs" / "traces.md"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("attributes", attributes_markdown()), ("metrics", instruments_markdown())):
        between = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text, found = between.subn(lambda match, table=table: match[1] + table + match[2], text)  # type: ignore[misc]
        assert found == 1, f"docs/traces.md has no place for the table of {name}"

    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
