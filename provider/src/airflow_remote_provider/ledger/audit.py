"""The audit: security-relevant events and the actions of users. The functions that cause an event record it.

A repeat of the same cause increments the counter of its row, so repetition can't flood the table. Requests of jobs at the gateway
are in a table of their own (:class:`..models.Access`), which `suggest` reads by Dag; the list of the audit shows both.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.models import Access, AuditEntry, Worker

ENTRY_NAMESPACE = uuid.UUID("5f0c1b1e-2f6b-4c0e-9d51-0b8a4f6d7c3e")
"""Namespace of the UUIDs of entries; an arbitrary constant."""

LONGEST_DETAIL = 4000


class AuditKind(str, Enum):
    """What happened."""

    JOB_LOST = "job-lost"
    LATE_REPORT = "late-report"
    """A worker reported the end of a job that had been lost; the report was refused."""
    CLONE = "clone"
    """Two installations used the credential of one worker; the later one was refused."""
    TAKEOVER = "takeover"
    """A start of a worker took over the session of a start seen just before: a restart, or the first sign of a clone."""

    ENROLLED = "enrolled"
    ENROLMENT_REFUSED = "enrolment-refused"
    """An attempt to join was refused."""
    LEFT = "left"
    """An ephemeral worker was removed: it has left, or was silent for too long."""
    ROTATED = "rotated"
    """A worker used the credential that replaced its old one."""
    REPLAY = "replay"
    """A credential was used after it had been replaced: someone has a copy of it."""
    CERTIFICATE = "certificate"
    """A worker was bound to a client certificate, or its credential was used with another one."""
    BREAKER = "breaker"
    """A worker's jobs kept failing before their own code began."""
    ACTION = "action"
    """An action of a user."""

    SECRET_READ = "secret-read"
    """A job was granted a secret."""
    DENIED = "denied"
    """A job requested something that is not granted to it."""
    WOULD_DENY = "would-deny"
    """As `denied`, in a queue whose policy only records it."""


@dataclass(frozen=True)
class Event:
    """One event. Events of the same kind and *cause* (a job, or a worker and a day) share one entry."""

    kind: AuditKind
    cause: str
    detail: str
    actor: str = "central"
    worker_id: str | None = None
    worker_name: str | None = None
    job_id: str | None = None


def record(session: Session, event: Event) -> None:
    """Store *event*, in the caller's transaction."""
    entry_id = str(uuid.uuid5(ENTRY_NAMESPACE, f"{event.kind.value} {event.cause}"))
    now, detail = database_now(session), event.detail[:LONGEST_DETAIL]
    if _count_up(session, entry_id, now=now, detail=detail):
        return
    try:
        with session.begin_nested():
            session.add(
                AuditEntry(
                    id=entry_id,
                    kind=event.kind.value,
                    first_at=now,
                    at=now,
                    times=1,
                    worker_id=event.worker_id,
                    worker_name=event.worker_name,
                    job_id=event.job_id,
                    actor=event.actor[:250],
                    detail=detail,
                )
            )
            session.flush()
    except IntegrityError:  # another process has just added it
        _count_up(session, entry_id, now=now, detail=detail)


def record_action(session: Session, by: str, what: str, *, worker: Worker | None = None) -> None:
    """Store an action of a user; each action gets an entry of its own."""
    worker_id, name = (worker.id, worker.name) if worker is not None else (None, None)
    record(session, Event(AuditKind.ACTION, str(uuid.uuid4()), what, actor=by, worker_id=worker_id, worker_name=name))


def _count_up(session: Session, entry_id: str, *, now: datetime, detail: str) -> bool:
    known = session.execute(
        update(AuditEntry)
        .where(AuditEntry.id == entry_id)
        .values(times=AuditEntry.times + 1, at=now, detail=detail)
        .execution_options(synchronize_session=False)
    )
    return known.rowcount == 1  # type: ignore[attr-defined, no-any-return]


def purge(session: Session, *, older_than: timedelta) -> int:
    """Delete entries whose last occurrence is *older_than* this. Return how many rows were deleted."""
    before = database_now(session) - older_than
    gone = 0
    for table in (AuditEntry, Access):
        gone += session.execute(delete(table).where(table.at < before)).rowcount  # type: ignore[attr-defined]
    return gone
