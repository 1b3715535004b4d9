"""Runs: every recent run, newest first, live; below it the shape of the one under the cursor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical

from flowdeck_devtools.core.columns import Column
from flowdeck_devtools.core.facts import copy_run, place_label, store_name
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.status import ORDER, glyph
from flowdeck_devtools.core.text import clean, count, day_time, duration, short_id, sparkline
from flowdeck_devtools.filter import compile_fields
from flowdeck_devtools.filter.complete import counted_fields
from flowdeck_devtools.tui.screens.base import DeckScreen, scoped
from flowdeck_devtools.tui.screens.dialogs import PickDialog
from flowdeck_devtools.tui.screens.views import ViewsMixin
from flowdeck_devtools.tui.theme import STATUS_ROLES
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.filterbar import FilterBar
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.vtable import Cell, VirtualTable
from flowdeck_devtools.tui.widgets.waterfall import Waterfall

__all__ = ["RunsScreen"]

COLUMNS = (
    Column("status", "STATUS", 12),
    Column("flow", "FLOW", 14, flex=2, most=32),
    Column("run", "RUN", 8, priority=3),
    Column("started", "STARTED", 8, priority=1),
    Column("duration", "DUR", 8, align="right"),
    Column("events", "EVENTS", 7, align="right", priority=4),
    Column("errors", "ERR", 4, align="right", priority=2),
    Column("activity", "LAST MINUTE", 12, priority=5),
    Column("step", "STEP", 14, flex=3),
)
COUNT_US = 250_000
"""How long counts that only grow may stay as they are."""
MIN_PREVIEW_HEIGHT = 30
READ_ON_ROWS = 100
"""Rows left below the cursor when older runs are asked for."""
PREVIEW_AFTER_TICKS = 2
"""Ticks the cursor must rest on a run before its shape is read for the preview."""


class RunsScreen(ViewsMixin, DeckScreen):
    """The list of runs."""

    place: ClassVar[str] = "runs"
    BINDINGS: ClassVar[list[BindingType]] = scoped("runs")
    AUTO_FOCUS = "#runs"

    def __init__(self) -> None:
        super().__init__()
        self._passes: Callable[[Mapping[str, Any]], bool] | None = None
        self._fast: tuple[object, ...] = ()
        self._counted = (-1, -1)
        self._counted_at = 0
        self._shown_times: list[object] = []
        self._looked = ""
        """The filter for which the past was asked last."""
        self._open = False
        self._filters = 0
        self._rested = 0
        self._previewed = ""
        self._marked: list[str] = []
        """Runs to compare."""

    def body(self) -> ComposeResult:
        stores = self.session.stores
        self._place = ", ".join(place_label(store) for store in stores)
        columns = (
            COLUMNS if len(stores) == 1 else (COLUMNS[0], Column("store", "STORE", 10, most=18, flex=1), *COLUMNS[1:])
        )
        self.headline = HeadLine(id="headline")
        self.bar = FilterBar("status:failed flow:audit* -task:nightly …", id="filter")
        self.table = VirtualTable[RunRow](columns, self._cell, lambda row: row.run_id, id="runs")
        self.preview = Waterfall(self.session.clock, id="preview", preview=True)
        self.bar.counts = lambda: counted_fields(row.fields() for row in self.session.runs())
        yield self.headline
        yield self.bar
        with Vertical(id="runs-pane", classes="pane"):
            yield self.table
        with Vertical(id="preview-pane", classes="pane quiet"):
            yield self.preview

    def on_mount(self) -> None:
        self.query_one("#runs-pane").border_title = "runs"
        self.query_one("#preview-pane").border_title = "preview"

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        index, now = self.session.live.index, self.session.clock.now_us()
        # A run that comes or changes its status shows at once; counts move four times a second. Even if no event came,
        # durations grow once a second while a run is open, and activity moves on.
        counted = (index.version, now // (1_000_000 if self._open else 5_000_000))
        live = self.session.live
        pause = COUNT_US * 2 if live.flooding else COUNT_US
        older = self.session.older_version
        fast = (index.structure, older, self._filters, live.missing, live.problem, live.caught_up.is_set())
        if fast == self._fast and counted[0] == self._counted[0] and self._times(now) == self._shown_times:
            self._counted = counted  # time went on, but nothing that is shown is another
        if fast != self._fast or (counted != self._counted and now - self._counted_at >= pause):
            self._fast, self._counted, self._counted_at = fast, counted, now
            self._show_rows()
            self._preview(grown=True)
        else:
            self._preview(grown=False)
        self._look_back()

    def _times(self, now: int) -> list[object]:
        """What of the visible rows moves on with time alone."""
        table = self.table
        rows = table.rows[table.offset_row : table.offset_row + table.page]
        return [(duration(row.duration_us(now)), row.activity.last_minute(now)) for row in rows if row.is_open]

    def _look_back(self) -> None:
        """Read on in the past when the cursor comes near the end, or a filter has to look there."""
        table = self.table
        if table.cursor + READ_ON_ROWS < len(table.rows) and self._looked == self.bar.filter_text:
            return
        oldest = table.rows[-1].started_us if table.rows and self._looked == self.bar.filter_text else None
        if self.session.want_older(self.bar.filter_text, oldest):
            self._looked = self.bar.filter_text

    def _show_rows(self) -> None:
        rows = self.session.runs()
        passes, now = self._passes, self.session.clock.now_us()
        shown = rows if passes is None else [row for row in rows if passes(row.fields(now))]
        table = self.table
        table.empty = self._empty_text(len(rows))
        table.show(shown)
        self.bar.note(
            f"{count(len(shown))} of {count(len(rows))}"
            if passes
            else f"{count(len(rows))} run{'' if len(rows) == 1 else 's'}"
        )
        self._open = any(row.is_open for row in rows)
        self._headline(rows)
        self._shown_times = self._times(now)

    def _headline(self, rows: list[RunRow]) -> None:
        counts = Counter(row.status for row in rows)
        left: list[tuple[str, str]] = [(" Runs ", "strong")]
        for status in ORDER:
            if counts[status] and status != "unknown":
                role = STATUS_ROLES.get(status, "dim")
                left += [("  ", ""), (f"{glyph(status)} {counts[status]} {status}", role)]
        live = self.session.live
        right: list[tuple[str, str]] = [(f"{self._place} ", "faint")]
        if self.session.history.problem:
            right = [(f"history: {clean(self.session.history.problem)} ", "failed")]
        if live.problem:
            left = [(" ✗ ", "failed"), (clean(live.problem), "failed")]
        self.headline.show(left, right)

    def _empty_text(self, total: int) -> list[tuple[str, str]]:
        live = self.session.live
        if live.problem:
            return [("The store cannot be read", "failed"), (clean(live.problem), "text"), ("Looking again …", "dim")]
        if total:
            return [(f"0 of {count(total)} runs match", "strong"), ("esc in the filter clears it", "dim")]
        if live.missing:
            return [
                ("No store here yet", "strong"),
                (self._place, "dim"),
                ("", ""),
                ("It appears with the first observed run.", "dim"),
                ("Try in another terminal:  flowdeck demo", "text"),
            ]
        if not live.caught_up.is_set():
            return [("Reading the journal …", "dim")]
        return [
            ("No runs yet", "strong"),
            ("", ""),
            ("Try in another terminal:  flowdeck demo", "text"),
            ("or in your code:  flowdeck.runtime.observe(store=True)", "dim"),
        ]

    def _cell(self, row: RunRow, column: str) -> Cell:
        now = self.session.clock.now_us()
        status = row.status
        match column:
            case "status":
                return f"{glyph(status)} {status}", STATUS_ROLES.get(status, "dim")
            case "flow":
                mark = "◆ " if row.run_id in self._marked else ""
                return mark + clean(row.name or row.kind or "run"), "strong" if row.is_open else "text"
            case "store":
                return store_name(self.session.store_of(row)), "violet"
            case "run":
                return short_id(clean(row.run_id)), "dim"
            case "started":
                return day_time(row.started_us, now), "dim"
            case "duration":
                return duration(row.duration_us(now)) + ("…" if row.is_open else ""), "text" if row.is_open else "dim"
            case "events":
                return count(row.events), "dim"
            case "errors":
                return (count(row.errors), "failed") if row.errors else ("", "dim")
            case "activity":
                values = row.activity.last_minute(now)
                return (sparkline(values), "running") if any(values) else ("", "faint")
        if status in ("failed", "lost") and row.error:
            return clean(row.error), "failed"
        return clean(row.step()), "dim"

    # -- preview -----------------------------------------------------------------------------------------------

    def _preview(self, *, grown: bool) -> None:
        """Show the shape of the run the cursor rests on; ``grown`` says that something may have happened in it."""
        row, preview = self.table.current, self.preview
        if row is None or self.size.height < MIN_PREVIEW_HEIGHT:
            preview.show(None)
            return
        is_new = row.run_id != self._previewed
        if is_new:
            self._rested += 1
            if self._rested < PREVIEW_AFTER_TICKS:
                return
            self._previewed = row.run_id
        self._rested = 0
        run = self.session.open_run(row.run_id, again=is_new)
        if grown or run.loading or preview.outline is None:
            run.advance()
            if row.name:
                run.trace.root.title = clean(row.name)
            preview.show(run.trace)
            preview.tick()

    # -- actions -----------------------------------------------------------------------------------------------

    @on(FilterBar.Changed)
    def _filtered(self, event: FilterBar.Changed) -> None:
        self._passes = compile_fields(event.text, self.session.clock.now_us) if event.text else None
        self._filters += 1
        self.tick()

    @on(FilterBar.Left)
    def _filter_left(self) -> None:
        self.table.focus()

    @on(LineView.Activated, "#runs")
    def _activated(self) -> None:
        self.action_open_run()

    def action_open_run(self) -> None:
        row = self.table.current
        if row is not None:
            self.deck.open_run(row.run_id)

    def action_filter(self) -> None:
        self.bar.edit()

    def action_mark(self) -> None:
        """Mark the run for a comparison; a third one takes the place of the first."""
        row = self.table.current
        if row is None:
            return
        if row.run_id in self._marked:
            self._marked.remove(row.run_id)
        else:
            self._marked = [*self._marked, row.run_id][-2:]
        self.table.action_row(1)
        self._fast = ()
        self.tick()

    def action_compare(self) -> None:
        """Compare the two marked runs, or the marked one with that under the cursor."""
        row = self.table.current
        chosen = [*self._marked]
        if len(chosen) == 1 and row is not None and row.run_id != chosen[0]:
            chosen.append(row.run_id)
        if len(chosen) < 2:
            self.notify("mark two runs with space, then d compares them", timeout=3)
            return
        from flowdeck_devtools.tui.screens.comparison import ComparisonDialog

        self.app.push_screen(ComparisonDialog(chosen[0], chosen[1]))

    @work(thread=True, name="error-groups", group="errors", exclusive=True, exit_on_error=False)
    def action_errors(self) -> None:
        """Faults by kind over all runs; choosing one opens the run that met it last."""
        try:
            groups = self.session.history.error_groups()
        except Exception as error:  # the store's words name the mend
            self.app.call_from_thread(self.notify, clean(str(error)), severity="error", markup=False)
            return
        self.app.call_from_thread(self._show_errors, groups)

    def _show_errors(self, groups: list[dict[str, Any]]) -> None:
        if not groups:
            self.notify("no errors in this store", timeout=3)
            return
        rows = [
            (f"{one['occurrences']}×  {one['error_type']}", f"{one['shape']}  in {one['executions']} runs")
            for one in groups
        ]

        def chosen(index: int | None) -> None:
            run = self.session.run_of_execution(groups[index]["last_execution_id"]) if index not in (None, -1) else None
            if run is not None:
                self.deck.open_run(run.run_id)
            elif index not in (None, -1):
                self.notify("that run is not among those listed: flowdeck show finds it", timeout=4)

        self.app.push_screen(PickDialog("Errors by kind", rows), chosen)

    def action_follow(self) -> None:
        self.table.follow = not self.table.follow
        self._fast = ()
        self.notify("following the newest run" if self.table.follow else "the cursor stays on its run", timeout=2)

    def back(self) -> bool:
        if self.bar.filter_text or self.bar.error:
            self.bar.clear()
            self.table.focus()
            return True
        return False

    def subject(self) -> RunRow | None:
        return self.table.current

    def copy_choices(self) -> list[tuple[str, str]]:
        row = self.table.current
        return copy_run(row, self.session.store_of(row)) if row is not None else []

    def zone_changed(self) -> None:
        self._fast = ()
