"""Queues: their depth, their rules, and their policies: what their jobs may reach besides what their tasks' definitions grant."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import Field, StringConstraints

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.words import MOST_NAMES, Wish
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.definitions.task_options import LEAST_LOST_AFTER_S, MOST_LOST_AFTER_S
from airflow_remote_provider.ledger import queue_policy, queues
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
        description="the queue's name; for policies, `*` is all of them",
    ),
]


@router.get("/queues", summary="List the queues that have jobs, workers or rules")
async def list_queues(caller: CallerDep) -> Listed[QueueRow]:
    """With who serves them, and how long jobs wait."""
    return Listed(items=await caller.read(view.list_queues, silent_after=silent_after()), next=None)


@router.get("/queues/{queue:path}", summary="Show a queue")
async def show_queue(caller: CallerDep, queue: Queue) -> QueueRow:
    return await caller.read(view.show_queue, queue, silent_after=silent_after())


class RulesWish(Wish):
    lost_after_s: Annotated[float, Field(ge=LEAST_LOST_AFTER_S, le=MOST_LOST_AFTER_S)]
    """How long a worker may be silent before a job of this queue is lost, in seconds."""


@router.put("/queues/{queue:path}/rules", status_code=204, summary="Set a queue's rules")
async def set_rules(caller: CallerDep, queue: Queue, wish: RulesWish) -> None:
    """For the jobs that are queued from now on."""
    await caller.act_on_queue(queues.set_queue, queue, lost_after_s=wish.lost_after_s)


@router.delete("/queues/{queue:path}/rules", status_code=204, summary="Let the defaults hold again")
async def unset_rules(caller: CallerDep, queue: Queue) -> None:
    """Its policy stays."""
    await caller.act_on_queue(queues.unset_queue, queue)


@router.get("/policies", tags=["policies"], summary="List the queues' policies")
async def list_policies(caller: CallerDep) -> Listed[PolicyRow]:
    return Listed(items=await caller.read(queue_teams.list_policies), next=None)


class ModeWish(Wish):
    mode: Mode


@router.put("/policies/{queue:path}/mode", tags=["policies"], summary="Deny what is not granted, or only record it")
async def set_mode(caller: CallerDep, queue: Queue, wish: ModeWish) -> PolicyRow:
    return await caller.act_on_queue(queue_policy.set_mode, queue, wish.mode)


Glob = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_GLOB, pattern=r"^[^\x00-\x1f]+$")]
Globs = Annotated[list[Glob], Field(max_length=MOST_NAMES)]


class GlobsWish(Wish):
    """Names, or globs of them, by kind."""

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


@router.post("/policies/{queue:path}/allow", tags=["policies"], summary="Let every job of a queue use these names")
async def allow(caller: CallerDep, queue: Queue, wish: GlobsWish) -> PolicyRow:
    """Besides those that it has."""
    return await caller.act_on_queue(queue_policy.allow, queue, wish.by_kind())


@router.post("/policies/{queue:path}/deny", tags=["policies"], summary="Take back what was allowed")
async def deny(caller: CallerDep, queue: Queue, wish: GlobsWish) -> PolicyRow:
    """What a task's own definition names stays granted."""
    return await caller.act_on_queue(queue_policy.deny, queue, wish.by_kind())
