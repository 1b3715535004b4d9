"""Who asks and answers, unless another name is given."""

from __future__ import annotations

import getpass

__all__ = ["login_name"]


def login_name() -> str:
    """Return the name of whoever is logged in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
