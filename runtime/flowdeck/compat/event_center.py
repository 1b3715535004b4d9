"""The Event Center as the reference's users know it: it raises where the native one quarantines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from flowdeck.events.center import EventCenter
from flowdeck.events.emitter import Emitter
from flowdeck.events.hooks import HookCallback
from flowdeck.events.intake import infer_source
from flowdeck.events.lineage import RunContext
from flowdeck.events.model import ObservationEvent

__all__ = ["CompatEmitter", "CompatEventCenter", "HookerPlugin"]

BACKGROUND_TIMEOUT: Final = 5.0


class HookerPlugin(Protocol):
    """A hook as a class: ``name``, ``event_types`` and a static ``handler(event)``."""

    name: str
    event_types: Any

    @staticmethod
    def handler(event: ObservationEvent) -> Any: ...


class CompatEmitter(Emitter):
    """An emitter whose bad events raise, and whose error helpers re-raise as the settings say."""

    def __init__(
        self,
        center: EventCenter,
        source: str,
        *,
        settings: Mapping[str, Any],
        base_meta: Mapping[str, Any] | None = None,
        base_run: RunContext | None = None,
    ) -> None:
        super().__init__(center, source, base_meta=base_meta, base_run=base_run)
        self._settings = settings

    def _refused(self, event: dict[str, Any], problem: Exception) -> None:
        ObservationEvent.model_validate(event)  # raises the ValidationError the reference raises
        raise problem

    def _after(self, level: str, problem: BaseException) -> None:
        setting = "runtime.raise_error" if level == "ERROR" else "runtime.raise_critical"
        if self._settings.get(setting, True):
            raise problem


class CompatEventCenter:
    """A facade over an :class:`~flowdeck.events.center.EventCenter`; everything not named here is the center's own."""

    def __init__(self, center: EventCenter | None = None, settings: dict[str, Any] | None = None) -> None:
        self._center = center if center is not None else EventCenter()
        self._settings: dict[str, Any] = settings if settings is not None else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._center, name)

    def register_hook(
        self,
        callback: HookCallback,
        *,
        event_types: str | list[str] | tuple[str, ...] | None = None,
        hook_name: str | None = None,
        delivery_policy: Mapping[str, Any] | None = None,
    ) -> None:
        """Call ``callback(event)`` for matching events; see :meth:`EventCenter.register_hook`.

        Unless the policy says otherwise, a flush without a timeout gives a background hook 5 s, as in the reference.
        """
        given = delivery_policy if isinstance(delivery_policy, Mapping) else {}
        policy = {"background_timeout": BACKGROUND_TIMEOUT, **given}
        self._center.register_hook(callback, event_types=event_types, hook_name=hook_name, delivery_policy=policy)

    def unregister_hook(self, hook_name: str) -> None:
        """Remove a hook. An unknown name is no error."""
        self._center.unregister_hook(hook_name)

    def register_hooker_plugin(self, hooker: type[HookerPlugin]) -> None:
        """Register a hook given as a class; its ``_on_register`` runs first when there is one."""
        on_register = getattr(hooker, "_on_register", None)
        if on_register is not None:
            on_register()

        policy = getattr(hooker, "delivery_policy", None)
        self.register_hook(
            hooker.handler, event_types=hooker.event_types, hook_name=hooker.name, delivery_policy=policy
        )
        self._plugins[hooker.name] = hooker

    def unregister_hooker_plugin(self, hooker: type[HookerPlugin] | str) -> None:
        """Remove a hook given as a class, or by its name."""
        name = hooker if isinstance(hooker, str) else hooker.name
        self.unregister_hook(name)
        known = self._plugins.pop(name, None)
        on_unregister = getattr(known, "_on_unregister", None)
        if on_unregister is not None:
            on_unregister()

    @property
    def _plugins(self) -> dict[str, Any]:
        plugins: dict[str, Any] = self.__dict__.setdefault("_plugin_table", {})
        return plugins

    def create_emitter(
        self,
        source: str | None = None,
        *,
        base_meta: Mapping[str, Any] | None = None,
        base_run: RunContext | None = None,
    ) -> CompatEmitter:
        """Return an emitter with the reference's raising behaviour."""
        return CompatEmitter(
            self._center, source or infer_source(), settings=self._settings, base_meta=base_meta, base_run=base_run
        )

    create_observation_emitter = create_emitter

    async def async_emit(self, event: Any) -> None:
        """Emit a mapping or an event; return after the matching hooks ran.

        Raises:
            pydantic.ValidationError: the event is invalid.
        """
        await self._center.async_emit(_validated(event))

    def emit(self, event: Any) -> None:
        """Synchronous twin of :meth:`async_emit`.

        Raises:
            pydantic.ValidationError: the event is invalid.
        """
        self._center.emit(_validated(event))


def _validated(event: Any) -> ObservationEvent:
    if isinstance(event, Mapping) and not event.get("source"):
        event = {**event, "source": infer_source()}

    return ObservationEvent.model_validate(event)
