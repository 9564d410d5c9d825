"""Routes of the fleet, and of each worker's intent and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Literal

from airflow_remote_protocol.messages import IntentMode
from airflow_remote_protocol.presence import Presence
from fastapi import Depends, Path, Query
from pydantic import Field
from sqlalchemy.orm import Session

from airflow_remote_provider.api.ui_v1.caller import CallerDep
from airflow_remote_provider.api.ui_v1.listed import Listed, PageDep
from airflow_remote_provider.api.ui_v1.request_types import MOST_NAMES, BundleGlob, LabelPart, QueueName, Reason, RequestBody
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.ledger import certificates, releases, restarts, rotation, suspension, workers
from airflow_remote_provider.ledger.views import workers as view
from airflow_remote_provider.ledger.views.scope import Scope
from airflow_remote_provider.ledger.views.workers import FleetCount, WorkerFilter, WorkerRow
from airflow_remote_provider.settings import silent_after

router = Routes("workers")

Name = Annotated[str, Path(max_length=100, description="the worker's name")]


def _filter(
    text: Annotated[str, Query(max_length=200, description="part of the name or host name, ignoring case")] = "",
    presence: Annotated[Sequence[Presence], Query()] = (),
    intent: Annotated[Sequence[IntentMode], Query()] = (),
    queue: Annotated[str, Query(max_length=256, description="filter by a queue that the worker may serve")] = "",
    label: Annotated[str, Query(max_length=201, pattern="^([^=]+=.+)?$", description="key=value")] = "",
    version: Annotated[str, Query(max_length=50)] = "",
    flagged: Annotated[bool, Query(description="filter by workers with an alarm, suspended, or unable to host tasks")] = False,
) -> WorkerFilter:
    key, equals, value = label.partition("=")
    return WorkerFilter(
        text=text,
        presence=[one.value for one in presence],
        intent=[mode.value for mode in intent],
        queue=queue,
        label=(key, value) if equals else None,
        version=version,
        flagged=flagged,
    )


FilterDep = Annotated[WorkerFilter, Depends(_filter)]


@router.get("/workers", summary="List the workers")
async def list_workers(caller: CallerDep, only: FilterDep, page: PageDep) -> Listed[WorkerRow]:
    """In order of name (the default), presence, intent, slots, used_slots, last_seen_at or created_at."""
    return Listed.of(await caller.read(view.list_workers, silent_after=silent_after(), only=only, page=page))


@router.get("/fleet", summary="Count the workers")
async def count_workers(caller: CallerDep, only: FilterDep) -> FleetCount:
    """The totals of the list with the same filter."""
    return await caller.read(view.count_workers, silent_after=silent_after(), only=only)


@router.get("/workers/{name}", summary="Show a worker")
async def show_worker(caller: CallerDep, name: Name) -> WorkerRow:
    return await caller.read(view.show_worker, name, silent_after=silent_after())


class IntentRequest(RequestBody):
    mode: Literal["serve", "pause", "drain"]
    reason: Reason = ""
    """Shown to users, and in the worker log."""
    lasts_s: Annotated[float, Field(gt=0, le=workers.LONGEST_PAUSE.total_seconds())] | None = None
    """For pause: its duration in seconds; null: until it is ended."""


@router.put("/workers/{name}/intent", summary="Set a worker's intent")
async def set_intent(caller: CallerDep, name: Name, body: IntentRequest) -> WorkerRow:
    """serve: take jobs. pause: take no new jobs; running jobs continue. drain: the same, in order to remove the worker."""
    lasts = None if body.lasts_s is None else timedelta(seconds=body.lasts_s)
    return await _done(caller, name, workers.set_intent, IntentMode(body.mode), reason=body.reason, lasts=lasts)


class QueuesRequest(RequestBody):
    queues: Annotated[list[QueueName], Field(max_length=MOST_NAMES)]
    """At least one."""


@router.put("/workers/{name}/queues", summary="Set the queues that a worker may serve")
async def set_queues(caller: CallerDep, name: Name, body: QueuesRequest) -> WorkerRow:
    """Replaces the existing ones, from the next offer on."""
    return await _done(caller, name, workers.set_queues, body.queues)


class LabelsRequest(RequestBody):
    labels: Annotated[dict[LabelPart, LabelPart], Field(max_length=MOST_NAMES)]


@router.put("/workers/{name}/labels", summary="Set a worker's labels")
async def set_labels(caller: CallerDep, name: Name, body: LabelsRequest) -> WorkerRow:
    """Replaces the existing ones."""
    return await _done(caller, name, workers.set_labels, body.labels)


class BundlesRequest(RequestBody):
    bundles: Annotated[list[BundleGlob], Field(max_length=MOST_NAMES)] | None
    """Globs, at least one; null: any."""


@router.put("/workers/{name}/bundles", summary="Set the Dag bundles whose jobs a worker may be offered")
async def set_bundles(caller: CallerDep, name: Name, body: BundlesRequest) -> WorkerRow:
    """Replaces the existing ones, from the next offer on."""
    return await _done(caller, name, workers.set_bundles, body.bundles)


class SlotsRequest(RequestBody):
    slots: Annotated[int, Field(ge=0, le=100_000)] | None
    """null: the worker's own number of slots."""


