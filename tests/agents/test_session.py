"""Sessions: history, window, resizing, and keeping them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowdeck.agents import FileSessions, Session, SessionError

pytestmark = pytest.mark.anyio


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user" if number % 2 == 0 else "assistant", "content": text} for number, text in enumerate(texts)]


def test_set_replaces_and_add_keeps_duplicates() -> None:
    """History and window go together until something is cut from the window."""
    session = Session("s")
    session.set_chat_history(said("a", "b")).add_chat_history(said("a"))
    assert session.full_context == session.context_window == [*said("a", "b"), *said("a")]
    session.set_chat_history(said("c")[0])
    assert session.full_context == session.context_window == said("c")
    session.clean_context_window()
    assert (session.full_context, session.context_window) == (said("c"), [])
    session.memo = "m"
    session.reset_chat_history()
    assert (session.full_context, session.context_window, session.memo) == ([], [], None)


@pytest.mark.parametrize("bad", ["text", 7, [{"role": "user"}], [{"role": 1, "content": ""}], [[]]])
def test_what_is_no_message(bad: Any) -> None:
    """Is refused by name, and changes nothing."""
    session = Session("s")
    with pytest.raises(SessionError, match="session 's'"):
        session.add_chat_history(bad)

    assert session.full_context == []


def test_the_window_is_cut_and_the_history_is_not() -> None:
    """simple_cut keeps the newest messages that fit, or the tail of the last one."""
    session = Session("s")
    session.max_length = 3 * len(str({"role": "user", "content": "0"}))
    session.add_chat_history([{"role": "user", "content": str(number)} for number in range(6)])
    assert [message["content"] for message in session.context_window] == ["3", "4", "5"]
    assert len(session.full_context) == 6
    session.add_chat_history({"role": "user", "content": "x" * 500 + "end"})
    assert len(session.context_window) == 1
    assert len(session.context_window[0]["content"]) == session.max_length
    assert session.context_window[0]["content"].endswith("end")
    still = Session("t", auto_resize=False)
    still.max_length = 1
    assert len(still.add_chat_history(said("a", "b")).context_window) == 2
    assert still.resize() == "simple_cut"
    with pytest.raises(SessionError, match="max_length=0"):
        session.max_length = 0


async def test_own_handlers() -> None:
    """Analysis names the strategy, the strategy returns what it changes; both may be asynchronous."""
    session = Session("s")

    async def analyse(full: Any, window: Any, memo: Any, settings: Any) -> str | None:
        return "summarise" if len(window) > 2 else None

    async def summarise(full: Any, window: Any, memo: Any, settings: Any) -> tuple[Any, Any, Any]:
        return None, window[-1:], f"{len(window) - 1} earlier"

    session.register_session_analysis_handler(analyse).register_session_resize_handler("summarise", summarise)
    await session.async_add_chat_history(said("a", "b"))
    assert session.memo is None
    await session.async_add_chat_history(said("c"))
    assert (len(session.full_context), session.context_window, session.memo) == (3, said("c"), "2 earlier")
    session.add_chat_history(said("d", "e"))  # the synchronous twin, inside a running loop
    assert session.context_window == [said("d", "e")[1]]
    with pytest.raises(SessionError, match="expected a name"):
        session.register_session_resize_handler(" ", summarise)

    session.register_session_analysis_handler(lambda *_: "other")
    with pytest.raises(SessionError, match="no resize strategy 'other'; there are simple_cut, summarise"):
        session.resize()

    session.register_session_resize_handler("other", lambda *_: 5)
    with pytest.raises(SessionError, match=r"returned 5, not \(full, window, memo\)"):
        session.resize()


def test_selected_fields() -> None:
    """Keys choose what is remembered; without keys it is the whole text."""
    session = Session("s")
    request = {"input": "hi", "info": {"lang": "de", "n": 1}}
    assert session.user_content("all", request) == "all"
    session.input_keys = ["input", ".request.info.n", ".agent.role", "none"]
    assert session.user_content("all", request, {"role": "lawyer"}) == (
        "[input]:\nhi\n[.request.info.n]:\n1\n[.agent.role]:\nlawyer"
    )
    session.reply_keys = "answer"
    assert session.assistant_content("raw", {"answer": ["a"], "why": "b"}) == '[answer]:\n["a"]'
    assert session.input_keys == ["input", ".request.info.n", ".agent.role", "none"]


def test_round_trip_as_json_and_yaml(tmp_path: Path) -> None:
    """Everything comes back; what is no session is refused and changes nothing."""
    session = Session("会话", auto_resize=False)
    session.max_length = 500
    session.set_chat_history(said("甲", "b"))
    session.clean_context_window()
    session.memo = {"facts": [1]}
    for text, load in ((session.to_json(), "load_json"), (session.to_yaml(), "load_yaml")):
        (tmp_path / load).write_text(text)
        for source in (text, tmp_path / load):
            assert getattr(Session("other"), load)(source).to_dict() == session.to_dict()

        for bad in ("[1]", "{", '{"id": 5}', '{"full_context": [1]}', '{"session_settings": 3}'):
            with pytest.raises(SessionError):
                getattr(session, load)(bad)

    assert session.memo == {"facts": [1]}


def test_a_kept_session_is_found_again(tmp_path: Path) -> None:
    """Any id is a safe file name; two that hold one session see each other's turns."""
    store = FileSessions(tmp_path / "sessions")
    for name in ("../../x", "a/b", "会话" * 60, "..", "plain"):
        session = Session(name, store=store)
        session.max_length = 200
        for number in range(20):
            session.add_chat_history({"role": "user", "content": f"{number} " * 5})

        session.register_session_resize_handler("keep", lambda *_: (None, None, "memo"))
        session.register_session_analysis_handler(lambda *_: "keep").resize()
        session.memo = "by hand"
        again = Session(name, store=store)
        assert again.memo == "by hand"
        assert again.to_dict() == session.to_dict()
        assert len(again.full_context) == 20 > len(again.context_window) > 0
        again.add_chat_history(said("from the other"))
        assert session.refresh().full_context == again.full_context

    assert {path.parent for path in tmp_path.rglob("*.jsonl")} == {tmp_path / "sessions"}
    assert len(list(tmp_path.rglob("*.jsonl"))) == 5
    with pytest.raises(SessionError, match="expected a text"):
        Session(" ")


