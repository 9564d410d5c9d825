"""Detects changes that users want to see, by subject, with one statement that an idle ledger answers from its indexes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from airflow_remote_protocol.states import JobState
from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from airflow_remote_provider.models import Access, AuditEntry, BundleRow, Edition, Job, ReleaseRow, RuntimeRow, Worker


class Subject(str, Enum):
    WORKERS = "workers"
    """Intents, rights and sessions of workers; not the time of their last contact, which changes all the time."""
    JOBS = "jobs"
    AUDIT = "audit"
    """Includes all actions of users, also on tokens, queues and policies."""
    ACCESSES = "accesses"
    BUNDLES = "bundles"
    """Trees, requests, troubles and wanted versions of Dag bundles; not scans that find no change, which occur all the time."""
    RUNTIMES = "runtimes"
    """Builds, rollouts and troubles of runtimes from central; not what workers have of them, which is part of workers."""
    RELEASES = "releases"
    """The same of releases of the worker's software."""


MARKS: Mapping[Subject, tuple[InstrumentedAttribute[datetime | None] | InstrumentedAttribute[datetime], ...]] = {
    Subject.WORKERS: (Worker.changed_at,),
    Subject.JOBS: (Job.queued_at, Job.accepted_at, Job.ended_at),
    Subject.AUDIT: (AuditEntry.at,),
    Subject.ACCESSES: (Access.at,),
    Subject.BUNDLES: (BundleRow.published_at, BundleRow.wanted_at),
    Subject.RUNTIMES: (RuntimeRow.updated_at,),
    Subject.RELEASES: (ReleaseRow.updated_at,),
}

Pulse = Mapping[Subject, tuple[object, ...]]


def take_pulse(session: Session) -> Pulse:
    """Return marks by subject; a subject's marks differ from the previous call's if it has changed since.

    Of two concurrent changes, the one that began first and was committed last may be missed.
    """
    offered = select(func.max(Job.offered_at)).where(Job.state == JobState.OFFERED.value)
    marks: list[tuple[Subject, ScalarSelect[Any]]] = [
        (subject, select(func.max(column)).scalar_subquery()) for subject, columns in MARKS.items() for column in columns
    ]
    marks.append((Subject.JOBS, offered.scalar_subquery()))
    # The end of a request or of a trouble leaves no time. These tables have a row for each bundle or runtime: counting is cheap.
    counts = (func.count(BundleRow.wanted_at), func.count(func.nullif(BundleRow.trouble, "")), func.max(Edition.id))
    marks += [(Subject.BUNDLES, select(count).scalar_subquery()) for count in counts]
    marks.append((Subject.RUNTIMES, select(func.count(func.nullif(RuntimeRow.trouble, ""))).scalar_subquery()))
    marks.append((Subject.RELEASES, select(func.count(func.nullif(ReleaseRow.trouble, ""))).scalar_subquery()))
    found = session.execute(select(*(mark for _, mark in marks))).one()
    return {subject: tuple(value for (of, _), value in zip(marks, found, strict=True) if of is subject) for subject in Subject}
