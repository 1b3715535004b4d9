"""The part of a flow that other processes see: its config, its blueprint, its diagram, and named handlers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from flowdeck.definition.blueprint import Blueprint
from flowdeck.definition.config import describe_blueprint
from flowdeck.definition.config_load import blueprint_from_config
from flowdeck.definition.config_merge import merge_blueprint
from flowdeck.definition.config_text import from_json, from_yaml, save_text, to_json, to_yaml
from flowdeck.definition.diagram import SIMPLIFIED, to_mermaid
from flowdeck.errors import DefinitionError

__all__ = ["PortableFlow"]

Path = str | os.PathLike[str]


class PortableFlow:
    """Config export and import, blueprints and diagrams. Source: the compatible API's flow config."""

    _blueprint: Blueprint

    if TYPE_CHECKING:  # supplied by the flow

        def _flow_of(self, blueprint: Blueprint) -> Any: ...

    @property
    def blueprint(self) -> Blueprint:
        """The flow's own blueprint: what later declarations go into. :meth:`save_blueprint` returns a copy."""
        return self._blueprint

    # -- names -----------------------------------------------------------------------------------------------------

    def register_chunk_handler(self, handler: Callable[..., Any], name: str | None = None) -> Self:
        """Let configs refer to ``handler`` by its own name, or by ``name``.

        Raises:
            DefinitionError: it is a lambda, has no name, or the name belongs to another handler.
        """
        self._blueprint.handlers.register(handler, name)
        return self

    def register_condition_handler(self, handler: Callable[..., Any], name: str | None = None) -> Self:
        """Let configs refer to the condition ``handler`` by its own name, or by ``name``.

        Raises:
            DefinitionError: it is a lambda, has no name, or the name belongs to another condition.
        """
        self._blueprint.conditions.register(handler, name)
        return self

    # -- out -------------------------------------------------------------------------------------------------------

    def get_flow_config(self, *, validate_serializable: bool = True) -> dict[str, Any]:
        """Return the flow as data, in the format ``trigger_flow/v1``: no code, no path of this machine.

        Args:
            validate_serializable: refuse what could not be read back. Without it the config is for reading only.

        Raises:
            ConfigError: a handler has no name another process could find, such as an unnamed lambda; or two share one.
        """
        return describe_blueprint(
            self._blueprint,
            meta=self.config_meta(),
            contract=self.get_contract_metadata(),
            strict=validate_serializable,
        )

    def get_json_flow(self, save_to: Path | None = None, *, encoding: str = "utf-8") -> str:
        """Return :meth:`get_flow_config` as JSON, and write it to ``save_to`` if given, making its folders."""
        return save_text(to_json(self.get_flow_config()), save_to, encoding)

    def get_yaml_flow(self, save_to: Path | None = None, *, encoding: str = "utf-8") -> str:
        """Return :meth:`get_flow_config` as YAML, and write it to ``save_to`` if given, making its folders."""
        return save_text(to_yaml(self.get_flow_config()), save_to, encoding)

    def describe(self) -> dict[str, Any]:
        """Return the definition as JSON-safe data, whether or not it could be read back."""
        return self.get_flow_config(validate_serializable=False)

    def to_mermaid(self, *, mode: str = SIMPLIFIED, statuses: Mapping[str, str] | None = None) -> str:
        """Return the flow as a Mermaid flowchart.

        Args:
            mode: ``"simplified"`` draws blocks as boxes and labels outside events only; ``"detailed"`` every signal.
            statuses: operator id -> status of a run, shown as classes.

        Raises:
            ValueError: an unknown mode.
        """
        return to_mermaid(self.describe(), mode=mode, statuses=statuses)

    # -- in --------------------------------------------------------------------------------------------------------

    def load_flow_config(self, config: dict[str, Any], *, replace: bool = True) -> Self:
        """Take over the operators of a config. Its handlers and conditions must be registered before.

        Executions that exist go on as they are. A contract in the config is kept as metadata; nothing enforces it.

        Args:
            replace: without it, the operators are added to those the flow has.

        Raises:
            TypeError: the config is no mapping.
            ConfigVersionError: it was written in another version of the format.
            HandlerNotRegistered: it names a handler or condition nobody registered.
            ConfigError: anything else in it is wrong, or conflicts with the flow. The flow is unchanged.
        """
        loaded = blueprint_from_config(config, self._blueprint, self._flow_of)
        if not replace:
            loaded = merge_blueprint(self._blueprint, loaded)
        else:
            for name, chunk in self._blueprint.chunks.items():
                loaded.chunks.setdefault(name, chunk)  # declared before, so still found by name

        self._adopt(loaded)
        return self

    def load_json_flow(self, path_or_content: Path, *, replace: bool = True, encoding: str = "utf-8") -> Self:
        """:meth:`load_flow_config` from JSON: a path, or the text itself."""
        return self.load_flow_config(from_json(path_or_content, encoding), replace=replace)

    def load_yaml_flow(self, path_or_content: Path, *, replace: bool = True, encoding: str = "utf-8") -> Self:
        """:meth:`load_flow_config` from YAML: a path, or the text itself."""
        return self.load_flow_config(from_yaml(path_or_content, encoding), replace=replace)

    # -- blueprints ------------------------------------------------------------------------------------------------

    def save_blueprint(self) -> Blueprint:
        """Return a copy of the definition with its callables: ``TriggerFlow(blueprint=…)`` makes a flow of it."""
        return self._blueprint.copy()

    def load_blueprint(self, new_blueprint: Blueprint) -> Self:
        """Replace the definition by a copy of ``new_blueprint``. Executions that exist go on as they are."""
        if not isinstance(new_blueprint, Blueprint):
            raise DefinitionError(f"load_blueprint({new_blueprint!r}): expected what save_blueprint() returned")

        self._adopt(new_blueprint)
        return self

    # -- for the flow ----------------------------------------------------------------------------------------------

    def config_meta(self) -> dict[str, Any]:
        """Return what of the flow itself belongs into a config's ``meta``."""
        return {}

    def get_contract_metadata(self) -> dict[str, Any]:
        """Return the contract as schemas; ``{}`` without one."""
        return dict(self._blueprint.contract)

    def _adopt(self, blueprint: Blueprint) -> None:
        """Make ``blueprint`` the definition."""
        self._blueprint.become(blueprint)
