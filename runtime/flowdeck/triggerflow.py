"""TriggerFlow: a definition that can create executions. What users import.

>>> flow = TriggerFlow(name="greet")
>>> flow.to(lambda data: f"hello {data.input}").to(("keep", keep))
>>> snapshot = await flow.async_start("world")
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from flowdeck.definition.blueprint import Blueprint, Chunk
from flowdeck.definition.operators import Operator, Trigger
from flowdeck.definition.plan import Plan, compile_plan
from flowdeck.definition.process import Process
from flowdeck.definition.retry import Retry
from flowdeck.errors import DefinitionError
from flowdeck.events import EventCenter
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import RunContext, current_run
from flowdeck.execution.data import TriggerFlowRuntimeData
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.execution.flow_data import FlowData, FlowDataScope
from flowdeck.execution.services import Services, current_services
from flowdeck.execution.sync import run_sync

__all__ = ["TriggerFlow", "TriggerFlowExecution", "TriggerFlowRuntimeData"]

_UNSET: Final[Any] = object()


class TriggerFlow(FlowDataScope):
    """A signal-driven flow. Declare its steps with the process methods, then create executions.

    The flow itself stands at ``START``: ``flow.to(a)`` and ``flow.to(b)`` are two parallel branches. An execution
    works on the definition as it was when the execution was created.
    """

    def __init__(
        self, blueprint: Blueprint | None = None, name: str | None = None, skip_exceptions: bool = False
    ) -> None:
        if isinstance(blueprint, str):
            raise DefinitionError(
                f"TriggerFlow({blueprint!r}): the first argument is a blueprint; write name={blueprint!r}"
            )

        frame = sys._getframe(1)
        self._module = frame.f_globals.get("__name__", "")
        self._blueprint = blueprint or Blueprint(name or f"flow-{new_id()}")
        self._label = self._blueprint.name if name or blueprint else "sub_flow"
        self.skip_exceptions = skip_exceptions
        self.settings: dict[str, Any] = {}
        self._plan: tuple[int, Plan] | None = None
        self._entrypoint: str | None = _UNSET
        self._resources: dict[str, Any] = {}
        self._provider: Callable[..., Any] | None = None
        self._executions: dict[str, TriggerFlowExecution] = {}
        self._flow_data = FlowData(self._executions)
        self._declared: WeakKeyDictionary[EventCenter, set[str]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<TriggerFlow {self.name!r} with {len(self._blueprint.operators)} operators>"

    @property
    def name(self) -> str:
        """The flow's name, in every event and in the store."""
        return self._blueprint.name

    @property
    def chunks(self) -> dict[str, Chunk]:
        """The flow's chunks by name."""
        return self._blueprint.chunks

    @property
    def plan(self) -> Plan:
        """The compiled definition; compiled again after a change."""
        version = self._blueprint.version
        if self._plan is None or self._plan[0] != version:
            self._plan = (version, compile_plan(self._blueprint))

        return self._plan[1]

    # -- declaring -------------------------------------------------------------------------------------------------

    @property
    def process(self) -> Process:
        """The position at ``START``."""
        return Process(self._blueprint)

    def chunk(self, handler: Any) -> Any:
        """Make a chunk of a handler; ``@flow.chunk("name")`` decorates one and returns the chunk.

        Raises:
            DefinitionError: the name is empty, or bound to another handler.
        """
        if not isinstance(handler, str):
            return self._blueprint.chunk(handler)

        if not handler:
            raise DefinitionError('chunk(""): a chunk needs a name')

        name = handler
        return lambda fn: self._blueprint.chunk(fn, name)

    def to(
        self,
        chunk: Any,
        side_branch: bool = False,
        name: str | None = None,
        *,
        retry: Retry | None = None,
        timeout: float | None = None,
        replay_safe: bool = True,
    ) -> Process:
        """Run ``chunk`` when the execution starts. See :meth:`Process.to`."""
        return self.process.to(chunk, side_branch, name, retry=retry, timeout=timeout, replay_safe=replay_safe)

    def side_branch(self, chunk: Any, *, name: str | None = None) -> Process:
        return self.process.side_branch(chunk, name=name)

    def to_sub_flow(
        self,
        flow: TriggerFlow,
        *,
        side_branch: bool = False,
        name: str | None = None,
        capture: Mapping[str, Any] | None = None,
        write_back: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
    ) -> Process:
        """Run another flow when the execution starts. See :meth:`Process.to_sub_flow`."""
        return self.process.to_sub_flow(
            flow, side_branch=side_branch, name=name, capture=capture, write_back=write_back, concurrency=concurrency
        )

    def when(self, trigger: Any, *, mode: str = "and") -> Process:
        """Stand where a signal is reached. See :meth:`Process.when`."""
        return self.process.when(trigger, mode=mode)

    def batch(self, *chunks: Any, side_branch: bool = False, concurrency: int | None = None) -> Process:
        return self.process.batch(*chunks, side_branch=side_branch, concurrency=concurrency)

    def for_each(self, *, concurrency: int | None = None, name: str | None = None) -> Process:
        return self.process.for_each(concurrency=concurrency, name=name)

    def match(self, *, mode: str = "hit_first", name: str | None = None) -> Process:
        return self.process.match(mode=mode, name=name)

    def if_condition(self, condition: Any) -> Process:
        return self.process.if_condition(condition)

    def collect(
        self, collection_name: str, branch_id: str | None = None, *, mode: str = "filled_and_update"
    ) -> Process:
        return self.process.collect(collection_name, branch_id, mode=mode)

    def describe(self) -> dict[str, Any]:
        """Return the definition as JSON-safe data."""
        return self._blueprint.describe()

    # -- resources ---------------------------------------------------------------------------------------------------

    def resources(self, provider: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function that returns the runtime resources a worker must inject before it resumes a run."""
        self._provider = provider
        return provider

    def set_runtime_resource(self, key: str, value: Any) -> None:
        """Set a live object every later execution starts with."""
        self._resources[key] = value

    def get_runtime_resource(self, key: str, default: Any = None) -> Any:
        return self._resources.get(key, default)

    def del_runtime_resource(self, key: str) -> None:
        self._resources.pop(key, None)

    def update_runtime_resources(self, resources: Mapping[str, Any] | None = None, **more: Any) -> None:
        self._resources.update(resources or {}, **more)

    def clear_runtime_resources(self) -> None:
        self._resources.clear()

    # -- executions ----------------------------------------------------------------------------------------------------

    def create_execution(
        self,
        *,
        skip_exceptions: bool | None = None,
        concurrency: int | None = None,
        runtime_resources: Mapping[str, Any] | None = None,
        run_context: RunContext | None = None,
        parent_run_context: RunContext | None = None,
        auto_close: bool = True,
        auto_close_timeout: float | None = 10.0,
        resume_handle_exposed: bool = True,
        execution_id: str | None = None,
        task_id: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        trace_id: str | None = None,
        services: Services | None = None,
    ) -> TriggerFlowExecution:
        """Create an execution that has not started.

        Args:
            concurrency: how many handlers may run at once; ``None`` is no limit.
            runtime_resources: live objects handlers may ask for; never saved.
            auto_close_timeout: idle seconds after which it closes by itself; ``None``: never.
            task_id: and ``tenant_id``, ``user_id``, ``trace_id``: whose work this is; inherited by every child run.
        """
        hosted = services or current_services()
        attach = hosted.settings.get("on_first_use")
        if attach is not None:
            attach()

        new = execution_id or new_id()
        owners = {"task_id": task_id, "tenant_id": tenant_id, "user_id": user_id, "trace_id": trace_id}
        run = run_context or RunContext.create(
            run_kind="workflow_execution",
            parent=parent_run_context or current_run.get(),
            execution_id=new,
            meta={"flow_name": self.name, **{k: v for k, v in owners.items() if v is not None}},
        )
        execution = TriggerFlowExecution(
            self.plan,
            hosted,
            run,
            new,
            concurrency=concurrency or 0,
            resources={**self._resources, **(runtime_resources or {})},
            auto_close=auto_close,
            auto_close_timeout=auto_close_timeout,
            handle_exposed=resume_handle_exposed,
            skip_exceptions=self.skip_exceptions if skip_exceptions is None else skip_exceptions,
            entrypoint=self.entrypoint,
            definition=self,
            flow_data=self._flow_data,
        )
        self._executions[new] = execution
        return execution

    def sub_flow_label(self) -> str:
        """Return the name of an operator that runs this flow: the flow's own, when it has been given one."""
        return self._label

    def create_child(
        self,
        *,
        parent: TriggerFlowExecution,
        execution_id: str,
        run: RunContext,
        resources: Mapping[str, Any],
        concurrency: int,
    ) -> TriggerFlowExecution:
        """Create the execution of a sub flow: isolated, with a copy of the flow's data and the parent's services.

        The definition is this flow's own as it stands now, also after a load, so any handler works in it.
        """
        meta = {"flow_name": self.name, "parent_execution_id": parent.id}
        return TriggerFlowExecution(
            self.plan,
            parent._services,
            RunContext.create(run_kind="workflow_execution", parent=run, execution_id=execution_id, meta=meta),
            execution_id,
            concurrency=concurrency,
            resources={**self._resources, **resources},
            auto_close=False,
            auto_close_timeout=None,
            handle_exposed=parent._handle_exposed,
            skip_exceptions=self.skip_exceptions,
            entrypoint=self.entrypoint,
            definition=self,
            flow_data=self._flow_data.isolated(),
            depth=parent._depth + 1,
        )

    def rekey_execution(self, old_id: str, execution: TriggerFlowExecution) -> None:
        """List an execution under the id it took over from a saved state."""
        if self._executions.get(old_id) is execution:
            del self._executions[old_id]
            self._executions[execution.id] = execution

    def remove_execution(self, execution: TriggerFlowExecution | str) -> None:
        """Forget an execution; a closed one is kept until then."""
        self._executions.pop(execution if isinstance(execution, str) else execution.id, None)

    async def async_start_execution(
        self, initial_value: Any = None, *, timeout: float | None = _UNSET, wait_for_result: Any = None, **options: Any
    ) -> TriggerFlowExecution:
        """Create an execution, start it, and return its handle once the start has settled."""
        _deprecated_wait(wait_for_result)
        if timeout is not _UNSET:
            options["auto_close_timeout"] = timeout

        execution = self.create_execution(**options)
        auto_close, execution.auto_close = execution.auto_close, False
        await execution.async_start(initial_value)
        execution.auto_close = auto_close
        execution._on_idle()
        return execution

    def start_execution(self, initial_value: Any = None, **options: Any) -> TriggerFlowExecution:
        """Synchronous twin of :meth:`async_start_execution`."""
        return run_sync(self.async_start_execution(initial_value, **options))

    async def async_start(
        self,
        initial_value: Any = None,
        *,
        auto_close: bool = True,
        auto_close_timeout: float | None = 0.0,
        timeout: float | None = _UNSET,
        wait_for_result: Any = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Run the flow from start to close and return the close snapshot. Nobody holds a handle, so it cannot pause.

        Raises:
            ValueError: ``auto_close=False``; use :meth:`create_execution`.
            HiddenHandleError: a chunk paused.
        """
        if not auto_close:
            raise ValueError("flow.start() hides the handle, so it must close by itself; use create_execution()")

        _deprecated_wait(wait_for_result)
        execution = self.create_execution(
            auto_close_timeout=auto_close_timeout if timeout is _UNSET else timeout,
            resume_handle_exposed=False,
            **options,
        )
        try:
            snapshot: dict[str, Any] = await execution.async_start(initial_value)
            return snapshot
        except BaseException:
            if not execution.is_closed():
                await execution.async_close(reason="failed", timeout=0, pending_interrupts="cancel")

            raise
        finally:
            self.remove_execution(execution)

    def start(self, initial_value: Any = None, **options: Any) -> dict[str, Any]:
        """Synchronous twin of :meth:`async_start`."""
        return run_sync(self.async_start(initial_value, **options))

    async def get_async_runtime_stream(
        self, initial_value: Any = None, *, timeout: float | None = 10.0, **options: Any
    ) -> AsyncIterator[Any]:
        """Run the flow and yield its runtime stream, live, until it has closed."""
        execution = self.create_execution(auto_close_timeout=0.0, resume_handle_exposed=False, **options)
        try:
            async for item in execution.get_async_runtime_stream(initial_value, timeout=timeout):
                yield item
        finally:
            self.remove_execution(execution)

    def get_runtime_stream(
        self, initial_value: Any = None, *, timeout: float | None = 10.0, **options: Any
    ) -> Iterator[Any]:
        """Synchronous twin of :meth:`get_async_runtime_stream`."""
        execution = self.create_execution(auto_close_timeout=0.0, resume_handle_exposed=False, **options)
        yield from execution.get_runtime_stream(initial_value, timeout=timeout)

    # -- what observers are told ---------------------------------------------------------------------------------------

    @property
    def entrypoint(self) -> str | None:
        """``module:name`` under which another process can import this flow, or ``None``."""
        if self._entrypoint is _UNSET:
            module = sys.modules.get(self._module)
            if module is None or self._module == "__main__":
                return None

            found = [name for name, value in vars(module).items() if value is self]
            if not found and getattr(module.__spec__, "_initializing", False):
                return None  # the module is still being imported; the name may come yet

            self._entrypoint = f"{self._module}:{found[0]}" if found else None

        return self._entrypoint

    def declare_to(self, center: EventCenter, fingerprint: str, entrypoint: str | None) -> dict[str, Any] | None:
        """Return the payload of ``definition_declared``, or ``None`` when this Event Center has had it."""
        told = self._declared.setdefault(center, set())
        if fingerprint in told:
            return None

        told.add(fingerprint)
        return {
            "flow_name": self.name,
            "definition": self.describe(),
            "fingerprint": fingerprint,
            "entrypoint": entrypoint,
        }

    def operators(self, trigger: str | None = None) -> list[Operator]:
        """Return the operators, or those an event starts."""
        if trigger is None:
            return list(self._blueprint.operators.values())

        return self._blueprint.listening(Trigger.event(trigger))


def _deprecated_wait(value: Any) -> None:
    if value is not None:
        warnings.warn("wait_for_result is ignored", DeprecationWarning, stacklevel=3)
