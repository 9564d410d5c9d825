"""The fleet as users see it. Presence, intent and activity of a worker are three separate facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_remote_protocol.presence import Presence
from airflow_remote_protocol.states import JobState
from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Integer, Text, and_, case, cast, func, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import usage
from airflow_remote_provider.ledger.errors import NotFound
from airflow_remote_provider.ledger.views.page import FIRST, Order, Page, Slice
from airflow_remote_provider.ledger.views.releases import HeldReleaseRow, held_release
from airflow_remote_provider.ledger.views.running import NOTHING, Running, RunningJob, running_of
from airflow_remote_provider.ledger.views.runtimes import HeldRuntimeRow, held_by
from airflow_remote_provider.ledger.views.scope import EVERYTHING, Scope
from airflow_remote_provider.models import Job, Worker, WorkerContact

CLOCK_OFF = timedelta(minutes=1)
"""From this offset on, a worker's clock is shown as wrong: log lines of both sides would be hard to read together."""


@dataclass(frozen=True)
class MachineUsage:
    """The resources that a worker's machine has, and uses."""

    cpus: float
    """Busy processors, on average over the last seconds."""
    cpu_count: float
    memory: int
    """In bytes, as the following fields."""
    memory_total: int
    disk_free: int
    """On the disk of the worker's state directory."""


@dataclass(frozen=True)
class WorkerRow:
    """One worker as the API and the CLI show it. *presence*, *intent* and activity (*used_slots*) are separate facts."""

    id: str
    name: str
    presence: str
    """`online`; `silent`: no recent contact; `offline`: its daemon has shut down cleanly; `never_connected`: it has joined, but
    its daemon has never run; `gone`: its credential is revoked."""
    intent: str
    intent_reason: str
    intent_by: str
    intent_at: datetime | None
    intent_until: datetime | None
    """When its pause ends by itself; None: never."""
    intent_heard: bool
    """Whether the worker has received this intent; if not, it has made no contact since."""
    restart_asked_at: datetime | None
    """When a restart was requested that has not happened yet; None: no restart is pending."""
    restart_asked_by: str | None
    queues: list[str]
    team: str | None
    slots: int
    slots_limit: int | None
    used_slots: int
    running: list[RunningJob]
    """The oldest few of its running jobs within the user's scope."""
    running_count: int
    """How many running jobs it has within the user's scope."""
    last_seen_at: datetime | None
    created_at: datetime
    revoked_at: datetime | None
    suspended_at: datetime | None
    credential_expires_at: datetime | None
    labels: dict[str, str]
    bundles: list[str] | None
    """Globs of the Dag bundles whose jobs it can run; None: any."""
    certificate: str | None
    """Owner of the client certificate that it is bound to."""
    alarm: str
    unfit: str
    """Why its runtime can't host tasks, so that it gets no jobs; empty: it gets jobs."""
    runtime: dict[str, str]
    """Versions in its runtime, as it reports them: `airflow`, `task_sdk`, `python`; empty: it reports none."""
    runtimes: list[HeldRuntimeRow]
    """The runtimes from central that it reports; empty: it reports none, or its site has the runtime."""
    release: HeldReleaseRow | None
    """The release of its own software that it is to run, as it reports it; None: it takes none from central."""
    clock_off_s: float | None
    """How far its clock is ahead (below 0: behind); None: less than :data:`CLOCK_OFF`, or unknown."""
    facts: dict[str, str]
    usage: MachineUsage | None = None
    """The present usage of its machine, reported while it has jobs. Only set by :func:`show_worker`."""


@dataclass(frozen=True)
class WorkerFilter:
    """Selects workers that match all fields; an empty field selects all."""

    text: str = ""
    """Part of its name or host name, in any case."""
    presence: Sequence[str] = ()
    intent: Sequence[str] = ()
    queue: str = ""
    label: tuple[str, str] | None = None
    version: str = ""
    flagged: bool = False
    """Selects workers with an alarm, suspended workers, and those whose runtime can't host tasks."""


