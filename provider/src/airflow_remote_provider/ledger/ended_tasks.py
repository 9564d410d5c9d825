"""Stops jobs whose task was ended, cleared or deleted by a user or the scheduler."""

from __future__ import annotations

from typing import Any

from airflow_remote_protocol.messages import JobKind, StopReason
from airflow_remote_protocol.states import JobState
from sqlalchemy import and_, not_, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import deferrals
from airflow_remote_provider.ledger.duty import OPEN
from airflow_remote_provider.ledger.jobs import take_back
from airflow_remote_provider.models import Deferral, Job


def stop_ended(session: Session) -> int:
    """Stop the jobs whose task was ended, cleared or deleted by a user or the scheduler. Return how many.

    This includes triggers whose task no longer waits for them. It excludes jobs that are already stopping, and jobs whose own
    terminal state went through (`concluded_at`).
    """
    ti = compat.task_instance_model()
    needed = and_(ti.state.in_(["queued", "running"]), or_(ti.external_executor_id.is_(None), ti.external_executor_id == Job.id))
    is_trigger = Job.kind == JobKind.TRIGGER.value
    over_task = and_(not_(is_trigger), or_(ti.state.is_(None), not_(needed)))
    over_trigger = and_(is_trigger, or_(Deferral.job_id.is_(None), ti.state.is_(None), not_(deferrals.still_waits(ti))))
    query = (
        select(Job.id, Job.kind, ti.id.label("ti"), ti.state.label("ti_state"), ti.external_executor_id, Deferral.deferred_by)
        .outerjoin(ti, ti.id == Job.ti_id)
        .outerjoin(Deferral, Deferral.job_id == Job.id)
        .where(Job.state.in_(OPEN), Job.ti_id.is_not(None), Job.concluded_at.is_(None), Job.stop_reason.is_(None))
        .where(or_(ti.id.is_(None), over_task, over_trigger))
    )
    over = {row.id: _why_over(row) for row in session.execute(query)}
    if not over:
        return 0
    stopped = 0
    jobs = select(Job).where(Job.id.in_(over)).order_by(Job.id).with_for_update()
    for job in session.scalars(jobs):
        if not JobState(job.state).is_ended and job.concluded_at is None and job.stop_reason is None:
            take_back(session, job, over[job.id])
            stopped += 1
    return stopped


def _why_over(row: Any) -> StopReason:
    """Return why the task of an open job no longer needs it."""
    if row.ti is not None and row.kind == JobKind.TRIGGER.value:
        # A resumed task belongs to another job, and may have failed by itself before this check.
        is_resumed = row.external_executor_id not in (None, row.deferred_by)
        return StopReason.RESUMED if is_resumed else deferrals.stop_reason_of(row.ti_state)
    if row.ti is None or (row.external_executor_id is not None and row.external_executor_id != row.id):
        return StopReason.GONE
    if row.ti_state in (None, "restarting", "scheduled", "removed"):
        return StopReason.CLEARED
    return StopReason.ENDED
