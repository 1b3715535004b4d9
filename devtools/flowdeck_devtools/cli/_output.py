"""Writing to the terminal: results on stdout, everything about them on stderr."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from flowdeck_devtools.cli._errors import OutputClosed

__all__ = [
    "coloured",
    "drawable",
    "flush",
    "height",
    "is_terminal",
    "note",
    "out",
    "paint",
    "prepare",
    "table_width",
    "width",
]

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "dim": "2", "bold": "1"}


def prepare() -> None:
    """Let the streams take every character: under ``LANG=C`` an accent must not end a command. So do closed ones."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # flowdeck runs >&-
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115 - for good

    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def out(text: str, end: str = "\n") -> None:
    """Write a result to stdout.

    Raises:
        OutputClosed: the reader went away.
    """
    try:
        sys.stdout.write(text + end)
    except BrokenPipeError:
        raise OutputClosed from None


def flush() -> None:
    """Hand the results on now, so that a follower sees each line as it comes."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosed from None


def note(text: str) -> None:
    """Write something about the work to stderr. Never fails: a closed stderr must not end the work."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sees ``stream``."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def drawable(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that knows more than to write one line after the other."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def coloured(stream: TextIO) -> bool:
    """Whether ``stream`` shows colours: a terminal, unless NO_COLOR or a dumb one says otherwise."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Colour ``text`` when ``stream`` shows colours."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if coloured(stream) else text


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def height() -> int:
    """Lines of the terminal; 24 where there is none."""
    return shutil.get_terminal_size((80, 24)).lines


def table_width() -> int | None:
    """Cells a table on stdout may use; ``None`` when no person sees it and nothing needs to be cut."""
    return width() if is_terminal(sys.stdout) else None
