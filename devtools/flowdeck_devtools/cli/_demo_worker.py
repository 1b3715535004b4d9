"""The audit's own process while a person looks at DevTools: ``python -m …cli._demo_worker ORDER``.

It reports in JSON lines on stdout (``event``, then ``done``, ``failed`` or ``stopped``) and runs on until its
stdin ends, which is how it notices that the terminal is gone: an audit nobody can answer must not stay.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowdeck_devtools.cli._audit import Order, run_audit
from flowdeck_devtools.cli._errors import Stopped, explain, one_line
from flowdeck_devtools.cli._example import load

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the audit that ``argv[0]`` (JSON) orders and report on stdout."""
    fields = json.loads(argv[0])
    order = Order(tuple(fields["paths"]), fields["out"], Path(fields["store"]))
    audit_error: type[Exception] = load("metadata").AuditError
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        outcome = run_audit(order, lambda event: _report("event", event=event))
    except Stopped as stopped:
        _report("stopped")
        return stopped.code
    except audit_error as error:
        _report("failed", message=one_line(error), code=2)
        return 2
    except Exception as error:
        known = explain(error)
        message = str(known) if known else f"internal error, {type(error).__name__}: {one_line(error)}"
        _report("failed", message=message, code=1)
        if known is None:
            raise

        return 1

    _report("done", summary=outcome.summary, execution_id=outcome.execution_id, remarks=outcome.remarks)
    return 0


def _report(kind: str, **fields: Any) -> None:
    try:
        sys.stdout.write(json.dumps({"kind": kind, **fields}, default=_plain) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # Whoever asked is gone; the end of stdin stops the audit.


def _plain(value: object) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass

    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
