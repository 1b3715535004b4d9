"""Inbox: what waits for a person. Choose, read, fill in, review, send; the first answer wins.

Nothing here is one key away from being sent: submitting opens a review, and only that sends. New questions never move
the cursor or take the focus; they raise the number in the top bar.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.notifications import SeverityLevel
from textual.widgets import Static

from flowdeck_devtools.core.columns import Column
from flowdeck_devtools.core.inbox import AnswerReport, InterruptRow
from flowdeck_devtools.core.model import RunRow
from flowdeck_devtools.core.schema import form_of
from flowdeck_devtools.core.session import Draft
from flowdeck_devtools.core.span import short_json
from flowdeck_devtools.core.text import age, clean, clock_time, short_id
from flowdeck_devtools.tui.screens.base import DeckScreen, scoped
from flowdeck_devtools.tui.screens.dialogs import ConfirmDialog
from flowdeck_devtools.tui.widgets.bars import HeadLine
from flowdeck_devtools.tui.widgets.jsonview import JsonView
from flowdeck_devtools.tui.widgets.lineview import LineView
from flowdeck_devtools.tui.widgets.schemaform import SchemaForm
from flowdeck_devtools.tui.widgets.vtable import Cell, VirtualTable

__all__ = ["InboxScreen"]

COLUMNS = (
    Column("mark", "", 1),
    Column("question", "QUESTION", 30, flex=4),
    Column("flow", "FLOW", 10, flex=1, most=18, priority=2),
    Column("age", "AGE", 4, align="right", priority=1),
)
GUARD_SECONDS = 0.4
"""Submitting is ignored for so long after another question came into the form by itself."""


class _Questions(VirtualTable[InterruptRow]):
    """The list of questions."""

    def action_activate(self) -> None:
        # At once, not by a message: a key typed right after enter must find the form, not the list.
        screen = self.screen
        if isinstance(screen, InboxScreen):
            screen.action_edit()


class InboxScreen(DeckScreen):
    """Questions on the left, the answer on the right."""

    place: ClassVar[str] = "inbox"
    BINDINGS: ClassVar[list[BindingType]] = scoped("inbox")
    AUTO_FOCUS = "#interrupts"

    def __init__(self) -> None:
        super().__init__()
        self._shown: InterruptRow | None = None
        self._shown_at = 0.0
        self._listed = (-1, 0, True)
        self._with_closed = True
        self._sending: str | None = None
        self._notes: dict[str, tuple[str, str]] = {}
        self._marked: set[str] = set()
        """Questions that are answered together with the one shown, where they want the same kind of answer."""

    def body(self) -> ComposeResult:
        self.headline = HeadLine(id="headline")
        self.table = _Questions(COLUMNS, self._cell, lambda row: row.key, id="interrupts")
        self.question = Static("", markup=False, id="question")
        self.asked = JsonView(id="asked", fit_content=True)
        self.form = SchemaForm(id="form")
        self.note = Static("", markup=False, id="answer-note")
        yield self.headline
        with Horizontal(id="inbox-panes"):
            with Vertical(id="list-pane", classes="pane"):
                yield self.table
            with Vertical(id="answer-pane", classes="pane side"):
                yield self.question
                yield self.asked
                yield self.form
                yield self.note

    def on_mount(self) -> None:
        self.table.follow = False
        self.query_one("#list-pane").border_title = "inbox"
        self.query_one("#answer-pane").border_title = "answer"

    # -- keeping up --------------------------------------------------------------------------------------------

    def tick(self) -> None:
        inbox, clock = self.session.inbox, self.session.clock
        state = (inbox.version, clock.now_us() // 1_000_000, self._with_closed)
        if state == self._listed:
            return
        self._listed = state
        rows = [row for row in inbox.rows if row.is_open or self._with_closed]
        self.table.empty = self._empty_text()
        self.table.show(rows)
        self._headline()
        self._follow_row()

    def _headline(self) -> None:
        inbox = self.session.inbox
        closed = len(inbox.rows) - inbox.waiting
        left: list[tuple[str, str]] = [(" Inbox ", "strong")]
        role = "waiting" if inbox.waiting else "dim"
        left += [(f"  ! {inbox.waiting} waiting", role), (f"   ✓ {closed} answered", "dim")]
        if inbox.problem:
            left.append((f"   ✗ {clean(inbox.problem)}", "failed"))
        self.headline.show(left, [(f"answering as {clean(self.session.actor)} ", "faint")])

    def _empty_text(self) -> list[tuple[str, str]]:
        inbox = self.session.inbox
        if inbox.problem:
            return [("The inbox cannot be read", "failed"), (clean(inbox.problem), "text")]
        if not inbox.loaded.is_set():
            return [("Reading the inbox …", "dim")]
        return [("Nothing waits for an answer", "strong"), ("A flow that pauses for a person appears here.", "dim")]

    def _cell(self, row: InterruptRow, column: str) -> Cell:
        match column:
            case "mark":
                if row.is_open and row.key in self._marked:
                    return "◆", "accent"
                if row.is_open:
                    return ("!", "waiting") if row.owned else ("?", "violet")
                return ("✓", "ok") if row.status == "resumed" else ("⊘", "dim")
            case "question":
                return row.question, "text" if row.is_open else "dim"
            case "flow":
                return clean(row.flow or row.type), "dim"
        opened = row.opened_us
        return (age(self.session.clock.now_us() - opened) if opened else "–"), "dim"

    # -- the question shown ------------------------------------------------------------------------------------

    @on(LineView.Highlighted, "#interrupts")
    def _chosen(self) -> None:
        self._follow_row()

    def _follow_row(self) -> None:
        """Show the question under the cursor, or what became of the one shown."""
        row = self.table.current
        if row == self._shown:
            return
        if row is not None and self._shown is not None and row.key == self._shown.key:
            was_open, self._shown = self._shown.is_open, row
            if was_open != row.is_open or not row.is_open:
                # Closed in two steps: accepted first, then applied, with who and what. An open form is left alone.
                self._load(row)
            return
        self._keep_draft()
        self._shown = row
        self._shown_at = self.session.clock.monotonic()
        self._load(row)

    @work(name="load-form", group="form", exclusive=True, exit_on_error=False)
    async def _load(self, row: InterruptRow | None, focus: bool = False) -> None:
        asked, form = self.asked, self.form
        self.question.update(Content(self._question(row)))
        if row is None:
            asked.clear()
            await form.load(None)
            self._note()
            return

        asked.show((row.key, row.status, row.answered), self._sections(row))
        draft = self.session.drafts.get(row.key, Draft())
        await form.load(form_of(None if draft.as_json else row.schema) if row.is_open else None, draft.typed)
        form.display = row.is_open
        if focus:
            form.focus_first()
        self._note()

    def _question(self, row: InterruptRow | None) -> str:
        return "" if row is None else clean(row.question, limit=600)

    def _sections(self, row: InterruptRow) -> list[tuple[str, Any, str]]:
        asked = f"{clean(row.type)}, asked {clock_time(row.opened_us, millis=False)} by {clean(row.flow or 'a flow')}"
        if row.execution_id:
            asked += f" {short_id(clean(row.execution_id))}"
        sections: list[tuple[str, Any, str]] = []
        if row.context is not None:
            sections += [("", row.context, "title"), ("", None, "dim")]
        sections += [(asked, None, "dim"), (_what_happens(row), None, "dim")]
        if row.is_open and not row.owned:
            sections.append(("its process is gone: an answer is kept until the run is taken up again", None, "violet"))
        if row.expires_us:
            sections.append((f"expires {clock_time(row.expires_us, millis=False)}", None, "waiting"))
        if row.assignees:
            sections.append((f"assigned to {clean(', '.join(row.assignees))}", None, "dim"))
        if not row.is_open:
            sections.append((row.outcome, None, "ok" if row.status == "resumed" else "dim"))
            if row.response is not None:
                sections.append(("answer", row.response, "title"))
        return sections

    def _note(self) -> None:
        """The line below the form: what to press, or what became of the answer."""
        row, note = self._shown, self.note
        text, kind = ("", "")
        if row is not None:
            text, kind = self._notes.get(row.key, ("", ""))
            if not text and row.is_open:
                text = "enter fill in   ^s review and send   ^e as JSON   esc back"
            elif not text:
                text, kind = row.outcome, "-ok" if row.status == "resumed" else ""
        note.update(Content(clean(text, limit=400)))
        note.set_classes(kind)

    def _keep_draft(self) -> None:
        row, form = self._shown, self.form
        if row is None or not row.is_open or not form.has_fields:
            return
        draft = self.session.drafts.setdefault(row.key, Draft())
        draft.typed = form.typed()

    @on(SchemaForm.Edited)
    def _edited(self) -> None:
        self._keep_draft()

    # -- actions -----------------------------------------------------------------------------------------------

    def action_edit(self) -> None:
        if self._shown is not None and self._shown.is_open:
            self.form.focus_first()

    def action_as_json(self) -> None:
        row = self._shown
        if row is None or not row.is_open:
            return
        draft = self.session.drafts.setdefault(row.key, Draft())
        if draft.as_json:
            draft.as_json, draft.typed = False, {}
        else:
            value, _ = self.form.answer()
            text = "" if value in (None, {}) else json.dumps(value, ensure_ascii=False, indent=2)
            draft.as_json, draft.typed = True, {"": text}
        self._load(row, focus=True)

    def action_submit(self) -> None:
        row = self._shown
        if row is None or not row.is_open or self._sending is not None:
            return
        if self.session.clock.monotonic() - self._shown_at < GUARD_SECONDS:
            return
        value, good = self.form.answer()
        if not good:
            return
        rows = [row, *self._together(row)]
        lines = [clean(one.question, limit=200) for one in rows[:8]]
        lines += [f"… and {len(rows) - 8} more"] if len(rows) > 8 else []
        lines += ["", f"answer   {short_json(value, 600)}", f"as       {self.session.actor}", row.consequence]
        many = len(rows) > 1
        lines.append(f"The run{'s go' if many else ' goes'} on at once; this cannot be taken back.")
        title = f"Send this answer to {len(rows)} questions?" if many else "Send this answer?"
        self.app.push_screen(ConfirmDialog(title, lines, "Send"), partial(self._reviewed, rows, value))

    def _together(self, row: InterruptRow) -> list[InterruptRow]:
        """The other marked questions that are open and want the same kind of answer."""
        return [
            one
            for one in self.session.inbox.rows
            if one.key in self._marked and one.key != row.key and one.is_open and one.schema == row.schema
        ]

    def action_mark(self) -> None:
        """Mark the question, to answer several at once."""
        row = self.table.current
        if row is None or not row.is_open:
            return
        self._marked ^= {row.key}
        self._listed = (-1, 0, True)
        self.table.action_row(1)
        self.tick()

    def _reviewed(self, rows: list[InterruptRow], value: Any, send: bool | None) -> None:
        if send:
            self._sending = rows[0].key
            for row in rows:
                self._notes[row.key] = ("sending …", "")
            self._note()
            self._send(rows, value)

    @work(thread=True, name="send-answer", group="answer", exclusive=True, exit_on_error=False)
    def _send(self, rows: list[InterruptRow], value: Any) -> None:
        for row in reversed(rows):  # the one shown last, so that the form closes when all are sent
            try:
                report = self.session.inbox.answer(row, value, self.session.actor)
            except Exception as error:  # the store's message names the mend; the draft stays
                report = AnswerReport(False, f"not sent: {error}", row)
            self.app.call_from_thread(self._answered, row, report)

    def _answered(self, row: InterruptRow, report: AnswerReport) -> None:
        if self._sending == row.key:
            self._sending = None
        self._marked.discard(row.key)
        kind = "-ok" if report.applied else "-pending" if report.pending else "-wrong"
        self._notes[row.key] = (report.headline, kind)
        if report.applied:
            self.session.drafts.pop(row.key, None)
        severity: SeverityLevel = "information" if report.applied else "warning" if report.pending else "error"
        self.notify(clean(f"{row.question}: {report.headline}", limit=160), severity=severity, timeout=5, markup=False)
        self.session.inbox.look()
        self._listed = (-1, 0, True)
        if report.applied and self.table.current is not None and self.table.current.key == row.key:
            self._go_on(row)
        self._note()
        self.tick()

    def _go_on(self, row: InterruptRow) -> None:
        """After an answer the next open question comes under the cursor; the form waits for a key."""
        waiting = [one for one in self.session.inbox.rows if one.is_open and one.key != row.key]
        if waiting:
            self.table.show([one for one in self.session.inbox.rows if one.is_open or self._with_closed])
            self.table.select(waiting[0].key)
        self.table.focus()

    def action_toggle_closed(self) -> None:
        self._with_closed = not self._with_closed
        self.tick()

    def action_open_run(self) -> None:
        row = self._shown
        run = self.session.run_of_execution(row.execution_id) if row is not None else None
        if run is None:
            self.notify("the run of this question is not in view", severity="warning", timeout=3)
        else:
            self.deck.open_run(run.run_id)

    def select_execution(self, execution_id: str | None) -> bool:
        """Put the cursor on the first open question of an execution."""
        row = next((one for one in self.session.inbox.rows if one.is_open and one.execution_id == execution_id), None)
        if row is None:
            return False
        self._listed = (-1, 0, True)
        self.tick()
        return self.table.select(row.key)

    def back(self) -> bool:
        if self.focused is not None and self.focused is not self.table:
            self._keep_draft()
            self.table.focus()
            return True
        return False

    def subject(self) -> RunRow | None:
        return self.session.run_of_execution(self._shown.execution_id) if self._shown is not None else None

    def copy_choices(self) -> list[tuple[str, str]]:
        row = self._shown
        if row is None:
            return []
        choices = [("question", row.question), ("interrupt id", row.id)]
        if row.payload is not None:
            choices.append(("payload as JSON", json.dumps(row.payload, ensure_ascii=False, indent=2)))
        if row.is_open:
            choices.append(("command to answer", f"flowdeck interrupts answer {row.id} --value '…'"))
        return choices

    def zone_changed(self) -> None:
        self._listed = (-1, 0, True)
        if self._shown is not None:
            self.asked.show((self._shown.key, self._shown.status, self._shown.answered), self._sections(self._shown))


def _what_happens(row: InterruptRow) -> str:
    return f"what happens: {row.consequence}"
