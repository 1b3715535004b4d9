"""Every action of DevTools in one table. Key bindings, footer, help and command palette are all made from it.

A scope says where an action works: ``app`` everywhere, ``list`` in anything with rows, the rest on the screen of that
name. ``command`` is the Textual action that is run. Actions with ``footer`` > 0 are shown in the footer, highest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from textual.binding import Binding

__all__ = [
    "ACTIONS",
    "COMMANDS",
    "MODES",
    "Action",
    "Mode",
    "bindings_for",
    "footer_actions",
    "key_label",
    "keys_of",
    "scopes_in_order",
    "use_keys",
]


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
    Mode("ledger", "4", "Ledger", "Ledg"),
    Mode("events", "5", "Events", "Even"),
    Mode("sql", "6", "SQL", "SQL"),
    Mode("evals", "7", "Evals", "Eval"),
    Mode("metrics", "8", "Metrics", "Metr"),
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
    Action("act", "x", "Act", "app", "act", "Cancel, intervene, resume, fork, run again, keep as a case", 16),
    Action("back", "escape", "Back", "app", "go_back", "Close what is open, else go back"),
    Action("close", "q", "Back or quit", "app", "close", "Go back; on Runs, quit"),
    Action("utc", "t", "Local or UTC", "app", "toggle_utc", "Show times in the local zone or in UTC"),
    Action("jump", "ctrl+o", "Jump", "app", "jump", "A letter on every pane and field; it goes there"),
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
    Action("runs-mark", "space", "Mark", "runs", "mark", "Mark a run to compare it", 34),
    Action("runs-compare", "d", "Diff", "runs", "compare", "Compare two runs: path, outcome, timing, state", 32),
    Action("runs-views", "v", "Views", "runs", "views", "Saved filters; ^s in the filter saves one", 28),
    Action("runs-errors", "e", "Errors", "runs", "errors", "Faults by kind over all runs", 30),
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
    Action("why", "w", "Why", "execution", "page('why')", "What led here: causes back to the beginning", 33),
    Action("graph", "m", "Graph", "execution", "page('graph')", "The flow's map: what ran, what was not reached", 31),
    Action("state", "s", "State", "execution", "page('state')", "The state after this step, and its versions"),
    Action("stream", "u", "Stream", "execution", "page('stream')", "What left on the runtime stream"),
    Action("links", "b", "Links", "execution", "page('links')", "Checkpoints, workspace records, artifacts"),
    Action("raw", "r", "Raw", "execution", "page('raw')", "The event as it was written"),
    Action("next-page", "v", "Next page", "execution", "turn_page(1)", "Leaf through event, why, graph, state …"),
    Action("critical", "c", "Critical path", "execution", "critical", "The steps that decided the time stand out", 29),
    Action("execution-answer", "a", "Answer", "execution", "answer", "Answer what this run waits for", 32),
    Action("pane", "tab", "Pane", "execution", "next_pane", "Next pane", 28),
    Action(
        "execution-zoom", "z", "Zoom pane", "execution", "zoom_pane", "One pane over the whole screen, and back", 20
    ),
    # Events
    Action("events-follow", "f", "Follow", "events", "follow", "Stay at the newest line", 40),
    Action("events-pause", "space", "Pause", "events", "pause", "Freeze the view; lines still come in", 38),
    Action("events-filter", "slash", "Filter", "events", "filter", "Show only lines that match", 36),
    Action(
        "events-dim",
        "backslash",
        "Hide or dim",
        "events",
        "dim",
        "What does not match: hidden, or dim",
        33,
    ),
    Action("next-match", "n", "Next match", "events", "next_match(1)", "The next line that matches"),
    Action("previous-match", "N", "Previous match", "events", "next_match(-1)"),
    Action("events-inspect", "i", "Inspect", "events", "inspect", "Show or hide the event beside the tail", 34),
    Action("events-views", "v", "Views", "events", "views", "Saved filters; ^s in the filter saves one", 30),
    Action("events-open", "o", "Open run", "events", "open_run", "Open the run the event belongs to", 32),
    Action("events-zoom", "z", "Zoom pane", "events", "zoom_pane", "One pane over the whole screen, and back"),
    # Ledger
    Action("ledger-open", "o", "Open run", "ledger", "open_run", "Open the run of the act (also enter)", 40),
    Action("ledger-filter", "slash", "Filter", "ledger", "filter", "Show only acts that match", 38),
    Action("ledger-views", "v", "Views", "ledger", "views", "Saved filters; ^s in the filter saves one", 32),
    Action("ledger-refresh", "r", "Refresh", "ledger", "refresh", "Read the ledger again", 30),
    # SQL
    Action("sql-run", "ctrl+j,f5", "Run", "sql", "run", "Run the query, or what is selected of it", 40, True),
    Action("sql-edit", "i", "Edit", "sql", "edit", "Go to the query", 38),
    Action("sql-plot", "P", "Plot", "sql", "plot", "Draw the numeric columns, and back", 36),
    Action("sql-export", "e", "Export", "sql", "export", "Write the rows into a file", 34),
    Action("sql-open", "o", "Open run", "sql", "open_run", "Open the run that the row names (also enter)", 32),
    Action("sql-inspect", "v", "Row", "sql", "inspect", "Show or hide the row under the cursor as a whole", 28),
    Action("sql-left", "h,left", "Left", "sql", "sideways(-1)", "Columns further left; in the catalog: close"),
    Action("sql-right", "l,right", "Right", "sql", "sideways(1)", "Columns further right; in the catalog: open"),
    Action("sql-history", "f8", "History", "sql", "history", "Queries asked before", 30),
    Action("sql-examples", "f2", "Examples", "sql", "examples", "Queries to begin with", 26),
    Action("sql-store", "s", "Store", "sql", "next_store", "Of several stores: ask all of them, or the next one"),
    Action("sql-catalog", "ctrl+b", "Catalog", "sql", "catalog", "Show or hide views and columns", 24, True),
    # Evals
    Action("evals-open", "o", "Open run", "evals", "open_run('candidate')", "Open the case's run (or enter)", 40),
    Action("evals-open-base", "O", "Base's run", "evals", "open_run('base')", "Open the case's run in the base", 38),
    Action("evals-base", "b", "Set base", "evals", "set_base", "Compare the suite's sessions with this one", 36),
    Action("evals-worse", "r", "Worse only", "evals", "worse_only", "Only cases that fail or got worse", 34),
    Action("evals-pane", "tab", "Pane", "evals", "next_pane", "Next pane", 30),
    # Metrics
    Action("metrics-shorter", "h,left", "Shorter", "metrics", "window(-1)", "A shorter window up to now", 40),
    Action("metrics-longer", "l,right", "Longer", "metrics", "window(1)", "A longer window up to now", 39),
    Action("metrics-plot", "p", "Plot", "metrics", "next_plot", "The next plot; on a narrow screen one is shown", 36),
    Action("metrics-runs", "o", "Runs", "metrics", "runs_of", "The runs of the flow under the cursor", 34),
    Action(
        "metrics-store", "s", "Store", "metrics", "next_store", "Of several stores: numbers of all, or the next one"
    ),
    Action("metrics-zoom", "z", "Zoom pane", "metrics", "zoom_pane", "One pane over the whole screen, and back", 30),
    # Inbox
    Action("inbox-edit", "a", "Answer", "inbox", "edit", "Go to the form (also enter)", 40),
    Action("inbox-submit", "ctrl+s", "Submit", "inbox", "submit", "Review and send the answer", 38, True),
    Action("inbox-json", "ctrl+e", "As JSON", "inbox", "as_json", "Write the answer as JSON instead", 30, True),
    Action("inbox-open", "o", "Open run", "inbox", "open_run", "Open the run that asks", 36),
    Action("inbox-mark", "space", "Mark", "inbox", "mark", "Mark questions to answer them together", 34),
    Action("inbox-closed", "d", "Answered", "inbox", "toggle_closed", "Show or hide what was answered", 28),
)

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("Intervene", "act('intervene')", "Add context to the run under the cursor"),
    ("Cancel run", "act('cancel')", "Cancel the run under the cursor"),
    ("Resume run", "act('resume')", "Take the run under the cursor up in a process of its own"),
    ("Fork run", "act('fork')", "A new execution from a committed point of the run under the cursor"),
    ("Run again", "act('rerun')", "The flow of the run under the cursor, with the same input"),
    ("Keep as eval case", "act('promote')", "Keep the run under the cursor as an eval case"),
    ("Publish the store", "publish_store", "Make history small and fast: publish and compact, in a child process"),
)
"""What has no key of its own but stands in the command palette: title, the app's action, help."""

_KEY_LABELS = {
    "colon": ":",
    "question_mark": "?",
    "slash": "/",
    "space": "space",
    "backslash": "\\",
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
}
_own: dict[str, str] = {}


def use_keys(keys: Mapping[str, str]) -> None:
    """Show these keys instead of those of the table, by action id."""
    _own.clear()
    _own.update(keys)


def keys_of(action: Action) -> str:
    """The keys of an action: a person's own, else those of the table."""
    return _own.get(action.id, action.keys)


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
    names = [_KEY_LABELS.get(key) or _named(key) for key in keys.split(",")]
    return " ".join(names) if every else names[0]


def _named(key: str) -> str:
    return f"^{key[5:]}" if key.startswith("ctrl+") else key.upper() if key[:1] == "f" and key[1:].isdigit() else key
