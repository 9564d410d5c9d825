"""When something people look at has last changed, by subject: one statement that an idle ledger answers from its indexes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum

from airflow_remote_protocol.states import JobState
from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from airflow_remote_provider.models import Access, AuditEntry, Job, Worker


class Subject(str, Enum):
    WORKERS = "workers"
    """What is wanted of workers, and their sessions; not when each was last heard of, which changes all the time."""
    JOBS = "jobs"
    AUDIT = "audit"
    """Whatever people do: to tokens, queues and policies, too."""
    ACCESSES = "accesses"


MARKS: Mapping[Subject, tuple[InstrumentedAttribute[datetime | None] | InstrumentedAttribute[datetime], ...]] = {
    Subject.WORKERS: (Worker.changed_at,),
    Subject.JOBS: (Job.queued_at, Job.accepted_at, Job.ended_at),
    Subject.AUDIT: (AuditEntry.at,),
    Subject.ACCESSES: (Access.at,),
}

Pulse = Mapping[Subject, tuple[object, ...]]


def take_pulse(session: Session) -> Pulse:
    """Return what differs from the last time wherever something has changed since.

    Of two changes at once, the one that began first and was committed last may go unseen.
    """
    offered = select(func.max(Job.offered_at)).where(Job.state == JobState.OFFERED.value)
    marks: list[tuple[Subject, ScalarSelect[datetime | None]]] = [
        (subject, select(func.max(column)).scalar_subquery()) for subject, columns in MARKS.items() for column in columns
    ]
    marks.append((Subject.JOBS, offered.scalar_subquery()))
    found = session.execute(select(*(mark for _, mark in marks))).one()
    return {subject: tuple(value for (of, _), value in zip(marks, found, strict=True) if of is subject) for subject in Subject}
