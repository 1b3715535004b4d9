"""One filter language for every list: parsed once, compiled to a test on lines or fields, or to SQL."""

from __future__ import annotations

from flowdeck_devtools.filter.fields import FIELDS, FilterError
from flowdeck_devtools.filter.grammar import parse
from flowdeck_devtools.filter.predicate import LinePredicate, compile_fields, compile_line
from flowdeck_devtools.filter.sql import compile_sql

__all__ = ["FIELDS", "FilterError", "LinePredicate", "compile_fields", "compile_line", "compile_sql", "parse"]
