"""Settings: an execution's own, then its flow's, then the runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.execution.support import World, passes

from flowdeck import Runtime
from flowdeck.compat import AgentlyMain
from flowdeck.errors import DefinitionError
from flowdeck.triggerflow import TriggerFlow

pytestmark = pytest.mark.anyio


async def test_the_nearest_layer_counts(world: World) -> None:
    """A chunk reads what its execution, its flow or its runtime has set."""
    seen: list[Any] = []
    world.services.settings["model.name"] = "far"
    world.services.settings["model.limit"] = 5
    flow = TriggerFlow(name="chain")
    flow.to(("look", lambda data: seen.append((data.settings.get("model.name"), data.settings["model.limit"]))))
    await world.run(flow)
    assert flow.set_settings("model.name", "flow") is flow
    await world.run(flow)
    execution = world.execution(flow)
    execution.settings["model.name"] = "execution"
    await execution.async_start()
    await execution.async_close()
    assert seen == [("far", 5), ("flow", 5), ("execution", 5)]
    assert flow.settings["model.name"] == "flow", "an execution's settings are its own"


def test_mappings_of_several_layers_are_merged(world: World) -> None:
    """Key by key, the nearest first; flat and nested names mean the same."""
    world.services.settings.update({"model.name": "far", "model.limits": {"a": 1, "b": 1}})
    flow = TriggerFlow(name="merged").set_settings("model", {"limits": {"b": 2}, "extra": True})
    execution = world.execution(flow)
    assert execution.settings.get("model") == {"name": "far", "limits": {"a": 1, "b": 2}, "extra": True}
    assert execution.settings.get("model.limits") == {"a": 1, "b": 2}
    assert execution.settings.get("model.limits", inherit=False) is None
    assert "model.limits.c" not in execution.settings
    assert execution.settings.get("model.limits.c", 7) == 7
    with pytest.raises(KeyError):
        execution.settings["nothing"]


def test_a_value_hides_a_mapping_behind_it(world: World) -> None:
    """And the other way round."""
    world.services.settings.update({"debug": {"a": 1}, "plain": 1})
    execution = world.execution(TriggerFlow(name="hides").set_settings("debug", "off").set_settings("plain", {"b": 2}))
    assert execution.settings["debug"] == "off"
    assert execution.settings["plain"] == {"b": 2}


def test_a_flow_sees_the_runtime_it_is_used_in(world: World) -> None:
    """Outside an execution too; deleting a setting uncovers what is behind it."""
    from flowdeck.execution.services import use_services

    world.services.settings["a.b"] = 1
    flow = TriggerFlow(name="uses").set_settings("a.b", 2)
    with use_services(world.services):
        assert flow.settings["a.b"] == 2
        del flow.settings["a.b"]
        assert flow.settings["a.b"] == 1
        assert set(flow.settings) >= {"a"}
        with pytest.raises(KeyError):
            del flow.settings["a.b"]


@pytest.mark.parametrize(
    ("data_type", "text"),
    [("json", '{"a": {"b": 1}}'), ("yaml", "a:\n  b: 1\n"), ("toml", "[a]\nb = 1\n")],
)
def test_documents_are_loaded(tmp_path: Path, data_type: str, text: str) -> None:
    """As text or from a file; what is in the document counts."""
    flow = TriggerFlow(name="loads").set_settings("a", {"b": 0, "c": 0}).load_settings(data_type, text)
    assert flow.settings["a"] == {"b": 1, "c": 0}
    path = tmp_path / "settings"
    path.write_text(text)
    assert TriggerFlow(name="file").load_settings(f"{data_type}_file", path).settings["a.b"] == 1


@pytest.mark.parametrize(
    ("data_type", "text"),
    [("ini", ""), ("json", "{"), ("json", "[1]"), ("yaml", "a: ["), ("toml", "a"), ("json_text", "{}")],
)
def test_what_is_no_settings_document_is_refused(data_type: str, text: str) -> None:
    """One clear error, and nothing is changed."""
    flow = TriggerFlow(name="bad").set_settings("a", 1)
    with pytest.raises(DefinitionError, match="load_settings"):
        flow.load_settings(data_type, text)

    assert flow.settings.own == {"a": 1}


@pytest.mark.parametrize("key", ["", "a..b", ".a", 7])
def test_what_is_no_name_is_refused(key: Any) -> None:
    """Where it is set."""
    with pytest.raises(ValueError, match="is no name"):
        TriggerFlow(name="names").set_settings(key, 1)


async def test_resources_of_the_flow_are_defaults(world: World) -> None:
    """The execution's value goes before; what a chunk sets is its execution's; conditions read them too."""
    seen: list[Any] = []
    flow = TriggerFlow(name="resources")
    flow.update_runtime_resources({"db": "flow's", "log": "flow's"})
    (
        flow.to(("set", lambda data: data.set_resource("own", 1)))
        .match(name="m")
        .case(lambda data: data.require_resource("db") == "mine")
        .to(("look", lambda data: seen.append((data.get_resource("db"), data.resources["log"], data.resources["own"]))))
        .end_match()
    )
    execution = world.execution(flow, runtime_resources={"db": "mine"})
    await execution.async_start()
    await execution.async_close()
    assert seen == [("mine", "flow's", 1)]
    assert flow.get_runtime_resource("own") is None
    assert execution.save()["resource_keys"] == ["db", "log", "own"]
    flow.del_runtime_resource("log")
    flow.clear_runtime_resources()
    assert world.execution(flow).get_runtime_resources() == {}


async def test_a_childs_item_must_fit_its_parents_stream_contract(world: World) -> None:
    """It reaches the parent's readers, to whom the contract is a promise."""
    child = TriggerFlow(name="child")
    child.to(("put", lambda data: data.put_into_stream(data.input)))
    flow = TriggerFlow(name="parent").set_contract(stream=int)
    flow.to_sub_flow(child)
    execution = world.execution(flow)
    await execution.async_start(1)
    await execution.async_close()
    assert [i async for i in execution.get_async_runtime_stream()] == [1]
    execution = world.execution(flow)
    with pytest.raises(ValueError, match="flow 'parent': stream"):
        await execution.async_start("x")

    await execution.async_close()