def list_workers(
    session: Session,
    *,
    silent_after: timedelta,
    only: WorkerFilter = WorkerFilter(),
    page: Page = FIRST,
    scope: Scope = EVERYTHING,
) -> Slice[WorkerRow]:
    """Return a page of workers. Three statements for any size of the fleet, and one more if a worker has runtimes from central.

    Raises:
        BadPage: the list has no such order, or the cursor does not belong to it.
    """
    now = database_now(session)
    shown = DerivedColumns(now - silent_after)
    query = shown.query().where(Worker.removed_at.is_(None), scope.sees_team(Worker.team), *_wanted(only, shown))
    found = shown.order().read(session, query, page)
    running = running_of(session, [row.Worker.id for row in found.rows], scope=scope)
    held = held_by(session, {row.Worker.id: row.Worker.runtimes for row in found.rows})
    rows = [_row(row, running=running.get(row.Worker.id, NOTHING), held=held.get(row.Worker.id, [])) for row in found.rows]
    return Slice(rows, found.next)


def show_worker(session: Session, name: str, *, silent_after: timedelta, scope: Scope = EVERYTHING) -> WorkerRow:
    """Return the worker of this name.

    Raises:
        NotFound: there is no such worker within *scope*.
    """
    shown = DerivedColumns(database_now(session) - silent_after)
    query = shown.query().where(Worker.name == name, Worker.removed_at.is_(None), scope.sees_team(Worker.team))
    row = session.execute(query).first()
    if row is None:
        raise NotFound(f"there is no worker named {name!r}; `airflow remote workers list` shows all workers")
    worker_id = row.Worker.id
    reported = usage.fresh(session, [worker_id]).get(worker_id)
    shown_usage = MachineUsage(**asdict(reported.machine)) if reported else None
    running = running_of(session, [worker_id], scope=scope).get(worker_id, NOTHING)
    held = held_by(session, {worker_id: row.Worker.runtimes}).get(worker_id, [])
    return replace(_row(row, running=running, held=held), usage=shown_usage)


@dataclass(frozen=True)
class FleetCount:
    """Numbers of workers, in all, by presence, flagged and unfit; and their slots."""

    workers: int
    online: int
    silent: int
    offline: int
    never_connected: int
    gone: int
    flagged: int
    unfit: int
    """Workers whose runtime can't host tasks."""
    slots: int
    """Slots that the online workers can fill."""
    used_slots: int


def count_workers(
    session: Session, *, silent_after: timedelta, only: WorkerFilter = WorkerFilter(), scope: Scope = EVERYTHING
) -> FleetCount:
    """Return the totals of the list with this filter. Two statements."""
    shown = DerivedColumns(database_now(session) - silent_after)

    def count_where(condition: ColumnElement[bool], count: Any = 1) -> Any:
        return func.coalesce(func.sum(case((condition, count), else_=0)), 0)

    online = shown.presence == Presence.ONLINE.value
    bound = case((Worker.slots_limit < Worker.slots, Worker.slots_limit), else_=Worker.slots)
    query = select(
        func.count().label("workers"),
        *(count_where(shown.presence == presence.value).label(presence.value) for presence in Presence),
        count_where(_flagged()).label("flagged"),
        count_where(Worker.unfit.is_not(None)).label("unfit"),
        count_where(online, bound).label("slots"),
        func.coalesce(func.sum(shown.used), 0).label("used_slots"),
    ).select_from(Worker)
    query = shown.joined(query).where(Worker.removed_at.is_(None), scope.sees_team(Worker.team), *_wanted(only, shown))
    return FleetCount(**{name: int(number) for name, number in session.execute(query).mappings().one().items()})


