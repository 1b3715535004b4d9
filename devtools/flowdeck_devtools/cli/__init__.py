"""The ``flowdeck`` command: the composition root of the project, without Textual.

Exit codes: 0 done, 1 the work failed, 2 it was asked for wrongly (arguments, paths, stores, a missing extra),
130 stopped with Ctrl-C, 141 the reader of the output went away.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRAS = {
    **dict.fromkeys(("typer", "duckdb", "textual", "rich", "yaml"), "devtools"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "web"),
}
"""Which extra brings a package."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit the process. Nothing but a bug of our own ends in a traceback."""
    if sys.platform == "win32":
        _fail("flowdeck runs on Linux and macOS; on Windows use WSL")

    try:
        from flowdeck_devtools.cli._app import run
    except ModuleNotFoundError as error:
        _fail(missing_extra(error))
        raise

    sys.exit(run(sys.argv[1:] if argv is None else argv))


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Say how to install what ``error`` misses; ``None`` when it is none of the extra's packages."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    return None if extra is None else f"{package} is not installed: pip install 'flowdeck[{extra}]'"


def _fail(message: str | None) -> None:
    if message is not None:
        print(f"flowdeck: {message}", file=sys.stderr)
        sys.exit(2)
