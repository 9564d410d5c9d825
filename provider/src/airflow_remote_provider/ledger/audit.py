"""The audit: what happened that somebody may have to answer for, written by the verbs that see it, read by people.

The same cause again counts up its row instead of adding one, so nobody can flood the table by repeating himself. What jobs asked
for is in a table of its own (:class:`..models.Access`), which `suggest` asks by Dag; the list shows both.
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

CAUSES = uuid.UUID("5f0c1b1e-2f6b-4c0e-9d51-0b8a4f6d7c3e")
"""The namespace of entries' ids; any constant would do."""

LONGEST_DETAIL = 4000


class AuditKind(str, Enum):
    """What happened."""

    JOB_LOST = "job-lost"
    LATE_REPORT = "late-report"
    """A worker told the end of a job that had been lost; it was refused."""
    CLONE = "clone"
    """Two installations spoke as one worker; the later was refused."""
    TAKEOVER = "takeover"
    """A start of a worker took its session over from one heard of just before: a restart, or the first sign of a clone."""

    ENROLLED = "enrolled"
    ENROLMENT_REFUSED = "enrolment-refused"
    """Somebody tried to join and may not."""
    ROTATED = "rotated"
    """A worker used the credential that replaced its old one."""
    REPLAY = "replay"
    """A credential was used after it had been replaced: somebody has a copy of it."""
    CERTIFICATE = "certificate"
    """A worker was bound to a client certificate, or its credential was used with another one."""
    BREAKER = "breaker"
    """A worker's jobs kept failing before their own code began."""
    ACTION = "action"
    """What a person did."""

    SECRET_READ = "secret-read"
    """A job was granted a secret."""
    DENIED = "denied"
    """A job asked for what is not granted to it."""
    WOULD_DENY = "would-deny"
    """The same, in a queue whose policy only records it."""


@dataclass(frozen=True)
class Event:
    """One thing that happened. *cause* is what it counts as the same by, beside its kind: a job, a worker and a day."""

    kind: AuditKind
    cause: str
    detail: str
    actor: str = "central"
    worker_id: str | None = None
    worker_name: str | None = None
    job_id: str | None = None


def record(session: Session, event: Event) -> None:
    """Write *event* down, in the caller's transaction."""
    entry_id = str(uuid.uuid5(CAUSES, f"{event.kind.value} {event.cause}"))
    now, detail = database_now(session), event.detail[:LONGEST_DETAIL]
    if _count_up(session, entry_id, now, detail):
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
    except IntegrityError:  # somebody else was quicker
        _count_up(session, entry_id, now, detail)


def acted(session: Session, by: str, what: str, worker: Worker | None = None) -> None:
    """Write down what a person did; each time is an entry of its own."""
    worker_id, name = (worker.id, worker.name) if worker is not None else (None, None)
    record(session, Event(AuditKind.ACTION, str(uuid.uuid4()), what, actor=by, worker_id=worker_id, worker_name=name))


def _count_up(session: Session, entry_id: str, now: datetime, detail: str) -> bool:
    known = session.execute(
        update(AuditEntry)
        .where(AuditEntry.id == entry_id)
        .values(times=AuditEntry.times + 1, at=now, detail=detail)
        .execution_options(synchronize_session=False)
    )
    return known.rowcount == 1  # type: ignore[attr-defined, no-any-return]


def purge(session: Session, *, older_than: timedelta) -> int:
    """Forget what did not happen again for so long. Return how many rows."""
    before = database_now(session) - older_than
    gone = 0
    for table in (AuditEntry, Access):
        gone += session.execute(delete(table).where(table.at < before)).rowcount  # type: ignore[attr-defined]
    return gone
