"""``flowdeck devtools``: watch live and past runs in the terminal, or in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from flowdeck_devtools.cli import _output
from flowdeck_devtools.cli._errors import CliError
from flowdeck_devtools.cli._options import existing_store

if TYPE_CHECKING:
    from flowdeck_devtools.core.sources import Source

__all__ = ["devtools", "open_devtools"]

_FASTEST = 1_000.0


def devtools(
    events: Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="The same as --file.")] = None,
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Events of a .jsonl, .duckdb or .parquet file; - reads a pipe.")
    ] = None,
    replay: Annotated[
        str | None, typer.Option(metavar="SPEED", help="Play the file, or --run, once more: 1x, 10x …")
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Open this run or execution at once.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Who answers (default: the login name).")] = None,
    theme: Annotated[str, typer.Option(metavar="NAME", help="dark, light, or another theme of Textual's.")] = "dark",
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters alone.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="In a browser: on 127.0.0.1 alone, behind a token.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port for --serve; 0 takes a free one.")] = 8611,
    store: Annotated[
        list[str] | None,
        typer.Option("--store", metavar="DIR", help="The store; several times for several at once."),
    ] = None,
) -> int:
    """Watch live and past runs, and answer what waits."""
    speed = _speed(replay)
    if theme not in ("dark", "light"):
        _check_theme(theme)
    source_name = file or events
    wanted: list[str | None] = [*dict.fromkeys(store or [])] or [None]
    stores = [] if source_name else [existing_store(one) for one in wanted]
    if serve and (source_name or speed is not None):
        raise CliError("--serve shows a store: leave --file and --replay away", 2)
    if serve:
        return _serve(stores, port, run, actor, theme, ascii_only)

    look: dict[str, Any] = {"theme": theme, "ascii_only": ascii_only}
    if source_name is None and speed is None:
        return open_devtools(stores[0], run, actor, also=stores[1:], **look)
    _need_screen(stdin=source_name != "-")
    source = _source(source_name, speed, run, stores[0] if stores else None)
    shown = None if source_name is None and speed is not None else run
    return open_devtools(source.store, shown, actor, source=source, **look)


def open_devtools(
    store: Path, run: str | None = None, actor: str | None = None, *, source: Source | None = None, **look: Any
) -> int:
    """Show DevTools on ``store`` until the person leaves it, and return its exit code.

    Raises:
        CliError: there is no terminal to show it on.
    """
    _need_screen()

    from flowdeck_devtools.tui import run_devtools

    return run_devtools(store, initial_run=run, actor=actor, source=source, **look)


def _need_screen(*, stdin: bool = True) -> None:
    if os.environ.get("TEXTUAL_DRIVER", "").endswith(":WebDriver"):
        return  # drawn in a browser
    if not ((not stdin or _output.is_terminal(sys.stdin)) and _output.is_terminal(sys.stdout)):
        raise CliError("devtools needs a terminal; for pipes use: flowdeck runs, flowdeck events, flowdeck sql", 2)
    if not _output.drawable(sys.stdout):
        kind = os.environ.get("TERM") or "not set"
        raise CliError(f"devtools cannot draw where TERM is {kind}: export TERM=xterm-256color", 2)


def _check_theme(name: str) -> None:
    from flowdeck_devtools.tui.run import known_themes

    if name not in known_themes():
        raise CliError(f"no theme {name!r}; there are: {', '.join(known_themes())}", 2)


def _speed(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        speed = float(text.lower().removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0.01 <= speed <= _FASTEST:
        raise CliError(f"--replay wants a speed such as 1x, 10x or 0.5x, not {text!r}", 2)
    return speed


def _source(name: str | None, speed: float | None, run: str | None, store: Path | None) -> Source:
    from flowdeck_devtools.core import sources

    try:
        if name == "-":
            if speed is not None:
                raise CliError("--replay needs a file or --run: a pipe has its own rhythm", 2)
            return sources.open_pipe(_piped())
        if name is not None:
            return sources.open_file(Path(name), speed=speed)
        return sources.open_lines(_lines_of_run(store, run), speed=speed)
    except sources.SourceError as error:
        raise CliError(str(error) if name is None else f"{name}: {error}".replace(f"{name}: {name}", name), 2) from None


def _lines_of_run(store: Path | None, run: str | None) -> list[bytes]:
    from flowdeck_devtools.cli._runs import find_run
    from flowdeck_devtools.cli._stored import open_reader
    from flowdeck_devtools.core.history import History

    assert store is not None  # without a file there is a store
    with open_reader(store) as reader:
        row = find_run(reader, store, run)
    lines, problem = History(store).run_lines(str(row["root_run_id"] or row["run_id"]))
    if not lines:
        raise CliError(problem or "that run has no stored events")
    return [line for _, line in lines]


def _piped() -> BinaryIO:
    """Take the pipe from descriptor 0 and give that back to the keyboard."""
    if _output.is_terminal(sys.stdin):
        raise CliError("- reads events from a pipe: flowdeck events --follow --json | flowdeck devtools -", 2)
    pipe = os.fdopen(os.dup(0), "rb")
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise CliError("devtools needs a terminal for its keys", 2) from None
    os.dup2(terminal, 0)
    os.close(terminal)
    return pipe


def _serve(stores: list[Path], port: int, run: str | None, actor: str | None, theme: str, ascii_only: bool) -> int:
    try:
        from flowdeck_devtools.serve import serve_devtools
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual_serve", "aiohttp", "aiohttp_jinja2", "jinja2"):
            raise
        raise CliError("textual-serve is not installed: pip install 'flowdeck[serve]'", 2) from None

    arguments = ["--theme", theme, *(["--ascii"] if ascii_only else [])]
    for option, value in (("--run", run), ("--actor", actor)):
        arguments += [option, value] if value else []
    for further in stores[1:]:
        arguments += ["--store", str(further)]
    return serve_devtools(stores[0], port=port, arguments=arguments)
