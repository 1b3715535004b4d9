"""docs/sql.md is true: its tables are the real views, and its queries run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from docs.sql_reference import PAGE, replaced
from tests.sinks.support import Story

from flowdeck_sinks.journal import JournalSink
from flowdeck_sinks.store import Reader

TEXT = PAGE.read_text(encoding="utf-8")
QUERIES = re.findall(r"^(\S[^\n]*):\n\n```sql\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_tables_are_those_of_the_views() -> None:
    """Every view and macro is there, column by column with its type: `python -m docs.sql_reference` makes it so."""
    assert replaced(TEXT) == TEXT


def test_there_are_twenty_queries() -> None:
    """At least as many as the heading promises, and each block of SQL is one of them."""
    assert len(QUERIES) >= 20
    assert len(QUERIES) == TEXT.count("```sql")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A store with a run, a question and a failure in it."""
    sink = JournalSink(tmp_path_factory.mktemp("docs") / "store")
    story = Story(sink)
    run = story.execution("e1", tenant_id="acme", task_id="invoice-4711")
    story.tell(run, "triggerflow.execution_started")
    step = story.chunk(run, "fetch")
    story.tell(step, "chunk.completed", {"output": {"order": 4711}}, scope="fetch", duration_us=10)
    story.tell(step, "triggerflow.interrupt_raised", {"interrupt": {"id": "i", "payload": {"question": "May we?"}}})
    story.tell(run, "triggerflow.execution_failed", error=ValueError("x"))
    sink.close()
    return Reader(sink.store)


@pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[what[:40] for what, _ in QUERIES])
def test_a_query_runs(reader: Reader, query: str) -> None:
    """It is one query, and it answers."""
    list(reader.query(query))


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells run from top to bottom as they are, and find what the flow in it did."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    notebook = json.loads((Path(__file__).parents[2] / "examples" / "event_history.ipynb").read_text(encoding="utf-8"))
    space: dict[str, Any] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
    assert space["by_status"] == {"completed": 26, "failed": 4}
    assert space["faults"] == [("ValueError", "order # has no price", 8, 4, ["price"])]
    assert [row[0] for row in space["tree"]] == ["orders", "  price", "  price"]
    assert [row[2] for row in space["story"]][-1] == "triggerflow.execution_started"
    assert space["total"] == 10 * sum(number for number in range(30) if number % 7 != 3)
