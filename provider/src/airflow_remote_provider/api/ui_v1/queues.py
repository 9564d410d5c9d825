"""Routes of queues, their rules and their policies, which grant jobs more than their tasks' definitions do."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field, StringConstraints

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.request_types import MOST_NAMES, BundleGlob, RequestBody, RuntimeName
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.definitions.task_options import LEAST_LOST_AFTER_S, MOST_LOST_AFTER_S
from airflow_remote_provider.ledger import queue_policy, queues, rollouts
from airflow_remote_provider.ledger.queue_policy import LONGEST_GLOB, Mode, PolicyRow
from airflow_remote_provider.ledger.queues import LONGEST_NAME
from airflow_remote_provider.ledger.views import queue_teams
from airflow_remote_provider.ledger.views import queues as view
from airflow_remote_provider.ledger.views.queues import QueueRow
from airflow_remote_provider.settings import silent_after

router = Routes("queues")

Queue = Annotated[
    str,
    Path(
        min_length=1,
        max_length=LONGEST_NAME,
        pattern=r"^[^\x00-\x1f,]+$",
        description="the queue's name; for policies, `*` is all queues",
    ),
]


@router.get("/queues", summary="List the queues that have jobs, workers or rules")
async def list_queues(caller: CallerDep) -> Listed[QueueRow]:
    """With their workers, and how long jobs wait."""
    return Listed(items=await caller.read(view.list_queues, silent_after=silent_after()), next=None)


@router.get("/queues/{queue:path}", summary="Show a queue")
async def show_queue(caller: CallerDep, queue: Queue) -> QueueRow:
    return await caller.read(view.show_queue, queue, silent_after=silent_after())


class RulesRequest(RequestBody):
    lost_after_s: Annotated[float, Field(ge=LEAST_LOST_AFTER_S, le=MOST_LOST_AFTER_S)]
    """How many seconds a worker may be silent before its jobs of this queue are marked as lost."""


@router.put("/queues/{queue:path}/rules", status_code=204, summary="Set a queue's rules")
async def set_rules(caller: CallerDep, queue: Queue, body: RulesRequest) -> None:
    """For jobs that are queued from now on."""
    await caller.act_on_queue(queues.set_queue, queue, lost_after_s=body.lost_after_s)


class BundlesRequest(RequestBody):
    bundles: Annotated[list[BundleGlob], Field(max_length=MOST_NAMES)] | None
    """Globs, at least one; null: any."""


@router.put("/queues/{queue:path}/bundles", status_code=204, summary="Set the Dag bundles that a queue's jobs may belong to")
async def set_bundles(caller: CallerDep, queue: Queue, body: BundlesRequest) -> None:
    """For jobs that are queued from now on; others fail. The rule of `*` is for all queues without a rule of their own."""
    await caller.act_on_queue(queue_policy.set_bundles, queue, body.bundles)


class RuntimeRequest(RequestBody):
    runtime: RuntimeName | None
    """Name of a runtime that central has built; null: `default`."""


@router.put("/queues/{queue:path}/runtime", status_code=204, summary="Set the runtime in which a queue's jobs run")
async def set_runtime(caller: CallerDep, queue: Queue, body: RuntimeRequest) -> None:
    """For jobs that are offered from now on to workers that take their runtime from central."""
    await caller.act_on_queue(rollouts.assign_queue, queue, body.runtime)


@router.delete("/queues/{queue:path}/rules", status_code=204, summary="Reset a queue's rules to the defaults")
async def unset_rules(caller: CallerDep, queue: Queue) -> None:
    """The queue's policy is kept."""
    await caller.act_on_queue(queues.unset_queue, queue)


@router.get("/policies", tags=["policies"], summary="List the queues' policies")
async def list_policies(caller: CallerDep) -> Listed[PolicyRow]:
    return Listed(items=await caller.read(queue_teams.list_policies), next=None)


class ModeRequest(RequestBody):
    mode: Mode


@router.put("/policies/{queue:path}/mode", tags=["policies"], summary="Deny what is not granted, or only record it")
async def set_mode(caller: CallerDep, queue: Queue, body: ModeRequest) -> PolicyRow:
    return await caller.act_on_queue(queue_policy.set_mode, queue, body.mode)


Glob = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_GLOB, pattern=r"^[^\x00-\x1f]+$")]
Globs = Annotated[list[Glob], Field(max_length=MOST_NAMES)]


class GlobsRequest(RequestBody):
    """Names or globs, by kind of grant."""

    connections: Globs = []
    variables: Globs = []
    writes: Globs = []
    xcoms_of: Globs = []
    dags: Globs = []
    trigger_dags: Globs = []
    assets: Globs = []
    asset_writes: Globs = []
    code_on_central: Globs = []

    def by_kind(self) -> dict[GrantKind, list[str]]:
        named = {kind: getattr(self, kind.value) for kind in GrantKind}
        return {kind: globs for kind, globs in named.items() if globs}


@router.post("/policies/{queue:path}/allow", tags=["policies"], summary="Grant names to every job of a queue")
async def allow(caller: CallerDep, queue: Queue, body: GlobsRequest) -> PolicyRow:
    """In addition to the policy's existing names."""
    return await caller.act_on_queue(queue_policy.allow, queue, body.by_kind())


@router.post("/policies/{queue:path}/deny", tags=["policies"], summary="Remove names from a queue's policy")
async def deny(caller: CallerDep, queue: Queue, body: GlobsRequest) -> PolicyRow:
    """Names in a task's own definition stay granted."""
    return await caller.act_on_queue(queue_policy.deny, queue, body.by_kind())
