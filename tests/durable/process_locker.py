"""Holds ``state.db`` with BEGIN EXCLUSIVE: from its first line on, for the given seconds or until stdin ends."""

from __future__ import annotations

import sqlite3
import sys
import threading

connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10.0)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
if len(sys.argv) > 2:
    threading.Event().wait(float(sys.argv[2]))
else:
    sys.stdin.read()
connection.execute("COMMIT")
print("free", flush=True)
