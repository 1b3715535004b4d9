"""PyYAML, where it is installed: the base install does without."""

from __future__ import annotations

from typing import Any

__all__ = ["yaml_or"]


def yaml_or(error: type[Exception]) -> Any:
    """Return the module ``yaml``.

    Raises:
        error: PyYAML is not installed; the text says how to get it.
    """
    try:
        import yaml
    except ImportError as problem:
        raise error("YAML needs the package pyyaml: pip install 'flowdeck[devtools]'") from problem

    return yaml
