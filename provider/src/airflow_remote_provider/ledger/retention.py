"""Deletes ended jobs after the days of history that are kept, and removed workers after a day."""

from __future__ import annotations

from datetime import timedelta

from airflow_remote_protocol.states import ENDED
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.models import Job, Usage, Worker, WorkerContact

REMOVED_KEPT = timedelta(days=1)


def known_workers(session: Session) -> set[str]:
    """Return the ids of all workers, including removed ones until they are purged."""
    return set(session.scalars(select(Worker.id)))


def purge(session: Session, *, older_than: timedelta) -> int:
    """Delete ended jobs that are older than the history kept, and workers removed a day ago. Return how many jobs.

    A job that is neither settled nor concluded stays: a scheduler may still need its end. A task that reported its state itself
    while no scheduler lived is not adopted by any, so its job is deleted.
    """
    now = database_now(session)
    before = now - older_than
    removed = select(Worker.id).where(Worker.removed_at < now - REMOVED_KEPT)
    for about in (WorkerContact, Usage):
        session.execute(delete(about).where(about.worker_id.in_(removed)))
    session.execute(delete(Worker).where(Worker.removed_at < now - REMOVED_KEPT))
    gone = session.execute(
        delete(Job).where(
            Job.state.in_([state.value for state in ENDED]),
            Job.ended_at < before,
            or_(Job.settled_at.is_not(None), Job.concluded_at.is_not(None)),
        )
    )
    return int(gone.rowcount)  # type: ignore[attr-defined]
