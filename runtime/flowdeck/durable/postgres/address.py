"""The URL of a PostgreSQL store: ``postgresql://user@host/database?flowdeck_schema=name``."""

from __future__ import annotations

import os
import re
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from flowdeck.layout import StoreError

__all__ = ["EXECUTIONS_VARIABLE", "Address", "address_of", "is_address", "parse"]

EXECUTIONS_VARIABLE: Final = "FLOWDECK_EXECUTIONS"
"""Names the PostgreSQL store in which the executions of every store directory of this process are."""

_SCHEMES: Final = ("postgresql://", "postgres://")
_SCHEMA: Final = "flowdeck"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,50}")


class Address(NamedTuple):
    """Where the executions are. ``str()`` of it holds no password."""

    url: str
    """What libpq is given."""
    schema: str
    """Holds our tables, and nothing else."""
    shown: str

    def __str__(self) -> str:
        return self.shown

    @property
    def channel(self) -> str:
        """Under which name changes are notified."""
        return f"flowdeck_{self.schema}"


def is_address(store: Any) -> bool:
    """Tell the URL of a PostgreSQL store from the path of a directory."""
    return isinstance(store, Address) or (isinstance(store, str | os.PathLike) and str(store).startswith(_SCHEMES))


def address_of(store: Any) -> Address | None:
    """Return where the executions of a store are, when that is PostgreSQL: it is a URL, or ``FLOWDECK_EXECUTIONS`` is.

    Raises:
        StoreError: the URL cannot be read.
    """
    if is_address(store):
        return parse(store)

    url = os.environ.get(EXECUTIONS_VARIABLE, "").strip()
    if not url or str(store or "").endswith(".db"):
        return None

    if not is_address(url):
        raise StoreError(f"{EXECUTIONS_VARIABLE} is no URL of a PostgreSQL store; write postgresql://user@host/name")

    return parse(url)


def parse(url: Any) -> Address:
    """Return the parts of a URL.

    Raises:
        StoreError: it names no host, database or schema that can be used.
    """
    if isinstance(url, Address):
        return url

    try:
        parts = urlsplit(str(url))
        user = f"{quote(parts.username, safe='')}@" if parts.username else ""
    except ValueError as error:
        raise StoreError(f"the store's URL cannot be read: {error}; write postgresql://user@host/name") from None

    query = parse_qsl(parts.query, keep_blank_values=True)
    schema = dict(query).get("flowdeck_schema", _SCHEMA)
    if not _NAME.fullmatch(schema):
        raise StoreError(f"flowdeck_schema={schema!r} is no name for a schema: lower case letters, digits and _ only")

    rest = [(key, value) for key, value in query if key != "flowdeck_schema"]
    asked = urlencode(rest, quote_via=quote)
    place = parts.netloc.rpartition("@")[2]
    shown = urlunsplit((parts.scheme, user + place, parts.path, "", ""))
    host = dict(rest).get("host")
    if host and not parts.hostname:
        shown += f"?host={host}"

    if schema != _SCHEMA:
        shown += f"{'&' if '?' in shown else '?'}flowdeck_schema={schema}"

    return Address(urlunsplit((parts.scheme, parts.netloc, parts.path, asked, "")), schema, shown)
