"""Spans as OTLP JSON with everything volatile replaced, and the golden files made of it.

``python -m tests.otlp.golden`` plays the six scenarios anew and writes ``tests/otlp/golden/*.json``; look at the
difference before you commit it.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from tests.otlp.scenarios import PROCESSES, Line, map_all, play

FOLDER = Path(__file__).parent / "golden"
_IDS = ("traceId", "spanId", "parentSpanId")
_TIMES = ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano")
_STACK = "exception.stacktrace"


def otlp_json(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Return spans as OTLP JSON (ids in hexadecimal), encoded by the SDK's own encoder."""
    message = MessageToDict(encode_spans(spans))
    for span in _spans(message):
        for part in (span, *span.get("links", [])):
            for key in _IDS:
                if key in part:
                    part[key] = base64.b64decode(part[key]).hex()

    return message


def normalised(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Return OTLP JSON in which a second run of the same scenario looks the same.

    Ids are numbered in order of appearance, spans stand in order of start; times, durations and tracebacks become
    marks, and resources of writers are numbered too.
    """
    ordered = sorted(spans, key=lambda span: (span.start_time or 0, -(span.end_time or 0), span.name))
    message = otlp_json(ordered)
    message["resourceSpans"].sort(key=lambda resource: min(ordered_index(resource, ordered)))
    names: dict[str, str] = {}

    def number(text: str, what: str) -> str:
        return names.setdefault(text, f"<{what} {1 + sum(v.startswith(f'<{what} ') for v in names.values())}>")

    for resource in message["resourceSpans"]:
        for attribute in resource["resource"]["attributes"]:
            if attribute["key"] == "service.instance.id":
                attribute["value"]["stringValue"] = number(attribute["value"]["stringValue"], "writer")

        for scope in resource["scopeSpans"]:
            scope["scope"]["version"] = "<version>"
            for span in scope["spans"]:
                number(span["spanId"], "span")

    for span in _spans(message):
        for part in (span, *span.get("links", [])):
            for key in _IDS:
                if key in part:
                    part[key] = number(part[key], "trace" if key == "traceId" else "span")

        for part in (span, *span.get("events", [])):
            part.update((key, "<time>") for key in _TIMES if key in part)
            part.get("attributes", []).sort(key=lambda attribute: attribute["key"])
            for attribute in part.get("attributes", []):
                _normalise(attribute, number)

        for link in span.get("links", []):
            link.pop("flags", None)

    return message


def ordered_index(resource: dict[str, Any], ordered: Sequence[ReadableSpan]) -> list[int]:
    """Return the places of a resource's spans."""
    places = {f"{span.context.span_id:016x}": place for place, span in enumerate(ordered) if span.context is not None}
    return [places[span["spanId"]] for scope in resource["scopeSpans"] for span in scope["spans"]]


def _normalise(attribute: dict[str, Any], number: Any) -> None:
    key, value = attribute["key"], attribute["value"]
    if key == "flow.duration_us":
        value["intValue"] = "<microseconds>"
    elif key == _STACK:
        value["stringValue"] = "<traceback>"
    elif "stringValue" in value:
        value["stringValue"] = re.sub(
            r"\b[0-9a-f]{32}\b",
            lambda found: number(found[0], "id"),
            value["stringValue"],
        )
        value["stringValue"] = re.sub(r'"(created_at|resumed_at)":[\d.]+', r'"\1":"<time>"', value["stringValue"])


def _spans(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        span for resource in message["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
    ]


def render(lines: Sequence[Line]) -> str:
    """Return the golden text of a scenario."""
    text = json.dumps(normalised(map_all(lines)), indent=1, ensure_ascii=False) + "\n"
    # One attribute a line: a page that can be read.
    return re.sub(
        r'\{\s*"key": ("[^"]*"),\s*"value": \{\s*("\w+": (?:"(?:[^"\\]|\\.)*"|true|false))\s*\}\s*\}',
        r'{"key": \1, "value": {\2}}',
        text,
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for scenario in sys.argv[1:] or PROCESSES:
            (FOLDER / f"{scenario}.json").write_text(render(play(scenario, Path(folder))), encoding="utf-8")
            print(f"{scenario}.json")


if __name__ == "__main__":
    main()
