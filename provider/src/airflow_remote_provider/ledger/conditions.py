"""Reads what needs an operator now, for :mod:`.incident_rules`. Reads only; takes a few statements for any size of the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from airflow_remote_protocol.messages import IntentMode
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now, read_clock_with
from airflow_remote_provider.ledger.incident_rules import Condition, IncidentKind
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.queues import depths
from airflow_remote_provider.ledger.usage import FRESH
from airflow_remote_provider.ledger.views.serving import NO_CAPACITY, capacities
from airflow_remote_provider.models import IncidentRow, ReleaseRow, RuntimeRow, Usage, Worker, WorkerContact

MOST_ROWS = 2000
"""Workers with a condition that are read at one look: more than can be open incidents."""
LONGEST_TEXT = 1000
TIME = "%Y-%m-%d %H:%M:%S UTC"
UNSERVED_AFTER = timedelta(seconds=60)
"""How long a job must wait before its queue counts as unserved."""
CREDENTIAL_SHARE = 0.05
"""What must remain of a credential's life. Workers replace theirs at 70 to 90 % of it."""

OF_WORKERS = frozenset({IncidentKind.WORKER_SILENT, IncidentKind.WORKER_FLAGGED, IncidentKind.CREDENTIAL_ENDING})
"""Kinds that :func:`find_of_workers` covers."""
OF_THE_REST = frozenset(IncidentKind) - OF_WORKERS
"""Kinds that :func:`find_the_rest` covers."""


@dataclass(frozen=True)
class Limits:
    """When something counts as a condition."""

    silent: timedelta
    waiting: timedelta
    """Zero: jobs may wait for any time."""
    disk_bytes: float
    credential_life: timedelta
    presence: timedelta
    """`[remote] silent_after_seconds`."""


def is_any(session: Session, limits: Limits) -> tuple[datetime, bool]:
    """Return the database's clock, and whether a worker has a condition or an incident is open: one statement."""
    silent_since = database_clock(session, -limits.silent)
    of_workers = _interesting(silent_since, database_clock(session, CREDENTIAL_SHARE * limits.credential_life))
    is_open = select(IncidentRow.id).where(IncidentRow.open_key.is_not(None))
    workers = select(Worker.id).outerjoin(WorkerContact, WorkerContact.worker_id == Worker.id).where(of_workers)
    now, found = read_clock_with(session, or_(workers.exists(), is_open.exists()))
    return now, bool(found)


def _silent(since: Any) -> ColumnElement[bool]:
    serves = Worker.intent.in_([IntentMode.SERVE.value, IntentMode.PAUSE.value])  # a drained machine may be switched off
    is_expected = and_(Worker.boot_id.is_not(None), Worker.suspended_at.is_(None), Worker.ephemeral.is_(False), serves)
    return and_(is_expected, WorkerContact.last_seen_at < since)


def _interesting(silent_since: Any, ends_by: Any) -> ColumnElement[bool]:
    """Whether a worker has a condition. The times are values, or expressions of the database."""
    has_one = or_(_silent(silent_since), Worker.alarm != "", Worker.credential_expires_at < ends_by)
    return and_(Worker.removed_at.is_(None), Worker.revoked_at.is_(None), has_one)


def find_of_workers(session: Session, limits: Limits) -> list[Condition]:
    """Return the conditions of workers that need no report: one statement."""
    now = database_now(session)
    silent_since, ends_by = now - limits.silent, now + CREDENTIAL_SHARE * limits.credential_life
    columns = (Worker.name, Worker.team, Worker.alarm, Worker.credential_expires_at, WorkerContact.last_seen_at)
    query = (
        select(*columns, _silent(silent_since).label("is_silent"))
        .select_from(Worker)
        .outerjoin(WorkerContact, WorkerContact.worker_id == Worker.id)
        .where(_interesting(silent_since, ends_by))
        .order_by(Worker.name)
        .limit(MOST_ROWS)
    )
    found: list[Condition] = []
    for row in session.execute(query):
        if row.is_silent:
            text = f"the worker {row.name} is silent since {row.last_seen_at:{TIME}}; check its machine and network"
            found.append(_condition(IncidentKind.WORKER_SILENT, row.name, text, row.team))
        if row.alarm:
            found.append(_condition(IncidentKind.WORKER_FLAGGED, row.name, f"the worker {row.name}: {row.alarm}", row.team))
        if row.credential_expires_at is not None and row.credential_expires_at < ends_by:
            text = (
                f"the credential of the worker {row.name} ends at {row.credential_expires_at:{TIME}} and was not "
                "replaced; let the worker reach central before, or join it again with: "
                f"airflow remote enrol create --replaces {row.name}"
            )
            found.append(_condition(IncidentKind.CREDENTIAL_ENDING, row.name, text, row.team))
    return found


def find_the_rest(session: Session, limits: Limits) -> list[Condition]:
    """Return the conditions of queues, disks and rollouts. Four statements, or five while jobs wait."""
    return [*_of_queues(session, limits), *_of_disks(session, limits), *_of_rollouts(session)]


def _of_queues(session: Session, limits: Limits) -> list[Condition]:
    waiting = [(depth, depth.oldest_queued_at) for depth in depths(session) if depth.queued and depth.oldest_queued_at]
    if not waiting:
        return []
    now, found = database_now(session), []
    serving = capacities(session, silent_after=limits.presence)
    for depth, oldest_at in waiting:
        age = now - oldest_at
        queue = presentable(depth.queue, longest=100)
        if age >= UNSERVED_AFTER and not serving.get((depth.queue, depth.team), NO_CAPACITY).workers:
            text = f"{depth.queued} job(s) of the queue {queue} wait, and no worker takes them; see airflow remote jobs why"
            found.append(_condition(IncidentKind.QUEUE_UNSERVED, depth.queue, text, depth.team))
        if limits.waiting and age >= limits.waiting:
            text = f"the oldest job of the queue {queue} waits since {oldest_at:{TIME}}; see airflow remote jobs why"
            found.append(_condition(IncidentKind.JOB_WAITING, depth.queue, text, depth.team))
    return found


class _Machine(msgspec.Struct):
    disk_free: int


class _Report(msgspec.Struct):
    """The part of the protocol's `Usage` that is read here."""

    machine: _Machine


_REPORTS = msgspec.json.Decoder(_Report)


def _of_disks(session: Session, limits: Limits) -> list[Condition]:
    query = (
        select(Worker.name, Worker.team, Usage.report)
        .join(Usage, Usage.worker_id == Worker.id)
        .where(Usage.at >= database_now(session) - FRESH, Worker.removed_at.is_(None), Worker.revoked_at.is_(None))
    )
    found = []
    for row in session.execute(query):
        free = _REPORTS.decode(row.report).machine.disk_free
        if free < limits.disk_bytes:
            text = f"the disk of the worker {row.name} has {free / 1e6:.0f} MB free; make room on its machine"
            found.append(_condition(IncidentKind.DISK_FULL, row.name, text, row.team))
    return found


def _of_rollouts(session: Session) -> list[Condition]:
    found = []
    for table, kind in ((RuntimeRow, "runtime"), (ReleaseRow, "release")):
        for row in session.execute(select(table.name, table.serial, table.halted).where(table.halted != "")):
            text = f"the rollout of the {kind} {row.name}, serial {row.serial}, is halted: {row.halted}"
            found.append(_condition(IncidentKind.ROLLOUT_HALTED, f"{kind} {row.name}", text))
    return found


def _condition(kind: IncidentKind, subject: str, text: str, team: str | None = None) -> Condition:
    return Condition(kind, subject, presentable(text, longest=LONGEST_TEXT), team)
