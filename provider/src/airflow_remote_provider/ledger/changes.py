"""What other API processes must notice: when a worker's row changed (:class:`..api.auth.Registry`), and whether jobs wait.

Postgres NOTIFY tells them at once. A process that is not certain to get it (:mod:`..api.wakeups`) looks by one statement.
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
    """Return the database's clock, but later than any change before: else a clock that was set back hides a revocation."""
    now = database_now(session)
    newest = session.scalar(select(func.max(Worker.changed_at)))
    return now if newest is None or newest < now else newest + timedelta(microseconds=1)


@dataclass(frozen=True)
class Look:
    """What the database says at one moment."""

    newest_change: datetime | None
    """Of any worker; None: there is none."""
    jobs_wait: bool
    """To be offered now."""
    jobs_stop: bool
    """They run, and were told to stop."""


def look(session: Session) -> Look:
    """Return what may have changed; one statement, answered from indexes."""
    newest = select(func.max(Worker.changed_at)).scalar_subquery()
    is_due = or_(Job.not_before.is_(None), Job.not_before <= database_clock(session))
    waiting = select(Job.id).where(Job.state == JobState.QUEUED.value, is_due).exists()
    stopping = select(Job.id).where(Job.state == JobState.RUNNING.value, Job.stop_reason.is_not(None)).exists()
    changed_at, jobs_wait, jobs_stop = session.execute(select(newest, waiting, stopping)).one()
    return Look(changed_at, bool(jobs_wait), bool(jobs_stop))
