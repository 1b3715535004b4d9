from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowdeck.events import EventCenter, Fragment
from flowdeck.events.lineage import RunContext, run_context
from flowdeck_sinks.console import ConsoleSink, create_sink, strip_control


def printed(mode: str, emit: Any, **options: Any) -> str:
    """What a console sink prints of what ``emit(center)`` emits."""
    stream = io.StringIO()
    center = EventCenter()
    sink = ConsoleSink(mode, stream=stream, **options)
    center.add_sink(sink)
    emit(center)
    assert sink.flush(10.0)
    sink.close(5.0)
    return stream.getvalue()


def test_simple_is_one_line_per_event() -> None:
    """Time, level, type, chunk, attempt, duration and message stand on one line; DEBUG is not shown."""

    def emit(center: EventCenter) -> None:
        center.type("triggerflow.signal").emit({"x": 1})
        center.type("chunk.completed").emit(
            {"output": 1}, Fragment({"chunk_name": "classify"}), None, 1, 2, attempt=2, duration_us=12_345
        )
        center.emit({"event_type": "billing.paid", "message": "two\nlines", "error": ValueError("bad")})

    first, second = printed("simple", emit).splitlines()

    assert first.endswith("INFO     chunk.completed [classify] attempt=2 12.3 ms")
    assert second.endswith("INFO     billing.paid - two lines ! ValueError: bad")


def test_detail_adds_payload_and_traceback() -> None:
    """The payload is indented below, secrets masked, and the error's traceback shown."""

    def emit(center: EventCenter) -> None:
        try:
            raise ValueError("bad")
        except ValueError as problem:
            center.emit({"event_type": "a.b", "payload": {"api_key": "S3CRET", "n": 1}, "error": problem})

    text = printed("detail", emit)

    assert '      "n": 1' in text
    assert "S3CRET" not in text and "[redacted]" in text
    assert "Traceback (most recent call last)" in text


def test_off_prints_nothing() -> None:
    """A sink that is off accepts and ignores."""
    assert printed("off", lambda center: center.emit({"event_type": "a.b"})) == ""


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mc1", "c1"),
        ("a\x00\x08\x7fb", "ab"),
        ("a\r\nb\tc", "a b c"),
        ("\u202egnp.exe\u2066", "gnp.exe"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1b", ""),
        ("\x1b(Bx", "x"),
    ],
)
def test_control_characters_never_reach_the_terminal(text: str, clean: str) -> None:
    """Escape sequences, C0, C1 and bidi overrides are removed, readable text stays."""
    assert strip_control(text) == clean


def test_hostile_events_cannot_drive_the_terminal() -> None:
    """Whatever field the sequence hides in, nothing but printable text comes out."""
    evil = "\x1b[2J\x9b31m\x07\u202e"

    def emit(center: EventCenter) -> None:
        center.emit(
            {
                "event_type": f"a.{evil}",
                "source": evil,
                "message": evil,
                "payload": {evil: [evil], "chunk_name": evil},
                "error": ValueError(evil),
                "run": {"run_id": evil, "run_kind": evil},
            }
        )

    text = printed("detail", emit)

    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.splitlines()) > 3


@pytest.fixture
def pipe() -> Iterator[tuple[int, Any]]:
    """A pipe nobody reads: the reading end, and the writing end as a text stream."""
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield reader, stream
    with contextlib.suppress(OSError):
        os.close(reader)

    with contextlib.suppress(OSError):
        stream.close()


def test_a_full_pipe_never_blocks_the_program(pipe: tuple[int, Any]) -> None:
    """Nobody reads: accept returns at once, what does not fit is dropped and counted, close keeps its time."""
    _, stream = pipe
    center = EventCenter()
    sink = ConsoleSink("simple", stream=stream, queue_bytes=200_000)
    center.add_sink(sink)
    emitted = threading.Event()

    def work() -> None:
        for number in range(5_000):
            center.emit({"event_type": "a.b", "message": "x" * 100, "payload": number})

        emitted.set()

    threading.Thread(target=work, daemon=True).start()
    assert emitted.wait(30)
    assert not sink.flush(0.05)
    sink.close(0.2)

    counts = sink.statistics()
    assert counts["accepted"] == 5_000
    assert int(counts["dropped"]) > 1_000


def test_a_reader_that_comes_back_gets_whole_lines(pipe: tuple[int, Any]) -> None:
    """After a stall the lines that were kept are complete, and the loss is said."""
    reader, stream = pipe
    center = EventCenter()
    sink = ConsoleSink("simple", stream=stream, queue_bytes=300_000)
    center.add_sink(sink)
    for number in range(5_000):
        center.emit({"event_type": "a.b", "message": f"<{number}>" + "x" * 100})

    chunks: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reader, 65_536):
            chunks.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    center.emit({"event_type": "a.b", "message": "the last"})
    assert sink.flush(10.0)
    sink.close(5.0)
    stream.close()
    thread.join()
    lines = b"".join(chunks).decode().splitlines()

    assert any("events not shown" in line for line in lines)
    assert [line for line in lines if not line.endswith(("x" * 100, "the last", "too slow"))] == []


