from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import threading
import uuid
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.support import depth, strict

from flowdeck.events.encoding import DEPTH_LIMIT, describe, encode, sanitise
from flowdeck.events.redaction import MASK, is_secret_key


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: Any


@dataclasses.dataclass
class Account:
    name: str
    password: str


class Model(pydantic.BaseModel):
    name: str
    api_key: str


class Record(msgspec.Struct):
    name: str
    token: str


class Angry:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Huge:
    def __repr__(self) -> str:
        return "x" * 1_000_000


class Hostile(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


def cycle() -> list[Any]:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    return loop


def nested(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"v": value}

    return value


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (float("nan"), None),
        ([float("inf"), -float("inf")], [None, None]),
        (b"ab", "YWI="),
        ({"b": bytearray(b"ab")}, {"b": "YWI="}),
        (memoryview(b"ab"), "YWI="),
        ({1}, [1]),
        (frozenset([1]), [1]),
        (collections.deque([1, 2]), [1, 2]),
        (2**63, 2**63),
        (2**64 - 1, 2**64 - 1),
        (2**64, 2**64),
        (-(2**63), -(2**63)),
        (-(2**63) - 1, -(2**63) - 1),
        ("\udc80", "\\udc80"),
        ({"\udc80": "\ud800x"}, {"\\udc80": "\\ud800x"}),
        (
            {2: "a", None: "b", True: "c", (1, 2): "d", 1.5: "e"},
            {"2": "a", "null": "b", "true": "c", "(1, 2)": "d", "1.5": "e"},
        ),
        ({1: "a", "1": "b"}, {"1": "a", "1~": "b"}),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ({Colour.RED: 1}, {"red": 1}),
        (Text("sub"), "sub"),
        (Point(1, (2,)), [1, [2]]),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2026-01-02T03:04:05Z"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Account("ana", "p"), {"name": "ana", "password": MASK}),
        (Model(name="m", api_key="k"), {"name": "m", "api_key": MASK}),
        ([Record("r", "t")], [{"name": "r", "token": MASK}]),
        (collections.OrderedDict(a=1), {"a": 1}),
    ],
)
def test_every_known_kind_has_one_wire_form(value: object, wire: object) -> None:
    """Values JSON has no form for become the documented one."""
    assert strict(encode(value)) == wire


def test_unknown_objects_are_described() -> None:
    """An object becomes its bounded repr and its type."""
    assert strict(encode({"o": 1j})) == {"o": {"$repr": "1j", "$type": "builtins.complex"}}
    assert len(encode(Huge())) < 2_000
    assert "RuntimeError" in describe(Angry())["$repr"]
    assert strict(encode([Angry()]))[0]["$type"].endswith("Angry")
    assert strict(encode(Account))["$type"] == "builtins.type"


def test_a_hostile_mapping_is_described() -> None:
    """A mapping that cannot be walked does not break the event."""
    assert strict(encode({"h": Hostile(a=1)}))["h"]["$type"].endswith("Hostile")


def test_an_integer_too_long_to_print_is_named() -> None:
    """Python refuses to print very long integers; the event survives."""
    assert strict(encode([10**5000])) == ["16610-bit integer"]


@pytest.mark.parametrize("levels", [DEPTH_LIMIT - 1, DEPTH_LIMIT])
def test_what_is_deep_but_allowed_stays(levels: int) -> None:
    """Sixty-four levels are written whole."""
    assert strict(encode(nested(levels))) == nested(levels)


@pytest.mark.parametrize("levels", [DEPTH_LIMIT + 1, 200, 5_000])
def test_what_is_too_deep_is_cut_with_a_mark(levels: int) -> None:
    """Deeper nesting ends in {"$cut": "depth"}; the levels above are kept."""
    line = encode(nested(levels))

    assert depth(strict(line)) == DEPTH_LIMIT + 1
    assert line.count(b'{"$cut":"depth"}') == 1


def test_a_cycle_is_cut() -> None:
    """A container that holds itself does not recurse away."""
    assert b'{"$cut":"depth"}' in encode(cycle())


def test_secrets_are_masked_at_any_depth() -> None:
    """One secret deep inside is masked and nothing else changes."""
    value = {"headers": {"Authorization": "Bearer abc", "Accept": "*/*"}, "usage": {"input_tokens": 3}, "l": [1, 2.5]}

    assert strict(encode(value)) == {
        "headers": {"Authorization": MASK, "Accept": "*/*"},
        "usage": {"input_tokens": 3},
        "l": [1, 2.5],
    }


def test_learned_keys_never_hide_a_secret() -> None:
    """Thousands of clean keys, then a secret one: the cache of clean keys forgets, never errs."""
    for start in range(0, 20_000, 100):
        encode({f"field_{number}": number for number in range(start, start + 100)})

    assert b"hunter2" not in encode({"field_1": 1, "password": "hunter2"})
    assert b"hunter2" not in encode({**{f"user_{n}": n for n in range(500)}, "password": "hunter2"})


def test_a_container_changed_by_another_thread_still_encodes() -> None:
    """Encoding races a writer and never raises."""
    shared: dict[str, Any] = {"a": [1]}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"k{number % 50}"] = [number, object()]
            shared.pop(f"k{(number * 7) % 50}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(2_000):
            strict(encode(shared))
    finally:
        stop.set()
        thread.join()


ODD: dict[str, Any] = {
    "angry": Angry,
    "huge": Huge,
    "complex": lambda: 1j,
    "type": lambda: object,
    "error": lambda: ValueError("x"),
    "enum": lambda: Colour.RED,
    "int enum": lambda: Level.HIGH,
    "model": lambda: Model(name="n", api_key="k"),
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary(max_size=20)
    | st.datetimes()
    | st.decimals()
    | st.uuids()
    | st.sampled_from(["angry", "huge", "complex", "type", "error", "enum", "int enum", "model"]).map(
        lambda kind: ODD[kind]()
    )
)
KEYS = (
    st.text(st.characters(exclude_categories=()), max_size=8)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.none()
    | st.tuples(st.integers())
    | st.sampled_from(["password", "api_key", "max_tokens", "Token"])
)
HOSTILE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=3)
        | st.builds(Point, st.integers(), inner)
    ),
    max_leaves=25,
)


def leaks(value: Any) -> bool:
    """Whether a secret key stands over anything but the mask."""
    if isinstance(value, dict):
        return any((is_secret_key(key) and item not in (None, MASK)) or leaks(item) for key, item in value.items())

    return isinstance(value, list) and any(map(leaks, value))


@settings(deadline=None, max_examples=300)
@given(HOSTILE)
def test_anything_becomes_valid_bounded_redacted_json(value: object) -> None:
    """Whatever the payload: strict JSON, at most 65 levels, no secret, and the same bytes again."""
    line = encode(value)
    decoded = strict(line)

    assert depth(decoded) <= DEPTH_LIMIT + 1
    assert not leaks(decoded)
    assert encode(value) == line
    assert strict(encode(decoded)) is not None or decoded is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=25,
)


@settings(deadline=None, max_examples=200)
@given(JSON.filter(lambda value: not leaks(value)))
def test_plain_json_makes_the_round_trip(value: object) -> None:
    """What is JSON already is written unchanged."""
    assert json.loads(encode(value)) == value


@settings(deadline=None, max_examples=200)
@given(HOSTILE)
def test_both_speeds_agree(value: object) -> None:
    """The quick way and the exact way write the same thing."""
    assert json.loads(encode(sanitise(value))) == json.loads(encode(value))
