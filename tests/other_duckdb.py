"""Make an environment with the oldest DuckDB that is supported, once, and print its Python: ``make test-all`` uses it.

FLOWDECK_TEST_OTHER_DUCKDB=$(python -m tests.other_duckdb) pytest tests/sinks tests/sql tests/postgres/test_lake.py

It has DuckDB's extensions for the lake, too, where there are wheels of them; elsewhere those tests say what is missing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DUCKDB = "duckdb==1.5.5"
LAKE = ("duckdb-extension-ducklake==1.5.5", "duckdb-extension-postgres-scanner==1.5.5", "msgspec>=0.19")


def main() -> None:
    folder = Path(sys.prefix) / "other-duckdb"
    python = folder / "bin" / "python"
    made = folder / "made-with-lake"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, stdout=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, DUCKDB], check=True, stdout=sys.stderr)
        subprocess.run([*pip, *LAKE], check=False, stdout=sys.stderr)
        made.touch()
    print(python)


if __name__ == "__main__":
    main()
