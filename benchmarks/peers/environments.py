"""Environments of the peers, each in ``benchmarks/.envs/<peer>``: what is pinned, and how one is made.

An environment counts only when every pinned package is there in its version. So one whose making was interrupted, or
whose pins have changed since, is made anew; one that cannot be made is taken away again, and its peer left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Final

__all__ = ["ENVS", "PINS", "PROMPTFOO", "make", "make_promptfoo", "promptfoo_ready", "python_of", "ready"]

ENVS: Final = Path(__file__).parents[1] / ".envs"
OPENTELEMETRY: Final = "1.45.2"
PROMPTFOO: Final = "0.121.20"
"""The last version that runs on Node 20."""

PINS: Final[dict[str, tuple[str, ...]]] = {
    # engines: benchmarks.peers
    "burr": ("burr[sqlite,tracking]==0.42.0",),
    "langgraph": (
        "langgraph==1.2.22",
        "langgraph-checkpoint-sqlite==3.1.2",
        "langgraph-checkpoint-postgres==3.2.0",
        "psycopg[binary,pool]==3.3.9",
    ),
    "pydantic_graph": ("pydantic-graph==2.68.0",),
    "llama_workflows": ("llama-index-workflows==2.26.1",),
    "agently": ("agently==4.1.3.1",),
    "agently_newest": ("agently==4.1.4.10",),
    # durable executions: benchmarks.durable, benchmarks.postgres
    "dbos": ("dbos==3.4.0", "psycopg[binary]==3.3.9"),
    # spans: benchmarks.otlp (the newest Logfire whose requirements could be had: 5.4 wants a newer certifi)
    "otel_sdk": (f"opentelemetry-sdk=={OPENTELEMETRY}", f"opentelemetry-exporter-otlp-proto-http=={OPENTELEMETRY}"),
    "logfire": ("logfire==5.2.0", f"opentelemetry-exporter-otlp-proto-http=={OPENTELEMETRY}"),
    # evaluations: benchmarks.evals
    "pydantic_evals": ("pydantic-evals==2.62.0",),
    "inspect_ai": ("inspect_ai==0.3.285",),
    "agently_devtools": ("agently-devtools==0.2.0", "agently==4.1.4.10"),
}


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, whether it is there or not."""
    return ENVS / peer / "bin" / "python"


def ready(peer: str) -> bool:
    """Whether everything pinned is there. Packages come after what they need, so the named ones are the last."""
    if not python_of(peer).exists():
        return False

    places = [str(place) for place in (ENVS / peer).glob("lib/python*/site-packages")]
    for pin in PINS[peer]:
        name, _, wanted = pin.partition("==")
        found = next(iter(Distribution.discover(name=name.partition("[")[0], path=places)), None)
        if found is None or found.version != wanted:
            return False

    return True


def make(peer: str) -> bool:
    """Make a peer's environment unless it is ready. Returns whether it is; a line says why not."""
    if ready(peer):
        return True

    folder = ENVS / peer
    pip = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS[peer]]
    return _made(peer, folder, [sys.executable, "-m", "venv", "--clear", str(folder)], pip)


def promptfoo_ready() -> bool:
    """Whether promptfoo is there in its pinned version, and Node.js to run it."""
    return shutil.which("node") is not None and _npm_version("promptfoo", ENVS / "promptfoo") == PROMPTFOO


def make_promptfoo() -> bool:
    """Install promptfoo unless it is ready. Returns whether it is.

    Its optional packages (1.6 GB: browsers, clouds, models) are left out, but for the database driver it cannot start
    without, whose package is named after the platform.
    """
    if promptfoo_ready():
        return True

    if shutil.which("npm") is None:
        print("promptfoo is left out: no npm here", file=sys.stderr)
        return False

    folder = ENVS / "promptfoo.making"  # what npm makes may be moved: the name is given to what is complete
    npm = ["npm", "install", "--prefix", str(folder), "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    npm += ["--loglevel=error", f"promptfoo@{PROMPTFOO}"]
    folder.mkdir(parents=True, exist_ok=True)
    if not _made("promptfoo", folder, npm):
        return False

    platform = json.loads(_printed("node", "-p", "JSON.stringify([process.platform, process.arch])"))
    driver = "@libsql/" + "-".join(platform) + ("-gnu" if platform[0] == "linux" else "")
    if not _made("promptfoo", folder, [*npm, f"{driver}@{_npm_version('libsql', folder)}"]):
        return False

    shutil.rmtree(ENVS / "promptfoo", ignore_errors=True)
    folder.rename(ENVS / "promptfoo")
    return True


def _npm_version(package: str, folder: Path) -> str | None:
    try:
        described = json.loads((folder / "node_modules" / package / "package.json").read_text(encoding="utf-8"))
    except OSError:
        return None

    return str(described["version"])


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _made(peer: str, folder: Path, *commands: list[str]) -> bool:
    """Run the commands that make a folder; where one fails, or all is stopped, no half of it stays."""
    print(f"installing {peer} …", file=sys.stderr, flush=True)
    succeeded = False
    try:
        succeeded = all(subprocess.run(command, stdout=sys.stderr).returncode == 0 for command in commands)
    finally:
        if not succeeded:
            shutil.rmtree(folder, ignore_errors=True)

    if not succeeded:
        print(f"{peer} could not be installed; it is left out", file=sys.stderr)

    return succeeded
