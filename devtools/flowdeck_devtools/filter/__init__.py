"""One filter language for every list: parsed once, compiled to a test on journal lines or on fields."""

from __future__ import annotations

from flowdeck_devtools.filter.grammar import FIELDS, FilterError, parse
from flowdeck_devtools.filter.predicate import LinePredicate, compile_fields, compile_line

__all__ = ["FIELDS", "FilterError", "LinePredicate", "compile_fields", "compile_line", "parse"]
