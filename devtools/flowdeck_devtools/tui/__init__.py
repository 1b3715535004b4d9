"""The terminal user interface. Only this package of DevTools imports Textual."""

from __future__ import annotations

from flowdeck_devtools.tui.app import Background, DevToolsApp
from flowdeck_devtools.tui.run import run_devtools

__all__ = ["Background", "DevToolsApp", "run_devtools"]
