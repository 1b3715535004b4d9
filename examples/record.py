"""Record the examples anew: their tapes, and the picture of a trace each. ``python -m examples.record [NAME …]``

Each runs for real, in a folder of its own: the model is a server that answers over HTTP (see ``examples.offline``), the
people are those of the suite. The tapes go into ``evals/tapes``; ``trace.svg`` is what ``flowdeck waterfall`` shows of
the suite's first case.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

__all__ = ["NAMES", "main"]

HERE = Path(__file__).resolve().parent
NAMES = ("document_review", "ticket_triage", "approval_restart", "model_gate", "daily_report", "research_agent")
WIDTH = 120
VOLATILE = {"approval_restart": "mail.send:1"}
"""Arguments that differ from run to run: here the idempotency key."""
COLOURS = {
    "✓": "green",
    r"✗ \S+": "bold red",
    "first failure.*": "red",
    "[█-▏▐▕]+": "cyan",
    "[━┄]+": "blue",
    "^step.*": "dim",
}


def record(name: str, folder: Path) -> None:
    """Write the tapes and the picture of one example."""
    suite = HERE / name / "evals" / f"{name.replace('_', '-')}.yaml"
    store = folder / "store"
    first = next(line.split()[-1] for line in suite.read_text(encoding="utf-8").splitlines() if "- case:" in line)
    volatile = ("--volatile", VOLATILE[name]) if name in VOLATILE else ()
    print(run(folder, "flowdeck_evals", "record", str(suite), "--rewrite", *volatile).splitlines()[-1], name)
    live = ("--case", first, "--level", "live", "--rounds", "2", "--jobs", "1", "--store", str(store))
    run(folder, "flowdeck_evals", "run", str(suite), *live)  # twice: the first one imports what the second one shows
    shown = run(folder, "flowdeck_devtools.cli", "waterfall", "--all", "--store", str(store))
    (HERE / name / "trace.svg").write_text(picture(shown, name.replace("_", " ")), encoding="utf-8")


def picture(shown: str, title: str) -> str:
    """Return what a command showed, as a picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    text = Text.from_ansi(shown)
    for pattern, style in COLOURS.items():
        text.highlight_regex(pattern, style)

    console.print(text, soft_wrap=False)
    return console.export_svg(title=title)


def run(folder: Path, module: str, *arguments: str) -> str:
    """Run a command in ``folder`` and return what it says; end when it fails."""
    more = {"PYTHONPATH": str(HERE.parent), "COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)}\n{done.stdout}{done.stderr}")

    return done.stdout


def main(names: list[str]) -> None:
    for name in names or NAMES:
        if name not in NAMES:
            raise SystemExit(f"there is no example {name!r}: {', '.join(NAMES)}")

        with tempfile.TemporaryDirectory() as folder:
            record(name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