def test_the_same_definition_has_the_same_settings_after_a_step(world: World) -> None:
    """Settings are the flow's, not its blueprint's."""
    flow = TriggerFlow(name="later").set_settings("k", 1)
    flow.to(passes("a"))
    assert world.execution(flow).settings["k"] == 1


def test_settings_name_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any depth, from the environment or the nearest ``.env``, which overrides nothing; what is not set stays."""
    inner = tmp_path / "app" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / ".env").write_text(
        "# keys\nexport FD_KEY='k # 1'\nFD_URL = http://x/y?a=b  # where\nFD_SET=file\nnonsense\nFD_EMPTY=\n"
    )
    monkeypatch.chdir(inner)
    monkeypatch.setenv("FD_SET", "environment")
    for name in ("FD_KEY", "FD_URL", "FD_EMPTY"):
        monkeypatch.setenv(name, "x")  # so that they are gone after the test, whoever sets them
        monkeypatch.delenv(name)

    flow = TriggerFlow(name="f")
    flow.set_settings("early", "${ENV.FD_KEY}")
    flow.load_settings("json", '{"a": {"b": ["<${ ENV.FD_KEY }>", "${ENV.FD_SET}${ENV.FD_NONE}"]}}', auto_load_env=True)
    flow.set_settings("model", {"url": "${ENV.FD_URL}", "n": 1})
    assert flow.settings.get("early") == "${ENV.FD_KEY}"
    assert flow.settings.get("a.b") == ["<k # 1>", "environment${ENV.FD_NONE}"]
    assert flow.settings.get("model") == {"url": "http://x/y?a=b", "n": 1}
    for name, why in (("FD_NONE", "not set"), ("FD_EMPTY", "empty")):
        with pytest.raises(DefinitionError, match=f"'{name}', which is {why}; set it"):
            flow.set_settings("key", f"${{ENV.{name}}}", raise_empty=True)

    main = AgentlyMain(Runtime())
    main.set_settings("k", "${ENV.FD_KEY}").load_settings("json", '{"u": "${ENV.FD_URL}"}', raise_empty=True)
    assert (main.settings.get("k"), main.settings.get("u")) == ("k # 1", "http://x/y?a=b")
    with pytest.raises(DefinitionError, match=r"load_settings\('json_file'\): .*gone.json"):
        flow.load_settings("json_file", "gone.json")
