"""Ghosts: ephemeral workers that ended without leaving. They are removed once they are silent and hold no jobs (ADR 0047)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow_remote_protocol.states import JobState
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.credentials import remove_ephemeral, revoke
from airflow_remote_provider.models import Job, Worker, WorkerContact

BATCH = 200
"""Ghosts that one call removes; bounds the transaction."""


def remove_ghosts(session: Session, *, silent_for: timedelta) -> int:
    """Remove ephemeral workers without jobs that have been silent for so long. Return how many; call it again if it is a batch.

    Their offers expire, and their running jobs are lost by the rules of all workers (:mod:`.lost_jobs`). Until then the worker
    stays, because it may still return with them. The calling process must have observed the fleet for long enough.
    """
    before = database_now(session) - silent_for
    found = list(session.scalars(_ghosts(Worker.id, before).limit(BATCH)))
    if not found:
        return 0
    locked = session.scalars(
        select(Worker).where(Worker.id.in_(found)).order_by(Worker.id).with_for_update(skip_locked=True)
    ).all()
    # Again, under the locks: one may have returned, or have been offered a job, since.
    still = set(session.scalars(_ghosts(Worker.id, before).where(Worker.id.in_([worker.id for worker in locked]))))
    for worker in locked:
        if worker.id in still:
            if worker.revoked_at is None:
                revoke(session, worker)
            remove_ephemeral(session, worker, why=f"was silent for more than {silent_for}")
    return len(still)


def _ghosts(column: Any, before: datetime) -> Any:
    seen_at = func.coalesce(WorkerContact.last_seen_at, Worker.created_at)
    return (
        select(column)
        .outerjoin(WorkerContact, WorkerContact.worker_id == Worker.id)
        .where(and_(Worker.ephemeral.is_(True), Worker.removed_at.is_(None), seen_at < before, ~_holds_jobs()))
        .order_by(Worker.id)
    )


def _holds_jobs() -> ColumnElement[bool]:
    leased = [state.value for state in JobState if state.is_leased]
    return select(Job.id).where(Job.worker_id == Worker.id, Job.state.in_(leased)).exists()
