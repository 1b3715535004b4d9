"""References: what a record can be named by, also in another workspace that is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowdeck.errors import WorkspaceConfigurationError, WorkspaceRecordNotFound

if TYPE_CHECKING:
    from flowdeck.workspace.manager import WorkspaceManager
    from flowdeck.workspace.reading import WorkspaceReader

__all__ = ["Reference", "parse_reference"]

SCHEME: Final = "workspace://"


@dataclass(slots=True)
class Reference:
    """What a reference names, and where."""

    workspace: Any
    path: str
    """A record's id or path, or a path below ``files``."""
    file: bool = False
    record: dict[str, Any] | None = None


def parse_reference(home: WorkspaceReader | None, manager: WorkspaceManager, ref: Any) -> Reference:
    """Read a record, an id, a path or a ``workspace://`` reference; it belongs to ``home`` unless it says otherwise.

    Raises:
        WorkspaceConfigurationError: it is none of these.
        WorkspaceRecordNotFound: the workspace it names is not open in this process.
    """
    text = ref.get("id") if isinstance(ref, Mapping) else ref
    if not isinstance(text, str) or not text:
        raise WorkspaceConfigurationError(f"{ref!r} names no record: expected a record, its id, its path or its uri")

    if not text.startswith(SCHEME):
        return Reference(home, text)

    rest = text[len(SCHEME) :]
    owner, _, inner = rest.partition("/")
    if owner.startswith("ws_"):
        rest = inner
        if home is not None and owner != home.id:
            other = manager.opened(owner)
            if other is None:
                raise WorkspaceRecordNotFound(f"{text}: workspace {owner} is not open in this process; open it first")

            home = other

    if rest.startswith("files/"):
        return Reference(home, rest[len("files/") :], file=True)

    return Reference(home, rest)
