"""The doctor's look at the machine: Python, packages, the terminal, ports, and where executions are kept."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from flowdeck_devtools.cli._doctor_report import Case, Finding

__all__ = ["executions", "packages", "ports", "python", "terminal"]

_OLDEST, _NEWEST = (3, 11), (3, 14)
_NOT_FOR_USERS: Final = ("all", "dev", "docs", "demo", "arrow")
_PORTS: Final = {4318: "collect", 8000: "serve", 8611: "devtools --serve"}
"""What the commands listen on unless told otherwise."""
_WANTED_SECONDS: Final = 3


def python(case: Case) -> Iterator[Finding]:
    """Look at the interpreter, the platform and the version of this library."""
    from importlib.metadata import version

    running = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", f"flowdeck {version('flowdeck')}, Python {running}, {sys.platform}", "")
    if not _OLDEST <= sys.version_info[:2] <= _NEWEST:
        yield Finding("warning", f"Python {running} is not tested", "use Python 3.11 to 3.14")

    if sys.platform not in ("linux", "darwin"):
        yield Finding("warning", f"{sys.platform} is not tested", "use Linux or macOS; on Windows, WSL")


def packages(case: Case) -> Iterator[Finding]:
    """Look for what each extra brings, and whether its version is one that is known to work."""
    missing: dict[str, list[str]] = {}
    other: dict[str, list[str]] = {}
    sound = True
    try:
        wishes = list(_requirements())
    except ImportError:  # not one of ours; pip and pytest bring it nearly everywhere
        yield Finding("note", "packages were not looked at: that takes the package packaging", "pip install packaging")
        return

    for extra, name, wanted in wishes:
        found = _version(name)
        if found is None:
            missing.setdefault(extra, []).append(name)
        elif not wanted.contains(found, prereleases=True):
            other.setdefault(extra, []).append(f"{name} {found} is installed, {wanted} is needed")

    for extra, words in other.items():
        if extra and extra in missing:  # nobody uses it here; it is told below
            continue

        sound = False
        mend = f"pip install --upgrade 'flowdeck[{extra}]'" if extra else "pip install --upgrade flowdeck"
        level: Any = "warning" if extra else "error"
        yield from (Finding(level, each, mend) for each in words)

    for extra, names in missing.items():
        if extra:
            told = "; ".join([f"not installed: {', '.join(names)}", *other.get(extra, ())])
            yield Finding("note", told, f"pip install 'flowdeck[{extra}]'")
        else:
            yield Finding("error", f"not installed: {', '.join(names)}", "pip install --force-reinstall flowdeck")

    if sound and not missing:
        yield Finding("ok", "every extra is installed", "")


def terminal(case: Case) -> Iterator[Finding]:
    """Look whether DevTools can draw here."""
    if not sys.stdout.isatty():
        yield Finding("ok", "the output is no terminal: plain text, no colours", "")
        return

    kind = os.environ.get("TERM", "")
    columns, lines = shutil.get_terminal_size()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    sound = True
    if kind in ("", "dumb"):
        sound = False
        yield Finding("warning", f"TERM is {kind or 'not set'}: DevTools cannot draw", "export TERM=xterm-256color")

    if encoding != "utf8":
        sound = False
        yield Finding(
            "warning", f"the terminal's encoding is {encoding}", "export LANG=C.UTF-8, or flowdeck devtools --ascii"
        )

    if columns < 80 or lines < 24:
        sound = False
        yield Finding("note", f"the terminal is {columns} by {lines}", "DevTools wants 80 by 24: enlarge the window")

    if sound:
        yield Finding("ok", f"{kind}, {columns} by {lines}, UTF-8", "")


def ports(case: Case) -> Iterator[Finding]:
    """Look whether the ports that commands listen on are free."""
    free = []
    for port, command in _PORTS.items():
        try:
            with socket.create_server(("127.0.0.1", port)):
                free.append(f"{port} ({command})")
        except OSError as problem:
            reason = problem.strerror or str(problem)
            mend = f"flowdeck {command} --port 0 takes a free one, where it is to run beside"
            yield Finding("note", f"port {port} is not free for flowdeck {command}: {reason}", mend)

    if free:
        yield Finding("ok", f"free: {', '.join(free)}", "")


def executions(case: Case) -> Iterable[Finding]:
    """Look at the executions: in ``state.db`` of the store, or in PostgreSQL where a URL says so."""
    from flowdeck.durable.postgres.address import address_of
    from flowdeck.layout import StoreError

    try:
        address = address_of(case.store)
    except StoreError as problem:
        return [Finding("error", str(problem), "")]

    return _in_postgres(address) if address is not None else _in_state_db(case)


def _in_state_db(case: Case) -> Iterator[Finding]:
    if case.layout is None or not (case.layout.root / "state.db").exists():
        return

    from flowdeck.durable import ControlClient
    from flowdeck.layout import StoreError

    try:
        with ControlClient(case.layout.root, busy_timeout=_WANTED_SECONDS) as client:
            waiting = len(client.list_interrupts())
            left = len(client.resumable())
    except StoreError as problem:
        yield Finding("error", str(problem), "")
        return

    yield Finding("ok", f"state.db: {waiting} interrupts wait for an answer, {left} executions can be taken up", "")


def _in_postgres(address: Any) -> Iterator[Finding]:
    try:
        import psycopg
    except ImportError:
        yield Finding("error", f"{address}: psycopg is not installed", "pip install 'flowdeck[postgres]'")
        return

    try:
        with psycopg.connect(address.url, connect_timeout=_WANTED_SECONDS, autocommit=True) as connection:
            version = connection.info.server_version // 10_000
            row = connection.execute(
                "SELECT to_regnamespace(%s) IS NOT NULL, has_database_privilege(current_database(), 'CREATE')",
                [address.schema],
            ).fetchone()
    except psycopg.Error as problem:
        mend = "start the server, or correct the URL (FLOWDECK_EXECUTIONS, --store); see: flowdeck docs scale"
        yield Finding("error", f"{address}: {' '.join(str(problem).split())}", mend)
        return

    made, may_make = row or (False, False)
    if made or may_make:
        state = "its tables are there" if made else "its tables are made at the first use"
        yield Finding("ok", f"{address}: PostgreSQL {version}, {state}", "")
    else:
        yield Finding(
            "error",
            f"{address}: schema {address.schema} is not there and this user may not create it",
            f"CREATE SCHEMA {address.schema} AUTHORIZATION the user of the URL; see: flowdeck docs scale",
        )


def _requirements() -> Iterator[tuple[str, str, Any]]:
    """Go through what the installed distribution asks for: its extra (empty: always), name and versions."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    seen: set[tuple[str, str]] = set()
    for text in requires("flowdeck") or ():
        wanted = Requirement(text)
        extra = _extra_of(text)
        named = (extra, wanted.name)
        if extra in _NOT_FOR_USERS or wanted.name == "flowdeck" or named in seen:
            continue

        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            seen.add(named)
            yield extra, wanted.name, wanted.specifier


def _extra_of(text: str) -> str:
    """Return the extra that a requirement stands in."""
    for quote in ('"', "'"):
        _, found, rest = text.partition(f"extra == {quote}")
        if found:
            return rest.partition(quote)[0]

    return ""


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
