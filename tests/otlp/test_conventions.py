"""One table of names: what the documentation shows, and what the package writes."""

from __future__ import annotations

import re
from pathlib import Path

from opentelemetry.semconv.schemas import Schemas
from tests.otlp.golden import FOLDER

from flowdeck_sinks.otlp import conventions

PAGE = Path(__file__).parents[2] / "docs" / "traces.md"
PACKAGE = Path(conventions.__file__).parent


def test_the_documentation_shows_the_table() -> None:
    """docs/traces.md holds the tables of attributes and metrics as they are."""
    page = PAGE.read_text(encoding="utf-8")
    assert conventions.attributes_markdown() in page, "python -m tests.otlp.tables writes them anew"
    assert conventions.instruments_markdown() in page, "python -m tests.otlp.tables writes them anew"


def test_every_name_in_a_golden_trace_is_in_the_table() -> None:
    """No span, event or link carries a name of its own; resources have theirs."""
    for path in sorted(FOLDER.glob("*.json")):
        names = set(re.findall(r'"key": "([^"]+)"', path.read_text(encoding="utf-8")))
        assert names - {"service.name", "service.instance.id"} <= set(conventions.ATTRIBUTES), path.name


def test_names_stand_in_the_table_alone() -> None:
    """Mapping code spells no attribute name: it takes them from the table."""
    spelled = re.compile(rf'"({"|".join(map(re.escape, conventions.ATTRIBUTES))})"')
    for name in ("attributes", "building", "folding", "logs", "payloads", "finishing", "mapper"):
        found = spelled.findall((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
        assert not found, f"{name}.py spells {found}"


def test_the_version_is_pinned_to_a_published_schema() -> None:
    """The semantic conventions' version is one the SDK knows."""
    assert conventions.SCHEMA_URL in {schema.value for schema in Schemas}
    assert len({item.name for item in conventions.ATTRIBUTES.values()}) == len(conventions.ATTRIBUTES)
