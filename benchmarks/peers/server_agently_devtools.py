"""Ingest of the nearest peer's DevTools server (agently-devtools): run by its own Python, prints one JSON object.

It is started on a spare port with a home of its own; the same events go to it in batches, one request after the other.
Server CPU comes from /proc where there is one.

    python -m benchmarks.store_ingest --only peer      # makes the environment, runs this, and prints it beside ours
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PORT = 15778
URL = f"http://127.0.0.1:{PORT}/observation"
BATCHES = ((1, 40, 5), (100, 3, 7), (500, 1, 7))
"""Events a request, requests a round, rounds."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds a process has used; 0 where /proc is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def post(events: list[dict]) -> None:
    body = json.dumps({"events": events, "app_id": "bench"}).encode()
    request = urllib.request.Request(URL + "/ingest", data=body, headers={"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=120).read()


def wait_for_server() -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(URL + "/runs", timeout=2).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the server did not start")


def measure(template: dict, pid: int) -> dict[str, float]:
    out = {}
    for size, posts, rounds in BATCHES:
        rates, costs = [], []
        for _ in range(rounds):
            bodies = [[{**template, "event_id": os.urandom(16).hex()} for _ in range(size)] for _ in range(posts)]
            begun, cpu = time.perf_counter(), cpu_seconds(pid)
            for events in bodies:
                post(events)
            rates.append(size * posts / (time.perf_counter() - begun))
            costs.append((cpu_seconds(pid) - cpu) / (size * posts) * 1e6)
        out[f"batch{size}_events_per_s_wall"] = statistics.median(rates)
        out[f"batch{size}_server_cpu_us"] = statistics.median(costs)
    return out


def main() -> None:
    template = json.loads(sys.stdin.read())
    command = str(Path(sys.executable).with_name("agently-devtools"))
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(
            [command, "start", "--no-open", "--port", str(PORT)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
            cwd=home,
        )
        try:
            wait_for_server()
            found = measure(template, server.pid)
        finally:
            server.terminate()
            server.wait(20)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
