"""Make an environment with the oldest DuckDB that is supported, once, and print its Python: ``make test-all`` uses it.

FLOWDECK_TEST_OTHER_DUCKDB=$(python -m tests.other_duckdb) pytest tests/sinks tests/sql
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENT = "duckdb>=1.5,<1.6"


def main() -> None:
    folder = Path(sys.prefix) / "other-duckdb"
    python = folder / "bin" / "python"
    made = folder / "made"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, stdout=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        made.touch()
    print(python)


if __name__ == "__main__":
    main()
