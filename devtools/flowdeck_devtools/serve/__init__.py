"""DevTools in a browser: a page on the loopback interface that only the bearer of a token may open."""

from __future__ import annotations

from flowdeck_devtools.serve.server import PORT, serve_devtools

__all__ = ["PORT", "serve_devtools"]
