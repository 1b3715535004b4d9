"""``Agently.observe(...)``: the reference's observation bridge, over :meth:`flowdeck.Runtime.observe`.

The reference uploads events to a DevTools server; here they go to a store, which ``flowdeck devtools`` and
``flowdeck sql`` read. Every event of the runtime is kept; the targets a program asks to watch are remembered, and what
is of interest is chosen when reading.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, Final

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
        targets: what the program wants to see: objects, or ``{"target_type", "target_name"}``.
        options: those of :meth:`flowdeck.Runtime.observe`; ``app_id`` and ``group_id`` are kept. Options of the
            reference's server (addresses, keys) have no use here: a warning names them.

    Raises:
        StoreError: the store cannot be used.
        SinkNotAvailable: a sink is not installed.
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
        self.observation: Observation = host.observe(**{name: options[name] for name in _OBSERVE if name in options})
        for target in targets:
            self.watch(target)

    def watch(self, target: Any) -> ObservationBridge:
        """Remember a target; chainable. Events of everything else are kept as well."""
        if not any(known is target for known in self.targets):
            self.targets.append(target)

        return self

    def unregister(self) -> None:
        """Write what is under way and stop observing."""
        self.observation.close()

    async def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything emitted so far is written, at most ``timeout`` seconds. Return whether it is."""
        return await asyncio.get_running_loop().run_in_executor(None, self.observation.flush, timeout)
