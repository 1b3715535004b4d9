"""TriggerFlow: a definition that can create executions. What users import.

>>> flow = TriggerFlow(name="greet")
>>> flow.to(lambda data: f"hello {data.input}").to(("keep", keep))
>>> snapshot = await flow.async_start("world")
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakKeyDictionary

from flowdeck.definition.blueprint import Blueprint, Chunk
from flowdeck.definition.declaring import DeclaringScope
from flowdeck.definition.plan import Plan, compile_plan
from flowdeck.definition.portability import obstacles
from flowdeck.definition.portable import PortableFlow
from flowdeck.definition.settings import Settings, SettingsScope
from flowdeck.errors import DefinitionError
from flowdeck.events import EventCenter
from flowdeck.events.ids import new_id
from flowdeck.events.lineage import RunContext, ambient, current_run
from flowdeck.events.profiles import spec_of_settings
from flowdeck.events.tracing import TRACEPARENT, current_traceparent
from flowdeck.execution.contracts import ContractScope
from flowdeck.execution.data import TriggerFlowRuntimeData
from flowdeck.execution.execution import TriggerFlowExecution
from flowdeck.execution.flow_data import FlowData, FlowDataScope
from flowdeck.execution.flow_resources import FlowResources
from flowdeck.execution.interventions import UNSET, open_ledger
from flowdeck.execution.older_names import ignored
from flowdeck.execution.registry import ExecutionRegistry
from flowdeck.execution.services import Services, current_services
from flowdeck.execution.starting import StartingScope

__all__ = ["TriggerFlow", "TriggerFlowExecution", "TriggerFlowRuntimeData"]

_UNSET: Final[Any] = object()


class TriggerFlow(
    DeclaringScope, StartingScope, FlowResources, ContractScope, SettingsScope, PortableFlow, FlowDataScope
):
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
        self._blueprint = blueprint.copy() if blueprint is not None else Blueprint(name or f"flow-{new_id()}")
        if name:
            self._blueprint.name = name

        self._label = self._blueprint.name if name or blueprint else "sub_flow"
        self.skip_exceptions = skip_exceptions
        self._settings = Settings(lambda: (current_services().settings,))
        self._plan: tuple[int, Plan] | None = None
        self._entrypoint: str | None = _UNSET
        self._shared_meta: Mapping[str, Any] = MappingProxyType({})
        self._resources: dict[str, Any] = {}
        self._provider: Callable[..., Any] | None = None
        self.migrations: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
        self.execution_environments: list[Any] = []
        """What every execution finds as runtime resources while it runs; see :meth:`create_execution`."""
        self.intervention_mode: Any = UNSET
        """The mode of every execution that is created without one, also by workers, servers and evaluations."""
        self._executions = ExecutionRegistry()
        self._flow_data = FlowData(self._executions)
        self._declared: WeakKeyDictionary[EventCenter, set[str]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<TriggerFlow {self.name!r} with {len(self._blueprint.operators)} operators>"

    @property
    def name(self) -> str:
        """The flow's name, in every event and in the store."""
        return self._blueprint.name

    @property
    def settings(self) -> Settings:
        """Settings of every execution of the flow; what is not set here is the runtime's."""
        return self._settings

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

    # -- executions ----------------------------------------------------------------------------------------------------

    def create_execution(
        self,
        *,
        skip_exceptions: bool | None = None,
        concurrency: int | None = None,
        runtime_resources: Mapping[str, Any] | None = None,
        execution_environments: Any = None,
        run_context: RunContext | None = None,
        parent_run_context: RunContext | None = None,
        auto_close: bool = True,
        auto_close_timeout: float | None = 10.0,
        intervention_mode: str | None = UNSET,
        intervention_policy: Callable[[dict[str, Any]], Any] | None = None,
        resume_handle_exposed: bool = True,
        owner_id: str | None = None,
        lease_ttl: float | None = None,
        execution_id: str | None = None,
        task_id: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        trace_id: str | None = None,
        traceparent: str | None = None,
        deadline: float | None = None,
        services: Services | None = None,
    ) -> TriggerFlowExecution:
        """Create an execution that has not started.

        Args:
            concurrency: how many handlers may run at once; ``None`` is no limit.
            runtime_resources: live objects handlers may ask for; never saved.
            execution_environments: requirements, or ids of declared ones, that are there while it runs; their resources
                are runtime resources. By default :attr:`execution_environments` of the flow, which also holds for runs
                that are taken up again.
            auto_close_timeout: idle seconds after which it closes by itself; ``None``: never.
            intervention_mode: ``"planned"``: interventions become visible at intervention points; ``"auto"``: before
                the operator that is their target; ``None``: the execution takes none. Not given: that of the flow's
                :attr:`intervention_mode`, else ``planned`` when the flow has such points.
            intervention_policy: selects what becomes visible, in mode ``auto``: called with a dict (``operator_id``,
                ``pending_interventions``, ``state`` ...), returns ``None``, an id, or several. May be async.
            owner_id: and ``lease_ttl``: taken for the compatible API and without use; leases are the control store's.
            task_id: and ``tenant_id``, ``user_id``, ``trace_id``: whose work this is; inherited by every child run.
            traceparent: the W3C header of the traced call this run is part of; by default that of the current
                OpenTelemetry span, if there is one.
            deadline: seconds after its start at which the run is cancelled, if it has not ended by then.
        """
        hosted = services or current_services()
        attach = hosted.settings.get("on_first_use")
        if attach is not None:
            attach()

        if owner_id is not None or lease_ttl is not None:
            ignored("owner_id= and lease_ttl=", "who runs an execution is kept by the control store", stacklevel=3)

        plan = self.plan
        new = execution_id or new_id()
        lease, leased = None, execution_environments or self.execution_environments
        if leased:
            lease = import_module("flowdeck.environments.leases").lease_for(hosted, leased, new)

        meta: dict[str, Any] = {}
        if self._settings.own:
            self._show_on_console(meta)

        if task_id or tenant_id or user_id or trace_id:
            owners = {"task_id": task_id, "tenant_id": tenant_id, "user_id": user_id, "trace_id": trace_id}
            meta |= {k: v for k, v in owners.items() if v is not None}

        parent = parent_run_context or current_run.get()
        if parent is None:  # a child belongs to its parent's trace
            joined = traceparent or (None if ambient(TRACEPARENT) else current_traceparent())
            if joined is not None:
                meta[TRACEPARENT] = joined

        run = run_context or RunContext.create(
            run_kind="workflow_execution",
            parent=parent,
            execution_id=new,
            meta={"flow_name": self.name, **meta} if meta else self._meta_of_runs(),
        )
        resources: dict[str, Any] | None = None
        if self._resources or lease is not None or runtime_resources:
            leased_keys = dict.fromkeys(lease.keys) if lease is not None else {}
            resources = {**self._resources, **leased_keys, **(runtime_resources or {})}

        execution = TriggerFlowExecution(
            plan,
            hosted,
            run,
            new,
            concurrency=concurrency or 0,
            resources=resources,
            auto_close=auto_close,
            auto_close_timeout=auto_close_timeout,
            handle_exposed=resume_handle_exposed,
            skip_exceptions=self.skip_exceptions if skip_exceptions is None else skip_exceptions,
            entrypoint=self.entrypoint,
            definition=self,
            flow_data=self._flow_data,
            ledger=open_ledger(
                plan,
                self.intervention_mode if intervention_mode is UNSET else intervention_mode,
                intervention_policy,
            ),
            policy=intervention_policy,
            contract=self._contract,
        )
        if lease is not None:
            execution._lease = lease

        if deadline is not None:
            execution._deadline_s = _checked_deadline(deadline)

        self._executions[new] = execution
        return execution

    def _meta_of_runs(self) -> Mapping[str, Any]:
        """What the runs of the flow say of it; one mapping for all of them."""
        if self._shared_meta.get("flow_name") != self.name:
            self._shared_meta = MappingProxyType({"flow_name": self.name})

        return self._shared_meta

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
        plan = self.plan
        return TriggerFlowExecution(
            plan,
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
            ledger=open_ledger(plan, UNSET, None),
            contract=self._contract,
        )

    def rekey_execution(self, old_id: str, execution: TriggerFlowExecution) -> None:
        """List an execution under the id it took over from a saved state."""
        if self._executions.get(old_id) is execution:
            del self._executions[old_id]
            self._executions[execution.id] = execution

    def remove_execution(self, execution: TriggerFlowExecution | str) -> None:
        """Forget an execution; a closed one is kept until then."""
        self._executions.forget(execution if isinstance(execution, str) else execution.id)

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

    def check_portable(self, engine: str = "postgres") -> list[str]:
        """Return what keeps other processes from going on with this flow's executions; empty when nothing does.

        Args:
            engine: ``postgres`` or ``dbos``.

        Raises:
            ValueError: there is no such engine.
        """
        name = self.name if self._label != "sub_flow" or self.name == "sub_flow" else None
        return obstacles(engine, name=name, entrypoint=self.entrypoint, provider=self._provider)

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

    # -- what other processes read -------------------------------------------------------------------------------------

    def _show_on_console(self, meta: dict[str, Any]) -> None:
        """Let the flow's own console settings go with its runs."""
        try:
            spec = spec_of_settings(lambda name: self.settings.get(name, inherit=False))
        except ValueError as problem:
            warnings.warn(f"flow {self.name!r}: {problem}", RuntimeWarning, stacklevel=3)
            return

        if spec is not None:
            meta["console"] = spec

    def config_meta(self) -> dict[str, Any]:
        """Return what of the flow itself belongs into a config: whether it goes on after errors."""
        return {"skip_exceptions": True} if self.skip_exceptions else {}

    def _adopt(self, blueprint: Blueprint) -> None:
        super()._adopt(blueprint)
        self._label = self._blueprint.name
        self.skip_exceptions = self._blueprint.meta.pop("skip_exceptions", self.skip_exceptions) is True

    def _flow_of(self, blueprint: Blueprint) -> TriggerFlow:
        """Make a flow of a sub flow's blueprint."""
        return TriggerFlow(blueprint, skip_exceptions=blueprint.meta.pop("skip_exceptions", False) is True)


def _checked_deadline(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e10:
        raise ValueError(f"deadline={seconds!r}: expected seconds, more than 0")

    return float(seconds)
