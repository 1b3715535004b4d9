"""SQL: a query on top, its rows below. It only reads; nothing waits for it, and escape stops it."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content

from flowdeck_devtools.core.asking import Answer
from flowdeck_devtools.core.facts import python_query, store_name, store_option
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.sqlbook import EXAMPLES, QueryHistory, cell_text, export, plain, plot_columns
from flowdeck_devtools.core.text import clean, count
from flowdeck_devtools.tui.screens.asking import AskDialog, Asked
from flowdeck_devtools.tui.screens.base import scoped
from flowdeck_devtools.tui.screens.dialogs import PickDialog
from flowdeck_devtools.tui.screens.stores import StoreChoice
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.catalog import Catalog
from flowdeck_devtools.tui.widgets.jsonview import JsonView
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.plot import LinePlot, Series
from flowdeck_devtools.tui.widgets.results import ResultTable
from flowdeck_devtools.tui.widgets.sqleditor import CompletionLine, SqlEditor

__all__ = ["SqlScreen"]

_RUN_COLUMNS = ("root_run_id", "run_id", "execution_id")


class SqlScreen(StoreChoice):
    """Catalog, editor, rows. Of several stores the rows stand one below the other, with the store before them."""

    place: ClassVar[str] = "sql"
    BINDINGS: ClassVar[list[BindingType]] = scoped("sql")
    AUTO_FOCUS = "#results"  # so that digits go on leading to other places; i goes to the query

    def __init__(self) -> None:
        super().__init__()
        self._seen = -1
        self._answer: Answer | None = None

    def body(self) -> ComposeResult:
        self.question = self.session.question()
        self.history = QueryHistory()
        self.headline = HeadLine(id="headline")
        self.catalog = Catalog(id="catalog")
        self.editor = SqlEditor(EXAMPLES[0][1], id="query")
        self.completions = CompletionLine(id="completions")
        self.results = ResultTable(id="results")
        self.plot = LinePlot(id="plot")
        self.viewer = JsonView(id="row")
        self.results_pane = Vertical(self.results, self.plot, id="results-pane", classes="pane")
        yield self.headline
        with Horizontal(id="sql-panes"):
            with Vertical(id="catalog-pane", classes="pane"):
                yield self.catalog
            with Vertical(id="sql-work"):
                with Vertical(id="query-pane", classes="pane"):
                    yield self.editor
                yield self.completions
                yield self.results_pane
            with Vertical(id="row-pane", classes="pane"):
                yield self.viewer

    def on_mount(self) -> None:
        self.query_one("#catalog-pane").border_title = "catalog"
        self.query_one("#query-pane").border_title = "query"
        self.query_one("#row-pane").border_title = "row"
        self.results_pane.border_title = "rows"
        self.plot.display = self.query_one("#row-pane").display = False
        self.query_one("#catalog-pane").display = self.app.size.width >= 110
        self.results.empty = [
            ("Ask the event history", "strong"),
            ("i edits the query   ^j runs it   F2 examples   tab completes", "dim"),
        ]
        self.completions.offer([])

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        question = self.question
        if question.version != self._seen and question.answer is not None:
            self._seen = question.version
            self._take(_with_store(question.answer))
        self._headline()

    def _headline(self) -> None:
        question, answer = self.question, self._answer
        left: list[tuple[str, str]] = [(" SQL ", "strong"), (" read-only ", "dim"), *self.store_words]
        if question.running:
            left.append((f"  … {time.monotonic() - question.begun:.1f} s   esc stops it", "waiting"))
        elif answer is not None and answer.problem:
            left.append((f"  ✗ {answer.problem}", "failed"))
        elif answer is not None:
            more = f"+ (the first {count(len(answer.rows))} are shown)" if answer.cut else ""
            rows = f"{count(len(answer.rows))}{more} row{'' if len(answer.rows) == 1 else 's'}"
            left.append((f"  {rows}  {answer.seconds:.3f} s", "ok"))
            if answer.unanswered:
                left.append((f"  ✗ {answer.unanswered}", "failed"))
        self.headline.show(left, [(f"at most {count(question.limit)} rows ", "faint")])

    def _take(self, answer: Answer) -> None:
        self._answer = answer
        if answer.problem is not None:
            return  # the last good rows stay
        self.results.show_answer(answer)
        self.results.empty = [("no rows", "dim")]
        self.results_pane.border_title = Content(f"rows {count(len(answer.rows))}")
        self._draw_plot()
        self._show_row()

    # -- the query ---------------------------------------------------------------------------------------------

    @on(SqlEditor.Offers)
    def _offered(self, event: SqlEditor.Offers) -> None:
        self.completions.offer(event.offers)

    def action_run(self) -> None:
        query = self.editor.selected_text or self.editor.text
        query = query.strip().rstrip(";")
        if query:
            self.history.add(query)
            self.question.ask(query, only=self.only)
            self._headline()

    def store_chosen(self) -> None:
        if self._answer is not None:
            self.action_run()
        self._headline()

    def action_history(self) -> None:
        self._pick("Asked before", [(query.replace("\n", " "), "", query) for query in self.history.queries])

    def action_examples(self) -> None:
        self._pick("Examples", [(label, query.replace("\n", " "), query) for label, query in EXAMPLES])

    def _pick(self, title: str, rows: list[tuple[str, str, str]]) -> None:
        if not rows:
            self.notify("nothing was asked yet", timeout=2)
            return

        def picked(index: int | None) -> None:
            if index is not None and index >= 0:
                self.editor.text = rows[index][2]
                self.editor.move_cursor(self.editor.document.end)
                self.editor.focus()

        self.app.push_screen(PickDialog(title, [(left, right) for left, right, _ in rows]), picked)

    @on(LineView.Activated, "#catalog")
    def _chosen(self) -> None:
        text = self.catalog.chosen()
        if text:
            self.editor.insert(text)
            self.editor.focus()

    def action_catalog(self) -> None:
        pane = self.query_one("#catalog-pane")
        pane.display = not pane.display
        (self.catalog if pane.display else self.editor).focus()

    def action_edit(self) -> None:
        self.editor.focus()

    # -- the rows ----------------------------------------------------------------------------------------------

    @on(LineView.Highlighted, "#results")
    def _moved(self) -> None:
        self._show_row()

    @on(LineView.Activated, "#results")
    def _activated(self) -> None:
        row = self.subject()
        if row is not None:
            self.deck.open_run(row.run_id)
        else:
            self.action_inspect()

    def _record(self) -> dict[str, Any] | None:
        row, answer = self.results.current, self._answer
        if row is None or answer is None or len(row[1]) != len(answer.columns):
            return None
        return {name: _opened(value) for name, value in zip(answer.columns, row[1], strict=True)}

    def _show_row(self) -> None:
        record = self._record()
        if record is not None and self.query_one("#row-pane").display:
            self.viewer.show((self._seen, self.results.cursor), [("", record, "title")])

    def subject(self) -> RunRow | None:
        record = self._record() or {}
        for name in _RUN_COLUMNS:
            value = record.get(name)
            row = self.session.find_run(value) if isinstance(value, str) and value else None
            if row is not None:
                return row
        return None

    def action_open_run(self) -> None:
        row = self.subject()
        if row is None:
            self.notify("this row names no run that is in view", severity="warning", timeout=3)
        else:
            self.deck.open_run(row.run_id)

    def action_inspect(self) -> None:
        pane = self.query_one("#row-pane")
        pane.display = not pane.display
        self._show_row()

    def action_sideways(self, step: int) -> None:
        if self.focused is self.catalog:
            self.catalog.fold(step > 0)
        else:
            self.results.sideways(step)

    def action_plot(self) -> None:
        self.plot.display = not self.plot.display
        self.results.display = not self.plot.display
        (self.plot if self.plot.display else self.results).focus()
        self._draw_plot()

    def _draw_plot(self) -> None:
        answer = self._answer
        if not self.plot.display or answer is None or answer.problem is not None:
            return
        _, series = plot_columns(answer)
        ends = ("", "")
        if answer.rows:
            ends = (cell_text(answer.rows[0][0]), cell_text(answer.rows[-1][0]))
        self.plot.show([Series(name, values) for name, values in series[:5]], ends)

    def action_export(self) -> None:
        answer = self._answer
        if answer is None or not answer.columns:
            self.notify("there are no rows yet", timeout=2)
            return

        def answered(values: dict[str, Any] | None) -> None:
            if values is None:
                return
            path = Path(values["file"]).expanduser()
            try:
                rows = export(answer, path)
            except (OSError, ValueError) as error:
                self.notify(clean(str(error)), severity="error", timeout=6, markup=False)
            else:
                self.notify(f"{count(rows)} rows in {path}", timeout=4, markup=False)

        fields = [Asked("file", "rows.csv, .json, .jsonl or .md", required=True)]
        lines = [f"{count(len(answer.rows))} rows; a file of that name is replaced"]
        self.app.push_screen(AskDialog("Export the rows?", lines, fields, "Export"), answered)

    # -- leaving -----------------------------------------------------------------------------------------------

    def back(self) -> bool:
        if self.question.cancel():
            return True
        if self.plot.display:
            self.action_plot()
            return True
        if self.focused is self.editor:
            self.results.focus()  # from there digits and letters are keys again
            return True
        return False

    def copy_choices(self) -> list[tuple[str, str]]:
        query = self.editor.text.strip()
        asked = self.session.stores if self.only is None else (self.only,)
        commands = [f"flowdeck sql {shlex.quote(query)}{store_option(store)}" for store in asked]
        choices = [
            ("query", query),
            ("command", "\n".join(commands)),
            ("Python", "\n".join(python_query(query, store) for store in asked)),
        ]
        record = self._record()
        if record is not None:
            choices.insert(0, ("row as JSON", json.dumps(record, ensure_ascii=False, indent=2)))
        return choices


def _with_store(answer: Answer) -> Answer:
    """The store of each row as its first column, where several were asked."""
    if not answer.origins:
        return answer
    rows = tuple((store_name(store), *row) for store, row in zip(answer.origins, answer.rows, strict=True))
    return replace(answer, columns=("store", *answer.columns), types=("VARCHAR", *answer.types), rows=rows)


def _opened(value: Any) -> Any:
    """A value for the viewer: JSON text as what it says."""
    value = plain(value)
    if isinstance(value, str) and value[:1] in "{[" and value[:1]:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
