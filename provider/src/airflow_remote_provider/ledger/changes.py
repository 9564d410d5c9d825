"""Changes that other API processes must notice: changed rows of workers (:class:`..api.registry.Registry`), and waiting jobs.

Postgres NOTIFY reports them at once. A process that may not receive it (:mod:`..api.dispatch.wakeups`) polls with one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_remote_protocol.states import JobState
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.models import Job, Worker


def stamp(session: Session) -> datetime:
    """Return the database's clock, but later than every earlier change: a clock that was set back must not hide a revocation."""
    now = database_now(session)
    newest = session.scalar(select(func.max(Worker.changed_at)))
    return now if newest is None or newest < now else newest + timedelta(microseconds=1)


@dataclass(frozen=True)
class Snapshot:
    """The state of the database at one moment."""

    newest_change: datetime | None
    """Of any worker; None if there are no workers."""
    jobs_wait: bool
    """Whether jobs can be offered now."""
    jobs_stop: bool
    """Whether running jobs were requested to stop."""


def read_snapshot(session: Session) -> Snapshot:
    """Return what may have changed. One statement, answered from indexes."""
    newest = select(func.max(Worker.changed_at)).scalar_subquery()
    is_due = or_(Job.not_before.is_(None), Job.not_before <= database_clock(session))
    waiting = select(Job.id).where(Job.state == JobState.QUEUED.value, is_due).exists()
    stopping = select(Job.id).where(Job.state == JobState.RUNNING.value, Job.stop_reason.is_not(None)).exists()
    columns = newest.label("newest_change"), waiting.label("jobs_wait"), stopping.label("jobs_stop")
    row = session.execute(select(*columns)).one()
    return Snapshot(newest_change=row.newest_change, jobs_wait=bool(row.jobs_wait), jobs_stop=bool(row.jobs_stop))
