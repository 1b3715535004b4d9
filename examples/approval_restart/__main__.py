"""Kill the process while it waits for the approval, answer while nobody runs it, and let a worker go on.

Each line is something anybody could do at a shell, on the same machine: ``flowdeck run``, ``kill -9``,
``flowdeck interrupts answer``, ``flowdeck worker --once``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from flowdeck.durable import ControlClient, InterruptRow

FLOW = "examples.approval_restart.flow:flow"
LETTER = {"to": "ann@example.org", "about": "the late refund of order o-17"}


def flowdeck(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flowdeck_devtools.cli", *arguments]


def question(store: Path, process: subprocess.Popen[str]) -> InterruptRow:
    """Wait until the run says that it waits, and return what it asks."""
    assert process.stderr is not None
    if not any(line.startswith("waiting for") for line in process.stderr):
        raise SystemExit("the run ended before it asked")

    with ControlClient(store) as client:
        return client.list_interrupts()[0]


def main(folder: Path) -> None:
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    os.chdir(folder)
    store = Path(".flowdeck")
    first = subprocess.Popen(
        flowdeck("run", FLOW, "--input", json.dumps(LETTER), "--durability", "full"), stderr=subprocess.PIPE, text=True
    )
    asked = question(store, first)
    print("asked:", asked.payload["question"], asked.payload["subject"])
    first.kill()
    print("killed:", first.wait())

    with ControlClient(store) as client:
        client.answer(asked.id, {"approved": True}, "ann")

    subprocess.run(flowdeck("worker", FLOW, "--once"), check=True)
    print(Path("outbox.txt").read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
        os.chdir("/")  # out of what is removed now
