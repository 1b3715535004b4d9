"""Configs that are wrong: each is one named error, and the flow stays as it was."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.definition.flow_parts import even, grow, note

from flowdeck import Retry
from flowdeck.errors import ConfigError, ConfigVersionError, DefinitionError, HandlerNotRegistered
from flowdeck.triggerflow import TriggerFlow


def other_grow() -> Callable[..., Any]:
    def grow(data: Any) -> Any:
        return data.input

    return grow


class Adder:
    def __call__(self, data: Any) -> Any:
        return data.input

    def add(self, data: Any) -> Any:
        return data.input


def whole() -> TriggerFlow:
    flow = TriggerFlow(name="whole").register_chunk_handler(grow).register_chunk_handler(note)
    flow.register_condition_handler(even).register_chunk_handler(grow, "a").register_chunk_handler(grow, "b")
    child = TriggerFlow(name="child")
    child.to(note)
    (
        flow.to(grow)
        .for_each(name="each")
        .match(name="choose")
        .case(even)
        .to(note)
        .end_match()
        .end_for_each()
        .batch(("a", grow), ("b", grow), name="both")
        .to_sub_flow(child)
        .intervention_point(name="safe", target="here")
    )
    return flow


CONFIG = whole().get_flow_config()
AT = {op["name"]: k for k, op in enumerate(CONFIG["operators"])}


def changed(change: Callable[[dict[str, Any], dict[str, dict[str, Any]]], Any]) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    change(config, {name: config["operators"][k] for name, k in AT.items()})
    return config


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            lambda c, op: c.update(version="trigger_flow/v2"),
            ConfigVersionError,
            "version 'trigger_flow/v2'; this reads",
        ),
        (lambda c, op: c.pop("version"), ConfigVersionError, "version None"),
        (lambda c, op: c.pop("operators"), ConfigError, "missing required field `operators`"),
        (lambda c, op: c.update(operaters=[]), ConfigError, "unknown field `operaters`"),
        (
            lambda c, op: op["grow"].update(listen_signal=[]),
            ConfigError,
            r"unknown field `listen_signal`.*operators\[0\]",
        ),
        (lambda c, op: op["grow"].update(name=3), ConfigError, r"got `int` - at `\$.operators\[0\].name`"),
        (lambda c, op: op["grow"].update(kind="chunky"), ConfigError, "there is no such kind; choose from chunk"),
        (lambda c, op: op["note"].update(id=op["grow"]["id"]), ConfigError, "two operators with the id 'chunk-"),
        (lambda c, op: op["note"].update(id=""), ConfigError, "an empty id"),
        (lambda c, op: op["note"].update(key="grow"), ConfigError, "the key 'grow' is empty or stands twice"),
        (lambda c, op: op["note"].update(name="grow"), ConfigError, "another chunk of the config has that name"),
        (
            lambda c, op: op["grow"]["handler_ref"].update(name="gone"),
            HandlerNotRegistered,
            r"chunk handler 'gone' is not registered; .*call flow.register_chunk_handler\(fn, name='gone'\)",
        ),
        (
            lambda c, op: op["choose"] and c["operators"][AT["choose"] + 1]["condition_ref"].update(name="odd"),
            HandlerNotRegistered,
            "condition handler 'odd' is not registered",
        ),
        (lambda c, op: op["grow"].update(handler_ref=None), ConfigError, "it has no handler_ref"),
        (
            lambda c, op: op["grow"].update(handler_ref={"kind": "anonymous", "callable_name": "<lambda>"}),
            ConfigError,
            "its chunk handler is '<lambda>', which had no name when the flow was exported",
        ),
        (lambda c, op: op["grow"].update(emit_signals=[]), ConfigError, "one signal with the role 'continuation'"),
        (
            lambda c, op: op["note"].update(emit_signals=op["grow"]["emit_signals"]),
            ConfigError,
            "both emit 'Chunk.grow.-chunk-",
        ),
        (
            lambda c, op: op["grow"].update(listen_signals=[{"trigger_event": "X", "trigger_type": "weather"}]),
            ConfigError,
            "'weather', which is no trigger type",
        ),
        (lambda c, op: op["end_for_each"].update(group_id="nowhere"), ConfigError, "'nowhere' opens no such block"),
        (lambda c, op: op["end_for_each"].update(group_id=op["both"]["id"]), ConfigError, "opens no such block"),
        (lambda c, op: op["note"].update(parent_group_id="gone"), ConfigError, "the group 'gone', which nothing in"),
        (
            lambda c, op: op["choose"]["options"].update(mode="some"),
            ConfigError,
            "options.mode must be one of hit_first",
        ),
        (lambda c, op: op["each"]["options"].update(concurrency=-1), ConfigError, "concurrency=-1"),
        (lambda c, op: op["grow"]["options"].update(timeout="1"), ConfigError, "options.timeout must be more than 0"),
        (lambda c, op: op["grow"]["options"].update(timeout=float("nan")), ConfigError, "options.timeout must be more"),
        (lambda c, op: op["grow"]["options"].update(retry={"attempts": 0}), ConfigError, "at least 1 attempt"),
        (lambda c, op: op["grow"]["options"].update(retry={"tries": 2}), ConfigError, "unknown field `tries`"),
        (lambda c, op: op["grow"]["options"].update(retry={"on": ["Nope"]}), ConfigError, "no such exception"),
        (
            lambda c, op: op["grow"]["options"].update(retry={"on": ["never_imported:Boom"]}),
            ConfigError,
            "import 'never_imported' before loading",
        ),
        (lambda c, op: op["grow"]["options"].update(retry={"on": ["os:system"]}), ConfigError, "no such exception"),
        (
            lambda c, op: op["both"]["options"].update(members=["x"]),
            ConfigError,
            "member 'x' is no chunk of the config",
        ),
        (
            lambda c, op: op["both"]["options"].update(members=[1]),
            ConfigError,
            "options.members must be a list of texts",
        ),
        (
            lambda c, op: op["child"]["options"].update(sub_flow_config=None),
            ConfigError,
            "options.sub_flow_config is missing",
        ),
        (
            lambda c, op: op["child"]["options"]["sub_flow_config"].update(version="?"),
            ConfigVersionError,
            r"sub_flow 'child' .*version '\?'",
        ),
        (
            lambda c, op: op["child"]["options"].update(capture={"input": "weather"}),
            ConfigError,
            "must begin with value",
        ),
        (lambda c, op: op["child"]["options"].update(write_back=3), ConfigError, "expected a mapping"),
        (
            lambda c, op: op["safe"]["options"].update(target=5),
            ConfigError,
            "options.target must be text or null, got 5",
        ),
        (lambda c, op: op["safe"]["options"].update(target=""), ConfigError, "options.target must be text or null"),
    ],
)
def test_a_config_that_is_wrong(change: Any, error: type[ConfigError], text: str) -> None:
    """Every mistake is named with its place and the mend, and changes nothing."""
    flow = whole()
    before = flow.describe()
    for replace in (True, False):
        with pytest.raises(error, match=text) as caught:
            flow.load_flow_config(changed(change), replace=replace)

        assert isinstance(caught.value, ValueError)

    assert flow.describe() == before


def test_what_is_no_config() -> None:
    """Something that is no mapping is a TypeError, as in the compatible API; text that cannot be read says why."""
    flow = TriggerFlow()
    for wrong in ([], None, 3, "text"):
        with pytest.raises(TypeError, match="a flow config is a mapping"):
            flow.load_flow_config(wrong)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="expected a path or the text of a config, got int"):
        flow.load_json_flow(3)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="gone.json: No such file or directory"):
        flow.load_json_flow("gone.json")

    with pytest.raises(ConfigError, match="the text is no JSON: "):
        flow.load_json_flow("{not json")

    with pytest.raises(ConfigError, match="the text is no YAML: while parsing"):
        flow.load_yaml_flow("a: [1,\nb")

    with pytest.raises(TypeError, match="a flow config is a mapping, got list"):
        flow.load_yaml_flow("- 1\n- 2\n")


def test_hostile_text(tmp_path: Path) -> None:
    """Text made to harm is refused, not expanded, executed or followed for ever."""
    flow = TriggerFlow()
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
    with pytest.raises(ConfigError, match=r"YAML aliases \(\*a\) are not read"):
        flow.load_yaml_flow(bomb)

    with pytest.raises(ConfigError, match="could not determine a constructor"):
        flow.load_yaml_flow("a: !!python/object/apply:os.system [touch /tmp/x]\nb: 1")

    for text in ("[" * 100_000, '{"version":"trigger_flow/v1","operators":' + "[" * 100_000):
        with pytest.raises(ConfigError):
            flow.load_json_flow(text)

    nested: dict[str, Any] = {"version": "trigger_flow/v1", "operators": []}
    for _ in range(60):
        op = {**CONFIG["operators"][AT["child"]], "options": {"sub_flow_config": nested}, "parent_group_id": None}
        nested = {"version": "trigger_flow/v1", "operators": [op]}

    with pytest.raises(ConfigError, match="more than 32 deep"):
        flow.load_flow_config(nested)

    binary = tmp_path / "flow.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"flow\.json: .*codec can't decode"):
        flow.load_json_flow(binary)


def test_a_cycle_without_a_chunk() -> None:
    """A config is held to the same rules as a declaration: a cycle nothing runs in is refused."""
    config = changed(
        lambda c, op: op["each"].update(listen_signals=[{"trigger_event": e} for e in _emits(op, "end_for_each")])
    )
    with pytest.raises(ConfigError, match="a cycle without a chunk in it"):
        whole().load_flow_config(config)


def _emits(op: dict[str, dict[str, Any]], name: str) -> list[str]:
    return [signal["trigger_event"] for signal in op[name]["emit_signals"]]


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (
            lambda f: f.to(lambda data: 1),
            r"chunk 'lambda-\w+' \(chunk-\w+\): <lambda>@test_config_bad_input.py:\d+ cannot be",
        ),
        (lambda f: f.to(partial(grow)), "grow cannot be exported"),
        (lambda f: f.to(Adder()), r"Adder\.__call__ cannot be exported"),
        (lambda f: f.to(Adder().add), r"Adder\.add cannot be exported"),
        (lambda f: f.match().case(lambda data: True).to(grow).end_match(), "<lambda>@.*register_condition_handler"),
        (
            lambda f: f.match().case((1, 2)).to(grow).end_match(),
            r"case\(\(1, 2\)\) compares with something JSON has no",
        ),
        (lambda f: f.match().case(float("nan")).to(grow).end_match(), r"case\(nan\)"),
        (lambda f: f.to(grow).to(other_grow()), "'grow' means .*other_grow.*and .*give one of them a name of its own"),
        (lambda f: f.to(grow, retry=Retry(on=(_local_error(),))), "a class inside a function cannot be found by name"),
        (lambda f: f.to_sub_flow(f), "'f' contains itself, which a config cannot hold"),
    ],
)
def test_a_flow_that_cannot_be_exported(declare: Any, text: str) -> None:
    """What another process could not find is refused with the operator and the mend; describing it still works."""
    flow = TriggerFlow(name="f")
    declare(flow)
    with pytest.raises(ConfigError, match=text):
        flow.get_json_flow()

    json.dumps(flow.get_flow_config(validate_serializable=False), allow_nan=False)
    assert flow.to_mermaid().startswith("flowchart TD\n")


def _local_error() -> type[Exception]:
    class Local(Exception):
        pass

    return Local


def test_names_make_anything_exportable() -> None:
    """A name in the declaration, or a registered one, is what a config needs: also for a lambda, a method."""
    flow = TriggerFlow(name="f")
    adder = Adder()
    flow.to(("first", lambda data: data.input)).to(adder.add).to(("third", partial(grow)))
    flow.register_chunk_handler(adder.add, "second")
    refs = [op["handler_ref"] for op in flow.get_flow_config()["operators"]]
    assert [(ref["kind"], ref["name"]) for ref in refs] == [
        ("registered", "first"), ("registered", "second"), ("registered", "third"),
    ]  # fmt: skip


def test_registering() -> None:
    """A lambda, a second handler of one name and what has no name are refused; the same handler again is not."""
    flow = TriggerFlow(name="f")
    assert flow.register_chunk_handler(grow).register_chunk_handler(grow) is flow
    for register in (flow.register_chunk_handler, flow.register_condition_handler):
        with pytest.raises(DefinitionError, match="a lambda has no name another process could find"):
            register(lambda data: True, "named")

        with pytest.raises(DefinitionError, match="expected a function"):
            register(3)  # type: ignore[arg-type]

        with pytest.raises(DefinitionError, match="no name of its own; give name="):
            register(partial(grow))

    with pytest.raises(DefinitionError, match="register_chunk_handler: 'grow' is .*give another name="):
        flow.register_chunk_handler(other_grow())

    with pytest.raises(DefinitionError, match="expected what save_blueprint"):
        flow.load_blueprint({})  # type: ignore[arg-type]


def test_yaml_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML the YAML methods name the package to install; the JSON ones work."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    flow = TriggerFlow(name="f")
    assert json.loads(flow.get_json_flow())["name"] == "f"
    for call in (flow.get_yaml_flow, lambda: flow.load_yaml_flow("a: 1\nb: 2")):
        with pytest.raises(ConfigError, match=r"pip install 'flowdeck\[devtools\]'"):
            call()
