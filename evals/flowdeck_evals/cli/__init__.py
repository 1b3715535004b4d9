"""The ``evals`` command, also mounted as ``flowdeck evals``.

Exit codes: 0 pass, 1 gate failed, 2 bad usage or case file, 3 incomplete or untrustworthy, 4 only divergences,
130 interrupted. Precedence when several hold: 2 > 130 > 3 > 1 > 4.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit the process."""
    if sys.platform == "win32":
        print("evals: runs on Linux and macOS; on Windows use WSL", file=sys.stderr)
        sys.exit(2)

    try:
        from flowdeck_evals.cli.app import run_command
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "yaml", "duckdb"):
            raise

        print(f"evals: {error.name} is not installed: pip install 'flowdeck[evals]'", file=sys.stderr)
        sys.exit(2)

    sys.exit(run_command(sys.argv[1:] if argv is None else argv))
