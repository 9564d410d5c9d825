"""Workers as targets of jobs: the queues of each, whether it takes jobs now, and its free slots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import IntentMode, JobKind
from airflow_remote_protocol.presence import Presence
from airflow_remote_protocol.states import JobState
from sqlalchemy import ScalarSelect, Text, and_, case, cast, func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.assignments import Host, host_of
from airflow_remote_provider.ledger.held_runtimes import Held
from airflow_remote_provider.ledger.views.workers import DerivedColumns, contains_item
from airflow_remote_provider.models import Job, Worker


@dataclass(frozen=True)
class ServingWorker:
    """One worker that is not revoked, as the dispatcher sees it."""

    id: str
    name: str
    queues: tuple[str, ...]
    team: str | None
    labels: dict[str, str]
    bundles: list[str] | None
    kinds: frozenset[str]
    """Kinds of jobs that it can run."""
    presence: str
    last_seen_at: datetime | None
    intent: str
    intent_by: str
    intent_reason: str
    is_suspended: bool
    slots: int
    """Slots that it can fill."""
    used_slots: int
    triggers: int = 0
    """Most triggers that it hosts."""
    used_triggers: int = 0
    unfit: str = ""
    """Why its runtime can't host tasks."""
    host: Host | None = None
    """The worker as the choice of its runtimes depends on it; None: its site has the runtime."""
    held: Sequence[Held] = ()
    """The runtimes from central that it reports."""

    @property
    def takes_jobs(self) -> bool:
        serves = self.intent == IntentMode.SERVE.value
        return self.presence == Presence.ONLINE and serves and not self.is_suspended and not self.unfit

    @property
    def free_slots(self) -> int:
        return max(0, self.slots - self.used_slots)


@dataclass(frozen=True)
class Capacity:
    """The totals of the workers that take jobs of a queue now."""

    workers: int
    slots: int
    free_slots: int


NO_CAPACITY = Capacity(0, 0, 0)


def capacities(session: Session, *, silent_after: timedelta) -> dict[tuple[str, str | None], Capacity]:
    """Return the capacity of every queue that a worker serves, by queue and team. Two statements.

    The database groups workers by their list of queues. A fleet of thousands has a few dozen such lists, and reading each worker
    would be most of the work.
    """
    shown = DerivedColumns(database_now(session) - silent_after)
    serves = and_(Worker.intent == IntentMode.SERVE.value, Worker.suspended_at.is_(None), Worker.unfit.is_(None))
    takes = and_(shown.presence == Presence.ONLINE.value, serves)
    bound = case((Worker.slots_limit < Worker.slots, Worker.slots_limit), else_=Worker.slots)
    leased = [state.value for state in JobState if state.is_leased]
    held = (
        select(Job.worker_id, func.sum(Job.slots).label("slots")).where(Job.state.in_(leased)).group_by(Job.worker_id).subquery()
    )
    left = bound - func.coalesce(held.c.slots, 0)
    queues = cast(Worker.queues, Text).label("queues")
    query = (
        shown.joined(
            select(
                queues,
                Worker.team,
                func.sum(case((takes, 1), else_=0)).label("workers"),
                func.sum(case((takes, bound), else_=0)).label("slots"),
                func.sum(case((and_(takes, left > 0), left), else_=0)).label("free_slots"),
            ).select_from(Worker)
        )
        .outerjoin(held, held.c.worker_id == Worker.id)
        .where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
        .group_by(queues, Worker.team)
    )
    found: dict[tuple[str, str | None], Capacity] = {}
    for row in session.execute(query):
        for name in json.loads(row.queues):
            other = found.get((name, row.team), NO_CAPACITY)
            found[name, row.team] = Capacity(
                workers=other.workers + int(row.workers),
                slots=other.slots + int(row.slots),
                free_slots=other.free_slots + int(row.free_slots),
            )
    return found


def list_serving(session: Session, *, silent_after: timedelta, queue: str | None = None) -> list[ServingWorker]:
    """Return all workers that are not revoked, or only those that serve *queue*. Two statements."""
    shown = DerivedColumns(database_now(session) - silent_after)
    query = shown.joined(
        select(
            Worker.id,
            Worker.name,
            Worker.queues,
            Worker.team,
            Worker.labels,
            Worker.bundles,
            Worker.capabilities,
            shown.presence.label("presence"),
            shown.last_seen.label("last_seen"),
            Worker.intent,
            Worker.intent_by,
            Worker.intent_reason,
            Worker.suspended_at,
            Worker.slots,
            Worker.slots_limit,
            shown.used.label("used_slots"),
            Worker.triggers,
            _used_triggers().label("used_triggers"),
            Worker.unfit,
            Worker.facts,
            Worker.runtimes,
        ).select_from(Worker)
    ).where(Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    if queue is not None:
        query = query.where(contains_item(Worker.queues, json.dumps(queue)))
    return [
        ServingWorker(
            id=row.id,
            name=row.name,
            queues=tuple(row.queues),
            team=row.team,
            labels=row.labels or {},
            bundles=row.bundles,
            kinds=frozenset({JobKind.TASK.value, *(row.capabilities or ())}),
            presence=row.presence,
            last_seen_at=row.last_seen,
            intent=row.intent,
            intent_by=row.intent_by,
            intent_reason=row.intent_reason,
            is_suspended=row.suspended_at is not None,
            slots=row.slots if row.slots_limit is None else min(row.slots, row.slots_limit),
            used_slots=row.used_slots,
            triggers=row.triggers,
            used_triggers=row.used_triggers,
            unfit=row.unfit or "",
            host=host_of(row),
            held=row.runtimes or (),
        )
        for row in session.execute(query.order_by(Worker.name))
    ]


def _used_triggers() -> ScalarSelect[int]:
    """Return the subquery that counts the triggers leased to a worker."""
    leased = [state.value for state in JobState if state.is_leased]
    held = select(func.count()).select_from(Job).where(Job.worker_id == Worker.id, Job.state.in_(leased))
    return held.where(Job.kind == JobKind.TRIGGER.value).correlate(Worker).scalar_subquery()