class DerivedColumns:
    """Columns of the list of workers that are not in a worker's row: its last contact, its presence and its used slots."""

    def __init__(self, silent_since: datetime) -> None:
        leased = [state.value for state in JobState if state.is_leased]
        # One index lookup per row. As a join, Postgres may scan all jobs once per row that passes the filter.
        slots = select(func.sum(Job.slots)).where(Job.worker_id == Worker.id, Job.state.in_(leased)).correlate(Worker)
        self.last_seen = WorkerContact.last_seen_at
        self.used = cast(func.coalesce(slots.scalar_subquery(), 0), Integer)  # MySQL sums to decimals
        self.presence: ColumnElement[str] = case(
            (Worker.revoked_at.is_not(None), Presence.GONE.value),
            (Worker.session_at.is_(None), Presence.NEVER_CONNECTED.value),
            (Worker.boot_id.is_(None), Presence.OFFLINE.value),
            (self.last_seen >= silent_since, Presence.ONLINE.value),
            else_=Presence.SILENT.value,
        )

    def query(self) -> Any:
        """Return the query of workers with the columns `last_seen`, `presence` and `used`."""
        columns = self.last_seen.label("last_seen"), self.presence.label("presence"), self.used.label("used")
        return self.joined(select(Worker, *columns).select_from(Worker))

    def joined(self, query: Any) -> Any:
        return query.outerjoin(WorkerContact, WorkerContact.worker_id == Worker.id)

    def order(self) -> Order:
        seen = func.coalesce(self.last_seen, Worker.created_at, type_=Worker.created_at.type)
        return Order(
            {
                "name": Worker.__table__.c.name,
                "presence": self.presence,
                "intent": Worker.__table__.c.intent,
                "slots": Worker.__table__.c.slots,
                "used_slots": self.used,
                "last_seen_at": seen,
                "created_at": Worker.__table__.c.created_at,
            },
            unique=Worker.__table__.c.id,
            nature="name",
        )


def _wanted(only: WorkerFilter, shown: DerivedColumns) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if only.text:
        text = only.text.lower()
        hostname = func.lower(Worker.facts["hostname"].as_string())
        conditions.append(or_(func.lower(Worker.name).contains(text, autoescape=True), hostname.contains(text, autoescape=True)))
    if only.presence:
        conditions.append(shown.presence.in_(only.presence))
    if only.intent:
        conditions.append(Worker.intent.in_(only.intent))
    if only.queue:
        conditions.append(contains_item(Worker.queues, json.dumps(only.queue)))
    if only.label is not None:
        key, value = (json.dumps(part) for part in only.label)
        conditions.append(contains_item(Worker.labels, f"{key}: {value}"))
    if only.version:
        conditions.append(Worker.facts["version"].as_string() == only.version)
    if only.flagged:
        conditions.append(_flagged())
    return conditions


def _flagged() -> ColumnElement[bool]:
    return or_(Worker.alarm != "", Worker.suspended_at.is_not(None), Worker.unfit.is_not(None))


def contains_item(column: Any, item: str) -> ColumnElement[bool]:
    """Return the condition that the JSON text of a flat list or object contains *item*, itself JSON text.

    It searches the text because each database searches JSON differently, and all of ours write `, ` between items. The characters
    before *item* make sure that it is a whole item: inside a string, a quote follows a backslash.
    """
    text = cast(column, Text)
    begins = [text.contains(before + item, autoescape=True) for before in ("[", "{", ", ")]
    return and_(column.is_not(None), or_(*begins))


def _row(row: Any, *, running: Running, held: list[HeldRuntimeRow]) -> WorkerRow:
    """Return what users see of a row of :meth:`DerivedColumns.query`."""
    worker: Worker = row.Worker
    return WorkerRow(
        id=worker.id,
        name=worker.name,
        presence=row.presence,
        intent=worker.intent,
        intent_reason=worker.intent_reason,
        intent_by=worker.intent_by,
        intent_at=worker.intent_at,
        intent_until=worker.intent_until,
        intent_heard=worker.received_revision is not None and worker.received_revision >= worker.intent_revision,
        restart_asked_at=worker.restart_asked_at,
        restart_asked_by=worker.restart_asked_by,
        queues=list(worker.queues),
        team=worker.team,
        slots=worker.slots,
        slots_limit=worker.slots_limit,
        used_slots=row.used,
        running=running.first,
        running_count=running.count,
        last_seen_at=row.last_seen,
        created_at=worker.created_at,
        revoked_at=worker.revoked_at,
        suspended_at=worker.suspended_at,
        credential_expires_at=worker.credential_expires_at,
        labels=dict(worker.labels or {}),
        bundles=worker.bundles,
        certificate=worker.certificate,
        alarm=worker.alarm,
        unfit=worker.unfit or "",
        runtime={name: value for name, value in (worker.runtime or {}).items() if name != "trouble"},
        runtimes=held,
        release=held_release(worker.release),
        clock_off_s=_shown_offset(worker.clock_offset_s),
        facts=dict(worker.facts),
    )


def _shown_offset(offset_s: float | None) -> float | None:
    return round(offset_s, 1) if offset_s is not None and abs(offset_s) > CLOCK_OFF.total_seconds() else None
