"""``Agently.observe(...)``: the reference's observation bridge, over :meth:`flowdeck.Runtime.observe`.

The reference uploads events to a DevTools server; here they go to a store, which ``flowdeck devtools`` and
``flowdeck sql`` read. Without targets, or with ``Agently`` itself, every event of the runtime is kept; with targets,
what belongs to one of them.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, Final

from flowdeck.compat.watched import Watched

if TYPE_CHECKING:
    from flowdeck._observation import Observation
    from flowdeck._runtime import Runtime

__all__ = ["ObservationBridge"]

_OBSERVE: Final = ("store", "console", "otlp", "sinks", "event_types", "level")
"""Options of ours."""
_LABELS: Final = ("app_id", "group_id")
"""Options that only name the program."""


class ObservationBridge:
    """An observation of everything a runtime does. Made by ``Agently.observe`` or ``create_observation_bridge``.

    Args:
        targets: what the program wants to see: objects, or ``{"target_type", "target_name"}``; see :meth:`watch`.
        options: those of :meth:`flowdeck.Runtime.observe`; ``app_id`` and ``group_id`` are kept. Options of the
            reference's server (addresses, keys) have no use here: a warning names them.

    Raises:
        StoreError: the store cannot be used.
        SinkNotAvailable: a sink is not installed.
        TypeError: a target is none. Nothing is observed.
    """

    def __init__(self, host: Runtime, targets: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.app_id: Any = options.get("app_id")
        self.group_id: Any = options.get("group_id")
        unused = sorted(set(options) - set(_OBSERVE) - set(_LABELS))
        if unused:
            warnings.warn(
                f"{', '.join(unused)}: no use here, events go to a store; see Runtime.observe() for what there is",
                UserWarning,
                stacklevel=3,
            )

        self.targets: list[Any] = []
        self._host = host
        self._watched = Watched()
        self._narrowed = False
        for target in targets:
            self._add(target)

        self.observation: Observation = host.observe(**{name: options[name] for name in _OBSERVE if name in options})
        self._narrow()

    def watch(self, target: Any) -> ObservationBridge:
        """Keep the events of ``target`` and of what runs below it; chainable.

        The first target ends that everything is kept, unless it is ``Agently`` itself. A store that others in this
        process observe as well keeps what they want.

        Raises:
            TypeError: it is no target.
        """
        self._add(target)
        self._narrow()
        return self

    def _add(self, target: Any) -> None:
        if any(known is target for known in self.targets):
            return

        if getattr(target, "event_center", None) is None:
            self._watched.add(target)
        else:  # the main object, or a runtime
            self._watched.everything = True

        self.targets.append(target)

    def _narrow(self) -> None:
        """Let the sinks have what is watched."""
        if not self.targets or self._watched.everything or self._narrowed:
            return

        self._narrowed = True
        for sink in self.observation.sinks:
            if not self.observation.shares(sink):
                self._host.center.narrow_sink(sink, self._watched)

    def unregister(self) -> None:
        """Write what is under way and stop observing."""
        self.observation.close()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything emitted so far is written, at most ``timeout`` seconds. Return whether it is."""
        return await asyncio.get_running_loop().run_in_executor(None, self.observation.flush, timeout)
