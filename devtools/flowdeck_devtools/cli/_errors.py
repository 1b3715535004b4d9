"""How an error reaches the person at the shell: one line that names the thing and the mend."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["CliError", "OutputClosed", "Stopped", "explain", "one_line", "place_of"]

_SQL_PAGE: Final = "sql#views"
_CONTROL_PAGE: Final = "operations#when-something-is-wrong"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CliError(Exception):
    """A command cannot go on.

    Attributes:
        code: the exit code: 1 the work failed, 2 it was asked for wrongly.
        message: what is wrong and what to do.
        docs: where the documents tell more, ``page#heading``; told only where it was given.
    """

    docs = "reference/commands"

    def __init__(self, message: str, code: int = 1, docs: str | None = None) -> None:
        self.code = code
        self.message = message
        told = message
        if docs is not None:
            self.docs = docs
            see = f"see: flowdeck docs {docs}"
            told = f"{message}\n  {see}" if "\n" in message else f"{message.rstrip('.')}; {see}"

        super().__init__(told)


class OutputClosed(Exception):
    """Whoever read our output went away (``| head``). Ends the command without a word."""


class Stopped(Exception):
    """Ctrl-C was pressed or the process asked to end; the message says what became of the work."""

    def __init__(self, message: str = "stopped", code: int = 130) -> None:
        self.code = code
        super().__init__(message)


def explain(error: BaseException) -> CliError | None:
    """Turn an error a user can meet into one line, or return ``None`` when it must be a bug of ours."""
    if isinstance(error, CliError):
        return error

    if isinstance(error, OSError):
        return CliError(_of_os_error(error), 1 if error.errno in _FULL else 2)

    # The classes below are looked up, not imported: who never touched them should not pay for them.
    if _is_a(error, "flowdeck.layout", "StoreError"):
        return _with_page(error, 2)

    if _is_a(error, "flowdeck_sinks.store.reader", "QueryRefused"):
        return _with_page(error, 2, "SQL: ")

    if _is_a(error, "flowdeck.errors", "FlowdeckError"):
        return _with_page(error, 1)

    if _is_a(error, "duckdb", "Error"):
        return CliError(f"SQL: {_drawn(error)}", 1, _SQL_PAGE)

    if _is_a(error, "sqlite3", "Error"):
        return CliError(f"the control database cannot be used: {one_line(error)}", 1, _CONTROL_PAGE)

    return None


def one_line(error: BaseException | str) -> str:
    """Return a message on one line, without what a terminal would obey."""
    text = " ".join(str(error).split())
    return "".join(char for char in text if char.isprintable()) or type(error).__name__


def _with_page(error: BaseException, code: int, prefix: str = "") -> CliError:
    """Return the message with the page of the documents that tells more, unless it names one itself."""
    text = prefix + one_line(error)
    return CliError(text, code, None if "flowdeck docs" in text else getattr(error, "docs", None))


def _drawn(error: BaseException) -> str:
    """Return a message of DuckDB, which may end with the line at fault and a caret below it.

    DuckDB counts characters that take no place on a terminal, tabs among them, as nothing.
    """
    head, mark, line = str(error).partition("\nLINE ")
    drawing = line.splitlines()
    if not mark or len(drawing) < 2 or drawing[1].strip(" ^"):
        return one_line(error)

    caret = drawing[1].rstrip()
    before = len(caret) - len(caret.lstrip())
    shown = "LINE "
    for char in drawing[0]:
        if char == "\t":  # a space instead, so that words stay apart
            before += len(shown) <= before
            shown += " "
        elif char.isprintable():
            shown += char
    return f"{one_line(head)}\n  {shown}\n  {' ' * before}{caret.lstrip()}"


def place_of(error: BaseException, below: Path) -> str:
    """Return ``file:line`` of the innermost frame in a file under ``below``, or an empty string."""
    place, frame = "", error.__traceback__
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if file.is_absolute() and file.is_relative_to(below):
            place = f"{file.relative_to(below)}:{frame.tb_lineno}"

        frame = frame.tb_next

    return place


def _of_os_error(error: OSError) -> str:
    where = error.filename if isinstance(error.filename, str) else None
    reason = error.strerror or one_line(error) or type(error).__name__
    if error.errno in _FULL:
        mend = "make room, or use --store and --out on another disk"
    elif isinstance(error, PermissionError):
        mend = f"user {os.environ.get('USER') or os.getuid()} may not use it"
    else:
        mend = ""

    return ": ".join(filter(None, (where, reason, mend)))


def _is_a(error: BaseException, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
