"""When DevTools itself fails: the terminal is given back, one line says where the report is, nothing else is lost."""

from __future__ import annotations

import faulthandler
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TextIO

import textual

__all__ = ["FaultReport", "report_folder", "write_report"]


def report_folder() -> Path:
    """Where crash reports go: the user's state folder, else the temporary one."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    folder = Path(base) / "flowdeck"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def _path(kind: str) -> Path:
    return report_folder() / f"devtools-{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"


def write_report(error: BaseException, last_action: str) -> Path | None:
    """Write what happened to a file only its owner can read; ``None`` when not even that works.

    The report holds the traceback without the values of variables: those may be somebody's data.
    """
    path = _path("crash")
    text = "".join(traceback.format_exception(error))
    about = f"flowdeck devtools, textual {textual.__version__}, python {sys.version.split()[0]}, {platform.platform()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"{about}\nlast action: {last_action}\n\n{text}")
    except OSError:
        return None
    return path


class FaultReport:
    """While inside, a crash below Python (a segfault) leaves a report. An unused report is removed."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self.path: Path | None = None

    def __enter__(self) -> FaultReport:
        try:
            self.path = _path("fault")
            self._file = self.path.open("w", encoding="utf-8")
            faulthandler.enable(self._file)
        except (OSError, RuntimeError):
            self._file = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None or self.path is None:
            return
        faulthandler.disable()
        self._file.close()
        try:
            if self.path.stat().st_size == 0:
                self.path.unlink()
        except OSError:
            pass
