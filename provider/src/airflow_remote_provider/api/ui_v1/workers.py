"""Workers: the fleet, and what people want of each of them."""

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
from airflow_remote_provider.api.ui_v1.routes import Routes
from airflow_remote_provider.api.ui_v1.words import MOST_NAMES, BundleGlob, LabelPart, QueueName, Reason, Wish
from airflow_remote_provider.ledger import certificates, restarts, rotation, suspension, workers
from airflow_remote_provider.ledger.views import workers as view
from airflow_remote_provider.ledger.views.scope import Scope
from airflow_remote_provider.ledger.views.workers import FleetCount, WorkerFilter, WorkerRow
from airflow_remote_provider.settings import silent_after

router = Routes("workers")

Name = Annotated[str, Path(max_length=100, description="the worker's name")]


def _filter(
    text: Annotated[str, Query(max_length=200, description="part of the name or host name, in any case")] = "",
    presence: Annotated[Sequence[Presence], Query()] = (),
    intent: Annotated[Sequence[IntentMode], Query()] = (),
    queue: Annotated[str, Query(max_length=256, description="only those that may serve this queue")] = "",
    label: Annotated[str, Query(max_length=201, pattern="^([^=]+=.+)?$", description="key=value")] = "",
    version: Annotated[str, Query(max_length=50)] = "",
    flagged: Annotated[bool, Query(description="only those with an alarm, suspended, or unable to host tasks")] = False,
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
    """In order of their names, or by presence, intent, slots, used_slots, last_seen_at, created_at."""
    return Listed.of(await caller.read(view.list_workers, silent_after=silent_after(), only=only, page=page))


@router.get("/fleet", summary="Count the workers")
async def count_workers(caller: CallerDep, only: FilterDep) -> FleetCount:
    """The sums of the list with the same filter."""
    return await caller.read(view.count_workers, silent_after=silent_after(), only=only)


@router.get("/workers/{name}", summary="Show a worker")
async def show_worker(caller: CallerDep, name: Name) -> WorkerRow:
    return await caller.read(view.show_worker, name, silent_after=silent_after())


class IntentWish(Wish):
    mode: Literal["serve", "pause", "drain"]
    reason: Reason = ""
    """Shown to people, and in the worker's log."""
    lasts_s: Annotated[float, Field(gt=0, le=workers.LONGEST_PAUSE.total_seconds())] | None = None
    """Of a pause: after so many seconds it ends by itself; null: never."""


@router.put("/workers/{name}/intent", summary="Say what a worker shall do")
async def set_intent(caller: CallerDep, name: Name, wish: IntentWish) -> WorkerRow:
    """serve: take jobs. pause: take none, let running ones go on. drain: the same, in order to remove it."""
    lasts = None if wish.lasts_s is None else timedelta(seconds=wish.lasts_s)
    return await _done(caller, name, workers.set_intent, IntentMode(wish.mode), reason=wish.reason, lasts=lasts)


class QueuesWish(Wish):
    queues: Annotated[list[QueueName], Field(max_length=MOST_NAMES)]
    """One at least."""


@router.put("/workers/{name}/queues", summary="Set the queues that a worker may serve")
async def set_queues(caller: CallerDep, name: Name, wish: QueuesWish) -> WorkerRow:
    """In place of those it has; from its next offer on."""
    return await _done(caller, name, workers.set_queues, wish.queues)


class LabelsWish(Wish):
    labels: Annotated[dict[LabelPart, LabelPart], Field(max_length=MOST_NAMES)]


@router.put("/workers/{name}/labels", summary="Set a worker's labels")
async def set_labels(caller: CallerDep, name: Name, wish: LabelsWish) -> WorkerRow:
    """In place of those it has."""
    return await _done(caller, name, workers.set_labels, wish.labels)


class BundlesWish(Wish):
    bundles: Annotated[list[BundleGlob], Field(max_length=MOST_NAMES)] | None
    """Globs, one at least; null: any."""


@router.put("/workers/{name}/bundles", summary="Set the Dag bundles of whose jobs a worker may be offered")
async def set_bundles(caller: CallerDep, name: Name, wish: BundlesWish) -> WorkerRow:
    """In place of those it has; from its next offer on."""
    return await _done(caller, name, workers.set_bundles, wish.bundles)


class SlotsWish(Wish):
    slots: Annotated[int, Field(ge=0, le=100_000)] | None
    """null: what the worker offers itself."""


@router.put("/workers/{name}/slots-limit", summary="Bound the slots that a worker may fill")
async def limit_slots(caller: CallerDep, name: Name, wish: SlotsWish) -> WorkerRow:
    return await _done(caller, name, workers.limit_slots, wish.slots)


class ReasonWish(Wish):
    reason: Reason = ""


@router.post("/workers/{name}/rotate", summary="Have a worker replace its credential")
async def rotate(caller: CallerDep, name: Name) -> WorkerRow:
    return await _done(caller, name, rotation.ask_to_rotate)


@router.post("/workers/{name}/restart", status_code=202, summary="Have a worker's daemon start anew")
async def restart(caller: CallerDep, name: Name, wish: ReasonWish) -> WorkerRow:
    """Once, as soon as it hears of it; its jobs run on."""
    return await _done(caller, name, restarts.ask_to_restart, reason=wish.reason)


@router.post("/workers/{name}/suspend", summary="Refuse a worker until that is lifted")
async def suspend(caller: CallerDep, name: Name, wish: ReasonWish) -> WorkerRow:
    """Its jobs run on until they are lost."""
    return await _done(caller, name, suspension.suspend, reason=wish.reason)


@router.post("/workers/{name}/unsuspend", summary="Let a suspended worker speak again")
async def unsuspend(caller: CallerDep, name: Name) -> WorkerRow:
    """Clears its alarm, too."""
    return await _done(caller, name, suspension.unsuspend)


@router.post("/workers/{name}/revoke", summary="End a worker's right to speak at once")
async def revoke(caller: CallerDep, name: Name) -> WorkerRow:
    """Its jobs run on until they are lost, or it is let in again."""
    return await _done(caller, name, workers.revoke_worker)


@router.post("/workers/{name}/acknowledge", summary="Clear a worker's alarm")
async def acknowledge(caller: CallerDep, name: Name) -> WorkerRow:
    """What raised it stays in the audit."""
    return await _done(caller, name, workers.acknowledge)


@router.post("/workers/{name}/rebind", summary="Let a worker be bound to another client certificate")
async def rebind(caller: CallerDep, name: Name) -> WorkerRow:
    """To the one that it opens its next session with, at once."""
    return await _done(caller, name, certificates.rebind)


@router.delete("/workers/{name}", status_code=204, summary="Forget a worker that holds no jobs")
async def remove(caller: CallerDep, name: Name) -> None:
    """Its credential ends."""
    await caller.act(workers.remove_worker, name, team=partial(team_of, name))


async def _done(caller: CallerDep, name: str, verb: Callable[..., None], *args: object, **kwargs: object) -> WorkerRow:
    """Do *verb* to the worker; return what has become of it."""

    def done(session: Session, *, by: str) -> WorkerRow:
        verb(session, name, *args, by=by, **kwargs)
        session.flush()
        return view.show_worker(session, name, silent_after=silent_after())

    return await caller.act(done, team=partial(team_of, name))


def team_of(name: str, session: Session, scope: Scope) -> str | None:
    """Return the team of the worker of this name.

    Raises:
        Unknown: there is none, or none that this person may see.
    """
    return view.show_worker(session, name, silent_after=silent_after(), scope=scope).team
