"""The Event Center as the reference's users know it: it raises where the native one quarantines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowdeck.compat.diagrams import DEFINITION_DECLARED, with_diagrams
from flowdeck.compat.hookers import BUILT_IN, SinkHooker
from flowdeck.events.aliases import matcher
from flowdeck.events.center import IDLE_FLUSH_S, EventCenter
from flowdeck.events.emitter import Emitter
from flowdeck.events.hooks import HookCallback
from flowdeck.events.intake import infer_source
from flowdeck.events.lineage import RunContext
from flowdeck.events.model import ObservationEvent

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from flowdeck._observation import Observation
    from flowdeck._runtime import Runtime

__all__ = ["CompatEmitter", "CompatEventCenter", "HookerPlugin", "SettingsView"]

BACKGROUND_TIMEOUT: Final = 5.0


class SettingsView(Protocol):
    """Settings as they are read here."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return a setting."""


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
        settings: SettingsView,
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

    def __init__(
        self,
        center: EventCenter | None = None,
        settings: SettingsView | None = None,
        *,
        host: Runtime | None = None,
        idle_flush_seconds: float = IDLE_FLUSH_S,
        background_timeout: float = BACKGROUND_TIMEOUT,
    ) -> None:
        self._center = center if center is not None else EventCenter(idle_flush_seconds=idle_flush_seconds)
        self._settings: SettingsView = settings if settings is not None else {}
        self._host = host
        self._background_timeout = background_timeout
        self._plugins: dict[str, Any] = {} if host is None else {hooker.name: hooker for hooker in BUILT_IN}
        self._sinks: dict[str, Observation] = {}

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
        policy = {"background_timeout": self._background_timeout, **given}
        if callable(callback) and matcher(event_types)(DEFINITION_DECLARED):
            hook_name = hook_name or getattr(callback, "__name__", None) or callback.__class__.__name__
            callback = with_diagrams(callback)

        self._center.register_hook(callback, event_types=event_types, hook_name=hook_name, delivery_policy=policy)

    def unregister_hook(self, hook_name: str) -> None:
        """Remove a hook. An unknown name is no error."""
        self._center.unregister_hook(hook_name)

    def register_hooker_plugin(self, hooker: type[HookerPlugin | SinkHooker]) -> None:
        """Register a hook given as a class; its ``_on_register`` runs first when there is one.

        Raises:
            ValueError: a built-in one belongs to ``Agently.event_center``.
        """
        on_register = getattr(hooker, "_on_register", None)
        if on_register is not None:
            on_register()

        if _is_sink_hooker(hooker):
            if self._host is None:
                raise ValueError(f"{hooker.name} attaches a sink of a runtime: register it with Agently.event_center")

            self._plugins[hooker.name] = hooker
            self._attach(hooker)
            return

        policy = getattr(hooker, "delivery_policy", None)
        self.register_hook(
            hooker.handler, event_types=hooker.event_types, hook_name=hooker.name, delivery_policy=policy
        )
        self._plugins[hooker.name] = hooker

    def unregister_hooker_plugin(self, hooker: type[HookerPlugin | SinkHooker] | str) -> None:
        """Remove a hook given as a class, or by its name."""
        name = hooker if isinstance(hooker, str) else hooker.name
        self.unregister_hook(name)
        self._detach(name)
        known = self._plugins.pop(name, None)
        on_unregister = getattr(known, "_on_unregister", None)
        if on_unregister is not None:
            on_unregister()

    def follow_settings(self) -> None:
        """Let the sinks of built-in hookers be as the settings are now."""
        for hooker in list(self._plugins.values()):
            if _is_sink_hooker(hooker):
                self._attach(hooker)

    def _attach(self, hooker: type[SinkHooker]) -> None:
        assert self._host is not None
        self._detach(hooker.name)
        observation = hooker.observe(self._host, self._settings)
        if observation is not None:
            self._sinks[hooker.name] = observation

    def _detach(self, name: str) -> None:
        observation = self._sinks.pop(name, None)
        if observation is not None:
            observation.close()

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


def _is_sink_hooker(hooker: Any) -> TypeIs[type[SinkHooker]]:
    return isinstance(hooker, type) and issubclass(hooker, SinkHooker)  # a plugin may also be an object


def _validated(event: Any) -> ObservationEvent:
    if isinstance(event, Mapping) and not event.get("source"):
        event = {**event, "source": infer_source()}

    return ObservationEvent.model_validate(event)
