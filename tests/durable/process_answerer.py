"""Waits for a line, answers one interrupt and prints the outcome (``accepted`` when it won)."""

from __future__ import annotations

import sys

from flowdeck.durable import ControlClient

with ControlClient(sys.argv[1]) as client:
    print("ready", flush=True)
    sys.stdin.readline()
    print(client.answer(sys.argv[2], sys.argv[3], sys.argv[3]).outcome or "accepted", flush=True)
