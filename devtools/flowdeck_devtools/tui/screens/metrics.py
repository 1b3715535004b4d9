"""Metrics: rates, percentiles, errors, waits, tokens and cost over a window that ends now."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid, Vertical

from flowdeck_devtools.core.braille import axis_label
from flowdeck_devtools.core.columns import Column
from flowdeck_devtools.core.metrics import WINDOWS, Board, Window, board, load_prices, sql, together
from flowdeck_devtools.core.text import clean, clock_time, count, duration
from flowdeck_devtools.tui.screens.base import scoped
from flowdeck_devtools.tui.screens.stores import StoreChoice
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.plot import LinePlot, Series
from flowdeck_devtools.tui.widgets.tiles import Tile, Tiles
from flowdeck_devtools.tui.widgets.vtable import Cell, VirtualTable

__all__ = ["MetricsScreen"]

REFRESH_SECONDS = 1.0
SLOW_FACTOR = 20
"""At most this part of the time is spent on asking; a large store is asked less often."""
_FLOW_COLUMNS = (
    Column("name", "FLOW", 16, flex=3),
    Column("runs", "RUNS", 7, align="right"),
    Column("failed", "FAILED", 7, align="right"),
    Column("p95", "P95", 8, align="right"),
    Column("share", "", 10, priority=1),
)
_MODEL_COLUMNS = (
    Column("name", "MODEL", 16, flex=3),
    Column("in", "TOKENS IN", 10, align="right"),
    Column("out", "OUT", 9, align="right"),
    Column("cost", "COST", 9, align="right"),
)
_PLOTS = ("runs", "duration", "errors", "tokens")
Flow = tuple[str, float, float, float | None]


class MetricsScreen(StoreChoice):
    """Tiles, four plots, two tables; on a narrow screen one plot at a time."""

    place: ClassVar[str] = "metrics"
    BINDINGS: ClassVar[list[BindingType]] = scoped("metrics")
    AUTO_FOCUS = "#plot-runs"

    def __init__(self) -> None:
        super().__init__()
        self._window = 1
        self._seen = -1
        self._asked_at = -1e9
        self._moved = (-1, -1)
        self._board: Board | None = None
        self._plot = 0

    def body(self) -> ComposeResult:
        self.question = self.session.question(100_000)
        self.prices = load_prices(*self.session.stores)
        self.headline = HeadLine(id="headline")
        self.tiles = Tiles(id="tiles")
        self.plots = {name: LinePlot(id=f"plot-{name}") for name in _PLOTS}
        self.flows = VirtualTable[Flow](_FLOW_COLUMNS, self._flow_cell, lambda one: one[0], id="flows")
        self.models = VirtualTable[Flow](_MODEL_COLUMNS, self._model_cell, lambda one: one[0], id="models")
        yield self.headline
        yield self.tiles
        with Grid(id="plots"):
            for name, plot in self.plots.items():
                with Vertical(id=f"pane-{name}", classes="pane"):
                    yield plot
        with Grid(id="tables"):
            with Vertical(id="flows-pane", classes="pane"):
                yield self.flows
            with Vertical(id="models-pane", classes="pane"):
                yield self.models

    def on_mount(self) -> None:
        titles = {"runs": "runs started", "duration": "duration", "errors": "errors by type", "tokens": "tokens"}
        for name, title in titles.items():
            self.query_one(f"#pane-{name}").border_title = title
        self.query_one("#flows-pane").border_title = "flows"
        self.query_one("#models-pane").border_title = "models"
        self.flows.follow = self.models.follow = False
        self.flows.empty = [("no run in this window", "dim")]
        self.models.empty = [("no model was called", "dim")]
        self._show_plots()

    def on_resize(self) -> None:  # type: ignore[override]
        self._show_plots()

    # -- keeping up --------------------------------------------------------------------------------------------

    @property
    def window(self) -> Window:
        return WINDOWS[self._window]

    def tick(self) -> None:
        now, answer = self.session.clock.monotonic(), self.question.answer
        pause = max(REFRESH_SECONDS, answer.seconds * SLOW_FACTOR if answer is not None else 0.0)
        # What is asked about is the journal and a window of time: neither moved, nothing to ask.
        moved = (self.session.live.index.version, self.session.clock.now_us() // (self.window.bucket * 1_000_000))
        if not self.question.running and moved != self._moved and now - self._asked_at >= pause:
            self._moved = moved
            self._ask()
        if self.question.version != self._seen:
            self._seen = self.question.version
            answer = self.question.answer
            if answer is not None and answer.problem is None and answer.label == self._label:
                rows = together(answer.rows) if self._several else answer.rows
                self._board = board(rows, self.window, self.prices)
                self._show()
        self._headline()

    def _ask(self) -> None:
        self._asked_at = self.session.clock.monotonic()
        query = sql(self.window, self.session.clock.now_us(), spread=self._several)
        self.question.ask(query, label=self._label, only=self.only)

    @property
    def _label(self) -> object:
        return self.window, self.only

    @property
    def _several(self) -> bool:
        """Numbers of several stores are put together."""
        return len(self.session.stores) > 1 and self.only is None

    def store_chosen(self) -> None:
        self._ask()
        self._headline()

    def _headline(self) -> None:
        left: list[tuple[str, str]] = [(" Metrics ", "strong"), (f"  last {self.window.label}", "text")]
        left.append((f"  a point is {duration(self.window.bucket * 1e6)}", "dim"))
        left += self.store_words
        answer = self.question.answer
        if answer is None or answer.label != self._label:
            left.append(("  reading …", "dim"))
        elif answer.problem and answer.problem != "stopped":
            left.append((f"  ✗ {answer.problem}", "failed"))
        elif answer.unanswered:
            left.append((f"  ✗ {answer.unanswered}", "failed"))
        right = self.prices.problem or ("" if self.prices.models else "no prices.toml: cost is unknown")
        self.headline.show(left, [(f"{clean(right)} ", "failed" if self.prices.problem else "faint")])

    def _show(self) -> None:
        shown = self._board
        if shown is None:
            return
        self.tiles.show(self._tiles(shown))
        now = self.session.clock.now_us()
        ends = (clock_time(now - self.window.seconds * 1_000_000, millis=False), "now")
        self.plots["runs"].show([Series("started", shown.started), Series("failed", shown.failed, "failed")], ends)
        in_seconds = [Series(name, _over(values, 1e3)) for name, values in (("p50 s", shown.p50), ("p95 s", shown.p95))]
        self.plots["duration"].show(in_seconds, ends)
        errors = [Series(clean(name, limit=40), line, told=True) for name, line in shown.errors[:4]]
        self.plots["errors"].show(errors, ends)
        self.plots["tokens"].show([Series("tokens", shown.tokens)] if any(shown.tokens) else [], ends)
        self.flows.show(shown.flows)
        self.models.show(shown.models)

    def _tiles(self, shown: Board) -> list[Tile]:
        rate = shown.error_rate
        cost = f"{self.prices.sign}{shown.cost:,.2f}" if shown.cost is not None else "–"
        errors = sum(sum(line) for _, line in shown.errors)
        p95 = tuple(value or 0.0 for value in shown.p95)
        return [
            Tile("runs", count(round(sum(shown.started))), tuple(shown.started)),
            Tile("failed", "–" if rate is None else f"{rate:.1%}", tuple(shown.failed), "failed" if rate else "ok"),
            Tile("p95", duration(shown.all_p95 * 1e3) if shown.all_p95 is not None else "–", p95),
            Tile("errors", count(round(errors)), tuple(map(sum, zip(*(e[1] for e in shown.errors), strict=True)))),
            Tile("median wait", duration(shown.all_wait * 1e3) if shown.all_wait is not None else "–",
                 tuple(shown.waits)),
            Tile("tokens", axis_label(sum(shown.tokens)), tuple(shown.tokens)),
            Tile("cost", cost, ()),
        ]  # fmt: skip

    def _flow_cell(self, row: Flow, column: str) -> Cell:
        name, runs, failed, p95 = row
        match column:
            case "name":
                return clean(name), "text"
            case "runs":
                return count(round(runs)), "number"
            case "failed":
                return (count(round(failed)), "failed") if failed else ("", "dim")
            case "p95":
                return (duration(p95 * 1e3) if p95 is not None else "–"), "dim"
        most = max((one[1] for one in self.flows.rows), default=0.0) or 1.0
        return "━" * round(9 * runs / most), "running"

    def _model_cell(self, row: Flow, column: str) -> Cell:
        name, given, made, cost = row
        match column:
            case "name":
                return clean(name), "text"
            case "in":
                return count(round(given)), "number"
            case "out":
                return count(round(made)), "number"
        return (f"{self.prices.sign}{cost:,.2f}" if cost is not None else "–"), "dim"

    # -- actions -----------------------------------------------------------------------------------------------

    def action_window(self, step: int) -> None:
        chosen = max(0, min(self._window + step, len(WINDOWS) - 1))
        if chosen != self._window:
            self._window = chosen
            self._ask()
            self._headline()

    def action_next_plot(self) -> None:
        self._plot = (self._plot + 1) % len(_PLOTS)
        self._show_plots()
        self.plots[_PLOTS[self._plot]].focus()

    def _show_plots(self) -> None:
        """On a narrow screen one plot has all the room."""
        narrow = self.app.size.width < 110
        for place, name in enumerate(_PLOTS):
            self.query_one(f"#pane-{name}").display = not narrow or place == self._plot
        self.query_one("#models-pane").display = not narrow
        self.query_one("#plots").set_class(narrow, "-one")
        self.query_one("#tables").set_class(narrow, "-one")

    def action_runs_of(self) -> None:
        """The runs of the flow under the cursor."""
        row = self.flows.current
        if row is not None:
            self.deck.show_runs(f'flow:"{row[0]}"')

    def action_zoom_pane(self) -> None:
        self.deck.zoom_pane()

    def back(self) -> bool:
        if self.maximized is not None:
            self.minimize()
            return True
        return False

    def copy_choices(self) -> list[tuple[str, str]]:
        shown = self._board
        if shown is None:
            return []
        lines = [f"{name}\t{runs:.0f} runs\t{failed:.0f} failed" for name, runs, failed, _ in shown.flows]
        return [
            ("flows as text", "\n".join(lines)),
            ("SQL of these numbers", sql(self.window, self.session.clock.now_us()).strip()),
        ]

    def zone_changed(self) -> None:
        for plot in self.plots.values():
            plot.redraw()
        self._show()


def _over(values: list[float | None], by: float) -> list[float | None]:
    return [value / by if value is not None else None for value in values]
