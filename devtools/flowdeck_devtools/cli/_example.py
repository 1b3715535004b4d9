"""Find the licence audit, shipped as an example to copy, and import it as the package it is."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from flowdeck_devtools.cli._errors import CliError

__all__ = ["example_folder", "load"]

_NAME = "licence_audit"


def example_folder() -> Path:
    """Return the folder of the example: in the repository of an editable install, else inside the package.

    Raises:
        CliError: the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "examples" / _NAME, package / "examples" / _NAME):
        if (folder / "flow.py").is_file():
            return folder

    raise CliError("this installation lacks the demo's files: pip install --force-reinstall 'flowdeck[devtools]'", 2)


def load(module: str) -> ModuleType:
    """Import ``licence_audit.<module>``, so that the demo runs exactly the code in the example's folder."""
    parent = str(example_folder().parent)
    if parent not in sys.path:
        sys.path.insert(0, parent)

    return importlib.import_module(f"{_NAME}.{module}")
