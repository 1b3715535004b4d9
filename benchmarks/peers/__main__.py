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
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVS = HERE.parent / ".envs"
RESULTS = ENVS / "results.jsonl"
OURS = "flowdeck"
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "burr": ("burr[sqlite,tracking]==0.42.0",),
    "langgraph": (
        "langgraph==1.2.22",
        "langgraph-checkpoint-sqlite==3.1.2",
        "langgraph-checkpoint-postgres==3.2.0",
        "psycopg[binary,pool]>=3.2",
    ),
    "pydantic_graph": ("pydantic-graph==2.68.0",),
    "llama_workflows": ("llama-index-workflows==2.26.1",),
    "agently": ("agently==4.1.3.1",),
}
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
    "pydantic_graph, iterated."
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
    return Path(sys.executable) if peer == OURS else ENVS / peer / "bin" / "python"


def install(peers: list[str]) -> None:
    """Make the environments that are missing."""
    for peer in peers:
        if peer == OURS or python_of(peer).exists():
            continue

        print(f"installing {peer} …", file=sys.stderr, flush=True)
        folder = ENVS / peer
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *REQUIREMENTS[peer]])
        if done.returncode:
            python_of(peer).unlink()  # half an environment counts as none
            print(f"{peer} could not be installed; it is left out", file=sys.stderr)


def run(peer: str, workload: str) -> dict[str, Any]:
    """Run one workload of one peer once."""
    env = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    env = {key: value for key, value in env.items() if not key.startswith("FLOWDECK_")}
    command = [str(python_of(peer)), str(HERE / f"peer_{peer}.py"), workload]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, cwd=ENVS)
    except subprocess.TimeoutExpired:
        return {"error": "took longer than 600 s"}

    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}

    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def offers(peer: str, workload: str) -> bool:
    """Whether the peer's script has the workload."""
    return f'"{workload}": ' in (HERE / f"peer_{peer}.py").read_text()


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
    peers = [OURS, *chosen("PEERS", list(REQUIREMENTS))]
    ENVS.mkdir(exist_ok=True)
    if options.install:
        install(peers)

    missing = [peer for peer in peers if not python_of(peer).exists()]
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