def test_a_torn_line_is_cut_and_a_foreign_file_refused(tmp_path: Path) -> None:
    """A killed writer leaves at most half a line, which the next one removes."""
    store = FileSessions(tmp_path)
    session = Session("s", store=store).add_chat_history(said("a"))
    with store.path("s").open("ab") as file:
        file.write(b'{"add": [{"role": "user", "con')

    assert Session("s", store=store).full_context == said("a")
    session.add_chat_history(said("b"))
    assert Session("s", store=store).full_context == [*said("a"), *said("b")]
    store.path("t").write_text("not json\n")
    with pytest.raises(SessionError, match="is no session"):
        Session("t", store=store)

    store.path("u").symlink_to("/etc/passwd")
    with pytest.raises(SessionError, match="cannot be used"):
        Session("u", store=store)

    with pytest.raises(SessionError, match="'s' cannot be stored"):
        session.add_chat_history({"role": "user", "content": object()})

    assert len(session.full_context) == 2


def test_processes_that_share_a_session_lose_nothing(tmp_path: Path) -> None:
    """Turns of both are in the history, each once."""
    script = """
import sys
from flowdeck.agents import FileSessions, Session
session = Session("s", store=FileSessions(sys.argv[1]))
for number in range(50):
    session.add_chat_history({"role": "user", "content": f"{sys.argv[2]}-{number}"})
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    texts = [message["content"] for message in Session("s", store=FileSessions(tmp_path)).full_context]
    assert sorted(texts) == sorted(f"{name}-{number}" for name in "ab" for number in range(50))


async def test_scope_names_the_session_of_runs() -> None:
    """Inside the block, and only there, in this task, and only there."""
    from flowdeck.events.lineage import RunContext

    inside: list[str | None] = []

    async def other() -> None:
        inside.append(RunContext.create(run_kind="x").session_id)

    outside = asyncio.create_task(other())
    with Session("s-1").scope():
        run = RunContext.create(run_kind="x")
        await asyncio.create_task(other())

    await outside
    assert (run.session_id, run.meta) == ("s-1", {})
    assert sorted(inside, key=str) == [None, "s-1"]
    assert run.create_child(run_kind="y").session_id == "s-1"
    assert RunContext.create(run_kind="x").session_id is None
    with Session("s-2").scope():
        assert run.create_child(run_kind="y").session_id == "s-2"
        assert run.create_child(run_kind="y", session_id="own").session_id == "own"
