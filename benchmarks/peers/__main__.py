"""Ours beside other engines, in interleaved runs: ``python -m benchmarks.peers [--install] [--rounds N] [--fresh]``.

``ONLY=W1,W4`` and ``PEERS=burr,langgraph`` choose. Every figure comes from a process of its own in the peer's own
environment (``benchmarks/.envs/<peer>``, made by ``--install``), one round after the other over all peers, so that a
busy moment of the machine hits all alike. What has been measured is kept in ``benchmarks/.envs/results.jsonl``: a run
that was interrupted goes on where it stopped, and ``--fresh`` begins again. CPU time, not wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import environments
from benchmarks.peers.environments import ENVS

HERE = Path(__file__).parent
RESULTS = ENVS / "results.jsonl"
OURS = "flowdeck"
ENGINES = ("burr", "langgraph", "pydantic_graph", "llama_workflows", "agently", "agently_newest")
SCRIPTS = {"agently_newest": "agently"}
"""Peers that run another one's script, in another version."""
ELSEWHERE = ("dbos",)
"""Environments that only other modules use (:mod:`benchmarks.durable`, :mod:`benchmarks.postgres`)."""
TITLES = {
    "W1": "a 20-step chain, us CPU per step",
    "W2": "a fan-out of 100 and its join, us CPU per branch",
    "W3": "1,000 executions at once, 10 steps of 1 ms: CPU seconds, MB of growth",
    "W4": "run, pause, answer, end, in memory: us CPU; bytes of the snapshot at the pause",
    "W7": "resident bytes of one parked execution",
}
OBSERVED = (
    "Observed means: flowdeck, every INFO event in its journal on disk; burr, its file tracker; agently, one hook that "
    "does nothing; langgraph, one async callback that does nothing; llama_workflows, the internal event stream read; "
    "pydantic_graph, iterated. In W4 and W7 agently_newest writes each pause to a SQLite file of its own."
)


@dataclass
class Measured:
    """The values of one figure of one peer, over all rounds."""

    unit: str = ""
    values: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self) -> str:
        low, high = min(self.values), max(self.values)
        spread = "" if low == high else f" ({_short(low)}-{_short(high)})"
        return f"{_short(self.median)} {self.unit}{spread}"


def python_of(peer: str) -> Path:
    return Path(sys.executable) if peer == OURS else environments.python_of(peer)


def script_of(peer: str) -> Path:
    return HERE / f"peer_{SCRIPTS.get(peer, peer)}.py"


def run(peer: str, workload: str) -> dict[str, Any]:
    """Run one workload of one peer once."""
    env = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    env = {key: value for key, value in env.items() if not key.startswith("FLOWDECK_")}
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            # Some keep their records beside the script they are started with.
            script = shutil.copy(script_of(peer), folder)
            command = [str(python_of(peer)), script, workload]
            done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, cwd=folder)
    except subprocess.TimeoutExpired:
        return {"error": "took longer than 600 s"}

    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}

    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def offers(peer: str, workload: str) -> bool:
    """Whether the peer's script has the workload."""
    return f'"{workload}": ' in script_of(peer).read_text()


def measure(peers: list[str], workloads: list[str], rounds: int) -> None:
    """Fill the results file up to ``rounds`` runs of everything."""
    rows = read()
    for number in range(rounds):
        for workload in workloads:
            for peer in peers:
                key = (peer, workload, number)
                if key in rows or not offers(peer, workload):
                    continue

                print(f"round {number + 1}/{rounds}: {workload} {peer}", file=sys.stderr, flush=True)
                row = {"peer": peer, "workload": workload, "round": number, **run(peer, workload)}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def read() -> dict[tuple[str, str, int], dict[str, Any]]:
    if not RESULTS.exists():
        return {}

    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {(row["peer"], row["workload"], row["round"]): row for row in rows}


def table(peers: list[str], workloads: list[str]) -> str:
    """Return what has been measured as Markdown: a table for each workload."""
    figures: dict[str, dict[str, dict[str, Measured]]] = {}
    notes: dict[str, str] = {}
    versions: dict[str, str] = {}
    for (peer, workload, _), row in sorted(read().items()):
        if "error" in row:
            notes[f"{workload} {peer}"] = row["error"]
            continue

        versions[peer] = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        for name, got in row["figures"].items():
            into = figures.setdefault(workload, {}).setdefault(name, {}).setdefault(peer, Measured(got["unit"]))
            into.values += got["values"]
            into.loads.append(row["load"])

    lines: list[str] = []
    for workload in workloads:
        by_name = figures.get(workload)
        if not by_name:
            continue

        lines += [f"**{workload}**: {TITLES[workload]}", "", "| figure | engine | median (spread) | x ours | load |"]
        lines.append("|---|---|---|---|---|")
        for name, by_peer in by_name.items():
            ours = by_peer.get(OURS)
            for peer in sorted((p for p in by_peer if p in peers), key=lambda p: by_peer[p].median):
                found = by_peer[peer]
                ratio = "1" if peer == OURS else f"{found.median / ours.median:.1f}" if ours and ours.median else "-"
                load = f"{min(found.loads):.1f}-{max(found.loads):.1f}"
                lines.append(f"| {name} | {peer} | {found.text()} | {ratio} | {load} |")

        lines += ["", OBSERVED, ""] if workload == "W1" else [""]

    lines.append("Versions: " + "; ".join(f"{versions[p]}" for p in peers if p in versions) + ".")
    lines += [f"Not measured: {what}: {why}" for what, why in notes.items()]
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def chosen(name: str, everything: list[str]) -> list[str]:
    wanted = [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]
    unknown = [word for word in wanted if word not in everything]
    if unknown:
        raise SystemExit(f"{name}: {', '.join(unknown)} unknown; choose from {', '.join(everything)}")

    return [word for word in everything if word in wanted] if wanted else everything


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="make missing environments first (needs the network)")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each figure")
    parser.add_argument("--fresh", action="store_true", help="forget what has been measured")
    options = parser.parse_args()
    workloads = chosen("ONLY", list(TITLES))
    peers = [OURS, *chosen("PEERS", list(ENGINES))]
    ENVS.mkdir(exist_ok=True)
    if options.install:
        for peer in [*peers[1:], *(() if os.environ.get("PEERS") else ELSEWHERE)]:
            environments.make(peer)

    missing = [peer for peer in peers if peer != OURS and not environments.ready(peer)]
    if missing:
        print(f"left out, not installed: {', '.join(missing)} (--install)", file=sys.stderr)

    if options.fresh and RESULTS.exists():
        RESULTS.unlink()

    peers = [peer for peer in peers if peer not in missing]
    measure(peers, workloads, options.rounds)
    print(table(peers, workloads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