@router.put("/workers/{name}/slots-limit", summary="Limit the slots of a worker")
async def limit_slots(caller: CallerDep, name: Name, body: SlotsRequest) -> WorkerRow:
    return await _done(caller, name, workers.limit_slots, body.slots)


class ReasonRequest(RequestBody):
    reason: Reason = ""


@router.post("/workers/{name}/rotate", summary="Make a worker replace its credential")
async def rotate(caller: CallerDep, name: Name) -> WorkerRow:
    return await _done(caller, name, rotation.request_rotation)


@router.post("/workers/{name}/restart", status_code=202, summary="Restart a worker's daemon")
async def restart(caller: CallerDep, name: Name, body: ReasonRequest) -> WorkerRow:
    """Once, as soon as it receives the request. Its jobs continue."""
    return await _done(caller, name, restarts.request_restart, reason=body.reason)


@router.post("/workers/{name}/update", status_code=202, summary="Update a worker's software now")
async def update(caller: CallerDep, name: Name) -> WorkerRow:
    """To the newest release, whatever the share of its rollout. Its jobs continue."""
    return await _done(caller, name, releases.request_update)


@router.post("/workers/{name}/suspend", summary="Suspend a worker")
async def suspend(caller: CallerDep, name: Name, body: ReasonRequest) -> WorkerRow:
    """All its calls are refused until it is unsuspended. Its jobs continue until they are marked as lost."""
    return await _done(caller, name, suspension.suspend, reason=body.reason)


@router.post("/workers/{name}/unsuspend", summary="End a worker's suspension")
async def unsuspend(caller: CallerDep, name: Name) -> WorkerRow:
    """Also clears its alarm."""
    return await _done(caller, name, suspension.unsuspend)


@router.post("/workers/{name}/revoke", summary="Revoke a worker's credential at once")
async def revoke(caller: CallerDep, name: Name) -> WorkerRow:
    """Its jobs continue until they are marked as lost, unless it is enrolled again before."""
    return await _done(caller, name, workers.revoke_worker)


@router.post("/workers/{name}/acknowledge", summary="Clear a worker's alarm")
async def acknowledge(caller: CallerDep, name: Name) -> WorkerRow:
    """The cause of the alarm stays in the audit."""
    return await _done(caller, name, workers.acknowledge)


@router.post("/workers/{name}/rebind", summary="Allow a worker to change its client certificate")
async def rebind(caller: CallerDep, name: Name) -> WorkerRow:
    """It opens a new session at once, and is bound to the certificate of that session."""
    return await _done(caller, name, certificates.rebind)


@router.delete("/workers/{name}", status_code=204, summary="Remove a worker that has no jobs")
async def remove(caller: CallerDep, name: Name) -> None:
    """Its credential ends."""
    await caller.act(workers.remove_worker, name, team=partial(team_of, name))


async def _done(caller: CallerDep, name: str, verb: Callable[..., None], *args: object, **kwargs: object) -> WorkerRow:
    """Run *verb* on the worker; return the changed worker."""

    def done(session: Session, *, by: str) -> WorkerRow:
        verb(session, name, *args, by=by, **kwargs)
        session.flush()
        return view.show_worker(session, name, silent_after=silent_after())

    return await caller.act(done, team=partial(team_of, name))


def team_of(name: str, session: Session, scope: Scope) -> str | None:
    """Return the team of the worker of this name.

    Raises:
        NotFound: there is no such worker, or the user may not see it.
    """
    return view.show_worker(session, name, silent_after=silent_after(), scope=scope).team
