"""Every error leads to a page, and `flowdeck docs` shows it."""

from __future__ import annotations

import builtins
import re
import sqlite3
from pathlib import Path

import duckdb
import pytest

from flowdeck._error_docs import BELOW, PAGES, page_of
from flowdeck.durable import AmbiguousInterrupt
from flowdeck.errors import ExecutionFenced, InterventionNotFound, ModelStreamCut
from flowdeck.layout import StoreForeign, StoreNotFound
from flowdeck_devtools.cli._app import run
from flowdeck_devtools.cli._errors import CliError, explain
from flowdeck_devtools.cli._pages import headings, page_names, page_text, section
from flowdeck_devtools.cli.docs import page_of_error
from flowdeck_sinks.store import QueryRefused

ROOT = Path(__file__).parents[2]
_CLASS = re.compile(r"^class (\w+)\(([\w., ]+)\):", re.MULTILINE)
_INTERNAL = {
    "CommittedFailure",
    "CursorBusy",
    "Missing",
    "OutputClosed",
    "RecordedError",
    "Refused",
    "Stopped",
    "TapeMiss",
}
"""Caught by their own room: nobody sees them."""


def classes() -> dict[str, tuple[str, list[str]]]:
    """Every class of the four packages: its module and the names of the classes it is made of."""
    return {
        name: (
            ".".join(file.relative_to(ROOT / room).with_suffix("").parts),
            [base.strip().rpartition(".")[2] for base in given.split(",")],
        )
        for room in ("runtime", "sinks", "evals", "devtools")
        for file in (ROOT / room).rglob("*.py")
        for name, given in _CLASS.findall(file.read_text(encoding="utf-8"))
    }


def errors(found: dict[str, tuple[str, list[str]]] | None = None) -> dict[str, set[str]]:
    """Every public error and warning of the four packages, with the names of all classes it is."""
    bases = {name: above for name, (_, above) in (found or classes()).items()}

    def above(name: str) -> set[str]:
        return {name}.union(*(above(base) for base in bases.get(name, ())))

    raised = {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    return {name: above(name) for name in bases if not name.startswith("_") and above(name) & raised}


def test_every_error_has_a_page_and_a_heading_that_exist() -> None:
    """Its own or that of a class above it; the table names no class that has gone."""
    known = errors()
    assert len(known) > 70 and not {*PAGES, *BELOW} - known.keys() and not _INTERNAL - known.keys()
    lost = {name for name, classes in known.items() if not classes & PAGES.keys()}
    assert lost == _INTERNAL and CliError.docs == PAGES["CliError"]
    for name, place in {**PAGES, "duckdb": "sql#views"}.items():
        page, _, slug = place.partition("#")
        assert page in page_names(), (name, place)
        assert not slug or section(page_text(page), slug), (name, place)


def test_every_error_is_found_by_its_name() -> None:
    """Alone and with its module, as a traceback shows it; what only has such a name is not ours."""
    found = classes()

    def nearest(name: str) -> str | None:
        _, above = found.get(name, ("", []))
        return PAGES.get(name) or next(filter(None, map(nearest, above)), None)

    for name in errors(found).keys() - _INTERNAL:
        page = nearest(name)
        assert page is not None
        for written in (name, f"{found[name][0]}.{name}", f"{found[name][0]}.{name}:"):
            assert page_of_error(written) == page, f"{written}: its line in BELOW is missing or wrong"

    assert page_of_error("their.StoreError") is page_of_error("durable.md") is page_of_error("Forename") is None


def test_an_error_and_the_command_line_name_the_page() -> None:
    """Once; below a drawing, on a line of its own."""
    assert (ModelStreamCut("cut").docs, ExecutionFenced("x").docs) == (PAGES["ModelError"], PAGES["ExecutionFenced"])
    broken = duckdb.connect()
    with pytest.raises(duckdb.Error) as wrong:
        broken.execute("select nothing_of_that_name")

    for error, told in (
        (StoreNotFound("There is no store."), "There is no store; see: flowdeck docs store"),
        (StoreForeign("Not ours."), f"Not ours; see: flowdeck docs {PAGES['StoreError']}"),
        (StoreNotFound("See: flowdeck docs scale."), "See: flowdeck docs scale."),
        (InterventionNotFound("gone"), "gone; see: flowdeck docs interventions#errors"),
        (QueryRefused("no"), "SQL: no; see: flowdeck docs sql#what-is-refused"),
        (sqlite3.OperationalError("locked"), f"see: flowdeck docs {PAGES['FlowdeckError']}"),
        (wrong.value, "^\n  see: flowdeck docs sql#views"),
        (CliError("as it is"), "as it is"),
    ):
        known = explain(error)
        assert known is not None and str(known).endswith(told), str(known)


def test_headings_are_addressed_as_on_the_site() -> None:
    """Also those with signs, numbers and code in them, and the second of a name."""
    toc = pytest.importorskip("markdown.extensions.toc")
    markdown = pytest.importorskip("markdown")
    for name in ("tutorial", "durable", "sql", "reference/commands", "reference/events"):
        made = markdown.Markdown(extensions=["fenced_code", toc.TocExtension(permalink=True)])
        ids = re.findall(r'<h\d id="([^"]+)"', made.convert(page_text(name)))
        assert [each.slug for each in headings(page_text(name))] == ids

    assert [each.slug for each in headings("# A `b`: c!\n```\n# no\n```\n## Twice\n## Twice\n")] == [
        "a-b-c",
        "twice",
        "twice_1",
    ]


def test_pages_are_read_at_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """By page, by heading, by the name of an error, by a word; what there is none of is told with what there is."""

    def told(*arguments: str, code: int = 0) -> str:
        assert run(["docs", *arguments]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    assert "durable" in told()
    part = told("durable#taking-up")
    assert part.startswith("## Taking up\n") and "## From any terminal" not in part
    assert told("flowdeck.errors.ModelStreamCut").startswith("## When it goes wrong\n")
    for error in (StoreForeign, StoreNotFound, AmbiguousInterrupt, QueryRefused):
        assert told(f"{error.__module__}.{error.__qualname__}") == told(error.__name__) == told(str(page_of(error)))

    assert told("docs/SQL.md").startswith("# Query")
    assert "operations#retention" in told("retention")
    assert "did you mean durable?" in told("durabel", code=2)
    assert "it has: what-is-promised" in told("durable#x", code=2)
