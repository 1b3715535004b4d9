"""Which directories an environment may work in: resolved first, so that links and ``..`` cannot lead out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowdeck.errors import ExecutionEnvironmentRefused

__all__ = ["allowed_path", "roots_of"]


def roots_of(policy: Mapping[str, Any]) -> list[Path]:
    """Return the roots a policy names (``workspace_roots`` and ``path_allowlist``), resolved; empty for none."""
    given = [*(policy.get("workspace_roots") or ()), *(policy.get("path_allowlist") or ())]
    return [Path(each).expanduser().resolve() for each in given]


def allowed_path(path: str | Path, policy: Mapping[str, Any], what: str) -> Path:
    """Return ``path`` resolved.

    Raises:
        ExecutionEnvironmentRefused: it lies outside the policy's roots, or under a denied one.
    """
    resolved = Path(path).expanduser().resolve()
    denied = [Path(each).expanduser().resolve() for each in policy.get("path_denylist") or ()]
    roots = roots_of(policy)
    inside = not roots or any(resolved.is_relative_to(root) for root in roots)
    if inside and not any(resolved.is_relative_to(each) for each in denied):
        return resolved

    there = ", ".join(map(str, roots)) or "anywhere but the denied ones"
    raise ExecutionEnvironmentRefused(
        f"{what} {str(path)!r} (in full {resolved}) is not allowed; allowed are: {there}",
        payload={"path": str(resolved), "roots": [str(root) for root in roots]},
    )
