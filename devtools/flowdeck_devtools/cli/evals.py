"""``flowdeck evals``: the same verbs as the ``evals`` command, which lives in the evals component."""

from __future__ import annotations

from flowdeck_evals.cli.app import app as evals

__all__ = ["evals"]