def test_a_broken_pipe_ends_the_sink_quietly(pipe: tuple[int, Any]) -> None:
    """The reader went away: nothing is raised, the events are counted as dropped."""
    reader, stream = pipe
    os.close(reader)
    center = EventCenter()
    sink = ConsoleSink("simple", stream=stream)
    center.add_sink(sink)
    for _ in range(10):
        center.emit({"event_type": "a.b"})

    sink.flush(10.0)
    center.emit({"event_type": "a.b"})
    sink.close(1.0)

    assert sink.statistics()["dropped"] == 11
    assert center.statistics()["sinks"]["console"]["failures"] == 0


def test_a_stream_that_cannot_say_it_is_written_escaped(pipe: tuple[int, Any]) -> None:
    """An ASCII terminal gets escapes instead of an encoding error."""
    reader, stream = pipe
    stream.reconfigure(encoding="ascii")
    center = EventCenter()
    sink = ConsoleSink("simple", stream=stream)
    center.add_sink(sink)
    center.emit({"event_type": "a.b", "message": "ü"})
    assert sink.flush(10.0)
    sink.close(1.0)

    assert os.read(reader, 1000).decode("ascii").endswith("- \\xfc\n")


def test_a_forked_child_prints_its_own() -> None:
    """The child's sink starts its own thread and prints what the child emits."""
    reader, writer = os.pipe()
    center = EventCenter()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        sink = ConsoleSink("simple", stream=stream)
        center.add_sink(sink)
        center.emit({"event_type": "the.parent"})
        assert sink.flush(10.0)
        child = os.fork()
        if child == 0:
            center.emit({"event_type": "the.child"})
            os._exit(0 if sink.flush(10.0) else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        sink.close(1.0)

    with os.fdopen(reader) as lines:
        assert [line.split()[-1] for line in lines] == ["the.parent", "the.child"]


def test_targets_are_modes() -> None:
    """The entry point's target is the profile; a wrong mode or family is named."""
    assert create_sink("").profiles.spec == "simple"
    assert create_sink("detail").statistics()["mode"] == "detail"
    with pytest.raises(ValueError, match="off, simple, detail"):
        create_sink("loud")

    with pytest.raises(ValueError, match="model, action, tool, trigger_flow, runtime, not 'chunk'"):
        create_sink("simple+chunk=off")


FAMILIES = ("model.completed", "action.started", "tool.loop_started", "chunk.started", "runtime.info", "my.event")


@pytest.mark.parametrize(
    ("profile", "shown"),
    [
        ("simple", "ssssss"),
        ("detail", "dddddd"),
        ("simple+model=detail", "dsssss"),
        ("detail,trigger_flow=off", "ddd.dd"),
        ("off+runtime=simple", "....ss"),
        ("tool=detail", ".dd..."),
        ("action=simple", ".ss..."),
        ("action=off+tool=detail", "..d..."),
        ("simple+tool=off+action=detail", "sd.sss"),
    ],
)
def test_profiles_by_family(profile: str, shown: str) -> None:
    """Each family has a mode; action and tool follow each other where only one is given."""

    def emit(center: EventCenter) -> None:
        for name in FAMILIES:
            center.emit({"event_type": name, "payload": {"n": 1}})

    lines = printed(profile, emit).splitlines()
    seen = ""
    for name in FAMILIES:
        at = next((k for k, line in enumerate(lines) if f" {name}" in line), None)
        detailed = at is not None and at + 1 < len(lines) and lines[at + 1] == "    {"
        seen += "." if at is None else "d" if detailed else "s"

    assert seen == shown


def test_a_run_has_a_profile_of_its_own() -> None:
    """run_context(console=…) goes before the sink's profile for that run and everything below it; nonsense does not."""

    def emit(center: EventCenter) -> None:
        for profile in ("off", "detail", "nonsense", None):
            with run_context(**({"console": profile} if profile else {})):
                parent = RunContext.create(run_kind="workflow_execution", meta={"flow_name": str(profile)})

            child = RunContext.attempt(parent, "chunk_execution", Fragment({"chunk_name": f"in {profile}"}))
            center.type("chunk.started").emit({"input": 1}, None, child)

    text = printed("simple", emit)
    assert "in off" not in text
    assert "[in detail]\n    {" in text
    assert "[in nonsense]\n" in text and "[in None]" in text
    assert text.count("    {") == 1
