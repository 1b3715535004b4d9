"""Starts a command family through the guard, says where it is, and waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from flowdeck.environments.process import run_command

FAMILY = """
import os, subprocess, sys, time
away = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
near = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {near.pid} {away.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""

if __name__ == "__main__":
    asyncio.run(run_command([sys.executable, "-c", FAMILY, sys.argv[1]], cwd=Path.cwd(), timeout=600))
