"""The SQL shell: a prompt with history and completion over the store's views."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError, Stopped, explain
from flowdeck_devtools.cli._stored import look_again
from flowdeck_devtools.cli._table import write_table
from flowdeck_devtools.cli.sql import Format, ask, watch
from flowdeck_devtools.core.sqlwords import complete

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

    from flowdeck_sinks.store import Reader

__all__ = ["complete", "is_complete", "shell"]

_LIMIT: Final = 200
"""Rows a shell shows without being asked; --limit and programs are for more."""
_WATCH_S: Final = 2.0
_HELP: Final = r"""A statement ends with ; or an empty line. Ctrl-C stops a query or clears the line, Ctrl-D leaves.
  \d              the views and macros          \d NAME         the columns of one
  \watch [S]      the last query every S seconds
  \csv  \json  \table   how rows are written    \limit N        most rows shown, 0 for all
  \q              leave"""


def shell(reader: Reader) -> None:
    """Read statements from the terminal and answer them, until Ctrl-D or ``\\q``.

    Raises:
        CliError: prompt_toolkit is not installed.
    """
    prompt = _prompt()
    state = _Shell(reader)
    _output.note(f"{reader.layout.root}  (\\? for help, Ctrl-D leaves)")
    while True:
        try:
            text = prompt().strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return

        if text and not state.run(text):
            return


class _Shell:
    """What the shell remembers between statements."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._last = ""
        self._format = Format.table
        self._limit: int | None = None

    def run(self, text: str) -> bool:
        """Answer one statement or command; return whether to go on. Whatever fails is one line."""
        try:
            if text.startswith("\\") or text.rstrip(";").lower() in ("quit", "exit", "help"):
                return self._command(text.rstrip("; \n"))

            self._last = text
            look_again(self._reader)
            begun = time.monotonic()
            bound = _LIMIT if self._limit is None and self._format is Format.table else self._limit
            count = ask(self._reader, text, self._format, bound)
            _output.note(f"{count:,} row{'' if count == 1 else 's'}, {time.monotonic() - begun:.3f} s")
        except Stopped as stopped:
            _output.note(str(stopped))
        except Exception as error:
            known = explain(error)
            if known is None:
                raise

            _output.note(known.message)  # without the page: \d is at hand here
        return True

    def _command(self, text: str) -> bool:
        name, _, argument = text.lstrip("\\").partition(" ")
        argument = argument.strip()
        if name in ("q", "quit", "exit"):
            return False

        if name in ("csv", "json", "table"):
            self._format = Format(name)
        elif name == "limit" and argument.isdigit():
            self._limit = int(argument)
        elif name == "watch":
            self._watch(argument)
        elif name in ("d", "dt", "dv"):
            _describe(argument)
        else:
            _output.out(_HELP)
        return True

    def _watch(self, argument: str) -> None:
        try:
            seconds = max(0.1, float(argument or _WATCH_S))
        except ValueError:
            raise CliError(f"\\watch takes seconds, not {argument!r}") from None

        if not self._last:
            raise CliError("ask something first, then \\watch asks it again and again")

        watch(self._reader, self._last, seconds, self._format, self._limit)


def _describe(name: str) -> None:
    """List the views and macros, or the columns of one."""
    from flowdeck_sinks.store.views import MACROS, VIEWS

    for view in VIEWS:
        if view.name == name:
            write_table(("column", "what it says"), view.columns.items(), width=_output.table_width())
            return

    for macro in MACROS:
        if macro.name == name.partition("(")[0]:
            like = next((view.columns for view in VIEWS if view.name == macro.like), macro.columns)
            write_table(("column", "what it says"), like.items(), width=_output.table_width())
            return

    if name:
        raise CliError(f"there is no view or macro {name!r}; \\d lists them")

    rows = [(view.name, view.summary) for view in VIEWS]
    rows += [(f"{macro.name}({', '.join(macro.parameters)})", macro.summary) for macro in MACROS]
    write_table(("name", "what it is"), rows, width=_output.table_width())


def is_complete(text: str) -> bool:
    """Whether Enter sends what was typed: a command, or a statement that ends with ``;`` or an empty line."""
    stripped = text.strip()
    if not stripped or stripped.startswith("\\") or stripped.lower() in ("quit", "exit", "help"):
        return True

    return stripped.endswith(";") or text.endswith("\n")


def _history_file() -> Path | None:
    """Return where statements are remembered between shells, readable by their author only."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "flowdeck" / "sql_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return None

    return path


def _prompt() -> Callable[[], str]:
    """Return a function that asks for one statement.

    Raises:
        CliError: prompt_toolkit is not installed.
    """
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion, ThreadedCompleter
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from prompt_toolkit.output import ColorDepth
    except ImportError:
        raise CliError("the SQL shell needs prompt_toolkit: pip install 'flowdeck[devtools]'", 2) from None

    class Views(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            for text, length, about in complete(document.text_before_cursor):
                yield Completion(text, start_position=-length, display_meta=about)

    keys = KeyBindings()

    @keys.add("enter", filter=Condition(lambda: session.default_buffer.complete_state is None))
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        at_end = buffer.document.is_cursor_at_the_end
        if at_end and is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    history = _history_file()
    plain = bool(os.environ.get("NO_COLOR")) or not _output.coloured(sys.stdout)
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history is not None else InMemoryHistory(),
        completer=ThreadedCompleter(Views()),
        complete_while_typing=False,
        multiline=True,
        key_bindings=keys,
        prompt_continuation="     ... ",
        color_depth=ColorDepth.MONOCHROME if plain else None,
    )
    return lambda: session.prompt("flowdeck> ")
