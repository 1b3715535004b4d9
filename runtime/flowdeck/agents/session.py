"""Session: one conversation, its whole history and the window of it that enters the next request.

A session keeps no artifacts, logs or checkpoints: those belong to the workspace (seed 001). Source: behaviour §8.1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

from flowdeck._yaml import yaml_or
from flowdeck.agents.session_store import SessionStore
from flowdeck.agents.session_window import Analysis, Message, Resize, rendered, simple_cut, too_long
from flowdeck.errors import SessionError
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import run_context
from flowdeck.execution.sync import run_sync

__all__ = ["Session"]


class Session:
    """A conversation.

    Args:
        id: made up when not given.
        auto_resize: resize the window after every turn.
        store: keeps every change; what it has of the session is loaded. Without one the session lives in memory.

    Raises:
        SessionError: what the store has cannot be read.
    """

    def __init__(self, id: str | None = None, *, auto_resize: bool = True, store: SessionStore | None = None) -> None:
        self.id = _checked_id(id) if id is not None else f"session_{new_id()}"
        self.auto_resize = auto_resize
        self.full_context: list[Message] = []
        """Every message."""
        self.context_window: list[Message] = []
        """The messages that enter the next request."""
        self._memo: Any = None
        self.session_settings: dict[str, Any] = {}
        self._analysis: Analysis = too_long
        self._strategies: dict[str, Resize] = {"simple_cut": simple_cut}
        self._store = store
        self._position = 0
        self.refresh()

    def __repr__(self) -> str:
        return f"<Session {self.id!r}: {len(self.context_window)} of {len(self.full_context)} messages>"

    @contextmanager
    def scope(self) -> Iterator[Session]:
        """Make this the session of every run created inside the block."""
        with run_context(session_id=self.id):
            yield self

    @property
    def memo(self) -> Any:
        """What a resize handler, or the application, wants remembered of messages that left the window."""
        return self._memo

    @memo.setter
    def memo(self, value: Any) -> None:
        self._change({"memo": value})

    # -- settings ----------------------------------------------------------------------------------------------------

    @property
    def max_length(self) -> int | None:
        """Characters of the window (of ``str(message)``, all together); ``None`` is no limit."""
        value: int | None = self.session_settings.get("max_length")
        return value

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise SessionError(f"session {self.id!r}: max_length={value!r}: expected a positive integer or None")

        self._set("max_length", value)

    @property
    def input_keys(self) -> list[str] | None:
        """Fields of a request that are remembered as the user's message; ``None`` is the whole text."""
        value: list[str] | None = self.session_settings.get("input_keys")
        return value

    @input_keys.setter
    def input_keys(self, keys: str | Iterable[str] | None) -> None:
        self._set("input_keys", _keys(keys))

    @property
    def reply_keys(self) -> list[str] | None:
        """Fields of a reply that are remembered as the assistant's message; ``None`` is the whole text."""
        value: list[str] | None = self.session_settings.get("reply_keys")
        return value

    @reply_keys.setter
    def reply_keys(self, keys: str | Iterable[str] | None) -> None:
        self._set("reply_keys", _keys(keys))

    def _set(self, name: str, value: Any) -> None:
        self._change({"settings": {**self.session_settings, name: value}})

    # -- history -----------------------------------------------------------------------------------------------------

    def set_chat_history(self, messages: Message | Iterable[Message]) -> Session:
        """Replace history and window; chainable."""
        checked = self._messages(messages)
        self._change({"full": checked, "window": checked})
        return self

    def add_chat_history(self, messages: Message | Iterable[Message]) -> Session:
        """Add messages, duplicates too, and resize the window if ``auto_resize``; chainable."""
        self._change({"add": self._messages(messages)})
        if self.auto_resize:
            self.resize()

        return self

    async def async_add_chat_history(self, messages: Message | Iterable[Message]) -> Session:
        """Asynchronous twin of :meth:`add_chat_history`, for handlers that are asynchronous."""
        self._change({"add": self._messages(messages)})
        if self.auto_resize:
            await self.async_resize()

        return self

    def reset_chat_history(self) -> Session:
        """Forget history, window and memo; chainable."""
        self._change({"full": [], "window": [], "memo": None})
        return self

    def clean_context_window(self) -> Session:
        """Empty the window; the history stays. Chainable."""
        self._change({"window": []})
        return self

    def user_content(self, text: str, request: Mapping[str, Any], agent: Mapping[str, Any] | None = None) -> str:
        """Return what is remembered of a request: ``text``, or the :attr:`input_keys` as ``[key]:\\nvalue``.

        Keys are dotted; ``.agent.…`` looks into ``agent``, ``.request.…`` and all others into ``request``.
        """
        return rendered(self.input_keys, text, request, agent or {})

    def assistant_content(self, text: str, data: Any) -> str:
        """Return what is remembered of a reply: ``text``, or the :attr:`reply_keys` of ``data``."""
        return rendered(self.reply_keys, text, data if isinstance(data, Mapping) else {}, {})

    # -- resizing ----------------------------------------------------------------------------------------------------

    def register_session_analysis_handler(self, handler: Analysis) -> Session:
        """Let ``handler(full, window, memo, settings)`` name the strategy a resize uses, ``None`` for none; chainable.

        By default ``simple_cut``, when the window is longer than :attr:`max_length`.
        """
        self._analysis = handler
        return self

    def register_session_resize_handler(self, name: str, handler: Resize) -> Session:
        """Register a strategy ``handler(full, window, memo, settings) -> (full, window, memo)``; chainable.

        ``None`` in its result leaves that part as it is.

        Raises:
            SessionError: an empty name.
        """
        if not isinstance(name, str) or not name.strip():
            raise SessionError(f"register_session_resize_handler({name!r}): expected a name")

        self._strategies[name] = handler
        return self

    def resize(self) -> str | None:
        """Resize the window now and return the strategy used."""
        steps = self._resizing()
        try:
            call = next(steps)
            while True:
                result = call()
                call = steps.send(run_sync(_awaited(result)) if isawaitable(result) else result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def async_resize(self) -> str | None:
        """Asynchronous twin of :meth:`resize`."""
        steps = self._resizing()
        try:
            call = next(steps)
            while True:
                result = call()
                call = steps.send(await result if isawaitable(result) else result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _resizing(self) -> Generator[Callable[[], Any], Any, str | None]:
        """Yield each call of a handler and take its result, so that both twins share one logic."""
        parts = (list(self.full_context), list(self.context_window), self.memo, dict(self.session_settings))
        name = yield lambda: self._analysis(*parts)
        if name is None:
            return None

        strategy = self._strategies.get(name) if isinstance(name, str) else None
        if strategy is None:
            there = ", ".join(self._strategies)
            raise SessionError(f"session {self.id!r}: no resize strategy {name!r}; there are {there}")

        resized = yield lambda: strategy(*parts)
        if not isinstance(resized, tuple | list) or len(resized) != 3:
            raise SessionError(f"session {self.id!r}: strategy {name!r} returned {resized!r}, not (full, window, memo)")

        full, window, memo = resized
        change: dict[str, Any] = {}
        if full is not None:
            change["full"] = self._messages(full)

        if window is not None:
            kept = self._messages(window)
            # A window that only lost its oldest messages is one number in the store.
            suffix = bool(kept) and kept == self.context_window[-len(kept) :]
            change |= {"keep": len(kept)} if suffix else {"window": kept}

        if memo is not None:
            change["memo"] = memo

        self._change(change)
        return str(name)

    # -- keeping -----------------------------------------------------------------------------------------------------

    def refresh(self) -> Session:
        """Take over what other processes have added to the session; chainable."""
        if self._store is not None:
            others, self._position = self._store.exchange(self.id, self._position, ())
            for change in others:
                self._apply(change)

        return self

    def to_dict(self) -> dict[str, Any]:
        """Return everything there is to keep."""
        return {
            "id": self.id,
            "auto_resize": self.auto_resize,
            "full_context": list(self.full_context),
            "context_window": list(self.context_window),
            "memo": self.memo,
            "session_settings": dict(self.session_settings),
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_yaml(self) -> str:
        """Return :meth:`to_dict` as YAML.

        Raises:
            SessionError: PyYAML is not installed.
        """
        text: str = yaml_or(SessionError).safe_dump(self.to_dict(), allow_unicode=True, sort_keys=False)
        return text

    def load_json(self, value: str | Path) -> Session:
        """Become what :meth:`to_json` wrote, given as text or as the path of a file; chainable.

        Raises:
            SessionError: it is no session. Nothing changed.
        """
        try:
            return self._load(json.loads(_text(value)))
        except ValueError as problem:
            raise problem if isinstance(problem, SessionError) else SessionError(f"no session: {problem}") from None

    def load_yaml(self, value: str | Path) -> Session:
        """Become what :meth:`to_yaml` wrote; see :meth:`load_json`."""
        yaml = yaml_or(SessionError)
        try:
            return self._load(yaml.safe_load(_text(value)))
        except yaml.YAMLError as problem:
            raise SessionError(f"no session: {problem}") from None

    def _load(self, data: Any) -> Session:
        if not isinstance(data, Mapping) or not isinstance(data.get("id", ""), str):
            raise SessionError(f"no session: expected an object with id, full_context, …, got {type(data).__name__}")

        settings = data.get("session_settings") or {}
        if not isinstance(settings, Mapping):
            raise SessionError("no session: session_settings is no object")

        full = self._messages(data.get("full_context") or [])
        window = data.get("context_window")
        change = {
            "full": full,
            "window": full if window is None else self._messages(window),
            "memo": data.get("memo"),
            "settings": dict(settings),
        }
        if data.get("id") and data["id"] != self.id:
            self.id, self._position = _checked_id(data["id"]), 0

        self.auto_resize = bool(data.get("auto_resize", True))
        self._change(change)
        return self

    def _change(self, change: dict[str, Any]) -> None:
        """Keep a change, take over what others had changed before it, and apply both."""
        others: list[dict[str, Any]] = []
        if self._store is not None:
            others, self._position = self._store.exchange(self.id, self._position, [change])

        for each in (*others, change):
            self._apply(each)

    def _apply(self, change: Mapping[str, Any]) -> None:
        added = change.get("add", ())
        self.full_context = [*change.get("full", self.full_context), *added]
        self.context_window = [*change.get("window", self.context_window), *added]
        if "keep" in change:
            self.context_window = self.context_window[-change["keep"] :]

        if "memo" in change:
            self._memo = change["memo"]

        if "settings" in change:
            self.session_settings = dict(change["settings"])

    def _messages(self, messages: Any) -> list[Message]:
        given = [messages] if isinstance(messages, Mapping) else messages
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise SessionError(f"session {self.id!r}: expected messages, got {type(messages).__name__}")

        out: list[Message] = []
        for message in given:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
                raise SessionError(
                    f'session {self.id!r}: {str(message)[:200]!r} is no message; expected {{"role": …, "content": …}}'
                )

            out.append(dict(message))

        return out


def _keys(keys: str | Iterable[str] | None) -> list[str] | None:
    return None if keys is None else [keys] if isinstance(keys, str) else list(keys)


def _checked_id(session_id: Any) -> str:
    if not isinstance(session_id, str) or not session_id.strip():
        raise SessionError(f"session_id={session_id!r}: expected a text")

    return session_id


def _text(value: str | Path) -> str:
    return value.read_text(encoding="utf-8") if isinstance(value, Path) else value


async def _awaited(value: Any) -> Any:
    return await value
