"""Every action of DevTools in one table. Key bindings, footer, help and command palette are all made from it.

A scope says where an action works: ``app`` everywhere, ``list`` in anything with rows, the rest on the screen of that
name. ``command`` is the Textual action that is run. Actions with ``footer`` > 0 are shown in the footer, highest first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from textual.binding import Binding

__all__ = ["ACTIONS", "MODES", "Action", "Mode", "bindings_for", "footer_actions", "key_label", "scopes_in_order"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One of the top-level places. Its digit stays the same as further places join."""

    id: str
    digit: str
    label: str
    short: str


MODES = (
    Mode("runs", "1", "Runs", "Runs"),
    Mode("execution", "2", "Execution", "Exec"),
    Mode("inbox", "3", "Inbox", "Inbox"),
    Mode("events", "5", "Events", "Events"),
)


@dataclass(frozen=True, slots=True)
class Action:
    """Something a person can do. ``keys`` are Textual key names, comma-separated; the first is the one shown."""

    id: str
    keys: str
    label: str
    scope: str
    command: str
    help: str = ""
    footer: int = 0
    priority: bool = False


ACTIONS: tuple[Action, ...] = (
    *(
        Action(f"go-{mode.id}", mode.digit, mode.label, "app", f"go('{mode.id}')", f"Go to {mode.label}")
        for mode in MODES
    ),
    Action("palette", "colon,ctrl+p", "Commands", "app", "command_palette", "Every command, by typing its name", 12),
    Action("help", "question_mark,f1", "Help", "app", "help", "All keys, filtered as you type", 10),
    Action("copy", "y", "Copy", "app", "copy", "Copy an id, JSON, SQL or a command", 14),
    Action("back", "escape", "Back", "app", "go_back", "Close what is open, else go back"),
    Action("close", "q", "Back or quit", "app", "close", "Go back; on Runs, quit"),
    Action("utc", "t", "Local or UTC", "app", "toggle_utc", "Show times in the local zone or in UTC"),
    Action("screenshot", "ctrl+x", "Screenshot", "app", "screenshot_svg", "Save the screen as an SVG picture"),
    Action("quit", "ctrl+q", "Quit", "app", "quit", "Leave DevTools; runs go on", priority=True),
    Action("interrupt", "ctrl+c", "Quit", "app", "interrupt", "Pressed twice: leave DevTools", priority=True),
    # Lists
    Action("down", "j,down", "Down", "list", "row(1)", "Next row"),
    Action("up", "k,up", "Up", "list", "row(-1)", "Previous row"),
    Action("half-down", "ctrl+d", "Half page down", "list", "page(0.5)"),
    Action("half-up", "ctrl+u", "Half page up", "list", "page(-0.5)"),
    Action("page-down", "pagedown", "Page down", "list", "page(1)"),
    Action("page-up", "pageup", "Page up", "list", "page(-1)"),
    Action("first", "g,home", "First", "list", "first", "First row"),
    Action("last", "G,end", "Last", "list", "last", "Last row; in Events also follow"),
    Action("activate", "enter", "Open", "list", "activate", "Open the row"),
    # Runs
    Action("runs-open", "o", "Open", "runs", "open_run", "Open the run (also enter)", 40),
    Action("runs-filter", "slash", "Filter", "runs", "filter", "Show only runs that match", 38),
    Action("runs-follow", "f", "Follow", "runs", "follow", "Keep the cursor on the newest run", 36),
    # Execution
    Action("fold", "h,left", "Fold", "execution", "fold", "Fold the node, or go to its parent", 40),
    Action("unfold", "l,right", "Unfold", "execution", "unfold", "Unfold the node, or go to its first child", 39),
    Action("fold-all", "H", "Fold all", "execution", "fold_all"),
    Action("unfold-all", "L", "Unfold all", "execution", "unfold_all"),
    Action(
        "next-issue", "right_square_bracket", "Next issue", "execution", "next_issue(1)", "What failed or waits", 34
    ),
    Action("previous-issue", "left_square_bracket", "Previous issue", "execution", "next_issue(-1)"),
    Action("zoom-in", "plus,equals_sign", "Zoom in", "execution", "zoom_time(2)", "Zoom the time axis in", 22),
    Action("zoom-out", "minus", "Zoom out", "execution", "zoom_time(0.5)", "Zoom the time axis out"),
    Action("fit", "0", "Fit", "execution", "zoom_time(0)", "Show the whole run again"),
    Action("execution-follow", "f", "Follow", "execution", "follow", "Keep the newest step in view", 30),
    Action("execution-answer", "a", "Answer", "execution", "answer", "Answer what this run waits for", 32),
    Action("pane", "tab", "Pane", "execution", "next_pane", "Next pane", 28),
    Action(
        "execution-zoom", "z", "Zoom pane", "execution", "zoom_pane", "One pane over the whole screen, and back", 20
    ),
    # Events
    Action("events-follow", "f", "Follow", "events", "follow", "Stay at the newest line", 40),
    Action("events-pause", "space", "Pause", "events", "pause", "Freeze the view; lines still come in", 38),
    Action("events-filter", "slash", "Filter", "events", "filter", "Show only lines that match", 36),
    Action("events-inspect", "i", "Inspect", "events", "inspect", "Show or hide the event beside the tail", 34),
    Action("events-open", "o", "Open run", "events", "open_run", "Open the run the event belongs to", 32),
    Action("events-zoom", "z", "Zoom pane", "events", "zoom_pane", "One pane over the whole screen, and back"),
    # Inbox
    Action("inbox-edit", "a", "Answer", "inbox", "edit", "Go to the form (also enter)", 40),
    Action("inbox-submit", "ctrl+s", "Submit", "inbox", "submit", "Review and send the answer", 38, True),
    Action("inbox-json", "ctrl+e", "As JSON", "inbox", "as_json", "Write the answer as JSON instead", 30, True),
    Action("inbox-open", "o", "Open run", "inbox", "open_run", "Open the run that asks", 36),
    Action("inbox-closed", "d", "Answered", "inbox", "toggle_closed", "Show or hide what was answered", 28),
)

_KEY_LABELS = {
    "colon": ":",
    "question_mark": "?",
    "slash": "/",
    "space": "space",
    "escape": "esc",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "down": "↓",
    "up": "↑",
    "left": "←",
    "right": "→",
    "ctrl+q": "^q",
    "ctrl+c": "^c",
    "ctrl+s": "^s",
    "ctrl+e": "^e",
    "ctrl+p": "^p",
    "ctrl+x": "^x",
    "ctrl+d": "^d",
    "ctrl+u": "^u",
    "f1": "F1",
}


def bindings_for(scope: str) -> list[Binding]:
    """The key bindings of a scope. Each has the action's id, so a keymap can rebind it."""
    return [
        Binding(action.keys, action.command, action.label, show=False, priority=action.priority, id=action.id)
        for action in ACTIONS
        if action.scope == scope
    ]


def footer_actions(scope: str) -> list[Action]:
    """What the footer shows on a screen, most useful first."""
    shown = [action for action in ACTIONS if action.footer and action.scope in (scope, "app")]
    return sorted(shown, key=lambda action: -action.footer)


def scopes_in_order(first: str) -> Iterator[str]:
    """The scopes with the given one first, then what works everywhere, then the rest."""
    order = [first, "list", "app", *(mode.id for mode in MODES)]
    return iter(dict.fromkeys(order))


def key_label(keys: str, *, every: bool = False) -> str:
    """A key as people write it: ``^s``, ``?``, ``pgdn``."""
    names = [_KEY_LABELS.get(key, key) for key in keys.split(",")]
    return " ".join(names) if every else names[0]
