"""Declares jobs lost whose worker was silent for too long, or came back without them."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobEvent, JobState, advance
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import deferrals
from airflow_remote_provider.ledger.audit import AuditKind, Event, record
from airflow_remote_provider.models import Job, WorkerContact


def lose_silent(session: Session) -> int:
    """Declare jobs lost whose worker has been silent for longer than the job allows. Return how many.

    The observation window of the calling process (`api/duties/observation.py`) must be long enough for every worker to reconnect.
    """
    now = database_now(session)
    query = (
        select(Job.id, Job.accepted_at, Job.lost_after_s, WorkerContact.last_seen_at)
        .outerjoin(WorkerContact, WorkerContact.worker_id == Job.worker_id)
        .where(Job.state == JobState.RUNNING.value)
    )
    lost = [
        row.id
        for row in session.execute(query)
        if _silence(now, row.last_seen_at, row.accepted_at) > timedelta(seconds=row.lost_after_s)
    ]
    if not lost:
        return 0
    locked = select(Job).where(Job.id.in_(lost), Job.state == JobState.RUNNING.value).order_by(Job.id).with_for_update()
    for job in session.scalars(locked):
        _lose(session, job, why=f"no contact from worker {job.worker_name} for {timedelta(seconds=job.lost_after_s)}", now=now)
    return len(lost)


def lose_missing(session: Session, *, grace: timedelta) -> int:
    """Declare running jobs lost that their worker has not listed since it opened its session. Return how many."""
    now = database_now(session)
    query = select(Job).where(Job.state == JobState.RUNNING.value, Job.missing_since < now - grace)
    missing = session.scalars(query.order_by(Job.id).with_for_update()).all()
    for job in missing:
        _lose(session, job, why=f"worker {job.worker_name} came back without this job", now=now)
    return len(missing)


def _lose(session: Session, job: Job, *, why: str, now: datetime) -> None:
    if job.kind == JobKind.TRIGGER.value:
        deferrals.hand_back(session, job, why)  # another worker continues it; the task keeps waiting
        return
    job.state = advance(JobState(job.state), JobEvent.LOSE).value
    job.ended_at = now
    job.reason = why
    what = f"{job.dag_id}.{job.task_id} (try {job.try_number}, run {job.run_id})" if job.task_id else job.kind
    record(
        session,
        Event(AuditKind.JOB_LOST, job.id, f"{what}: {why}", worker_id=job.worker_id, worker_name=job.worker_name, job_id=job.id),
    )


def rebase_times(session: Session, *, offer_deadline: timedelta) -> None:
    """Correct stored times after the clock was set, or after a time without observation.

    They must neither hold for a day nor expire at once. Contacts in the future become now, the deadlines of offers start again,
    and queued jobs can be offered at once.
    """
    now = database_now(session)
    session.execute(update(WorkerContact).where(WorkerContact.last_seen_at > now).values(last_seen_at=now))
    session.execute(update(Job).where(Job.state == JobState.OFFERED.value).values(deadline_at=now + offer_deadline))
    session.execute(update(Job).where(Job.state == JobState.QUEUED.value, Job.not_before.is_not(None)).values(not_before=None))
    session.execute(update(Job).where(Job.state == JobState.RUNNING.value, Job.missing_since > now).values(missing_since=now))


def _silence(now: datetime, *contacts: datetime | None) -> timedelta:
    """Return the time since the last contact. Accepting a job is a contact too, perhaps not stored yet as its worker's.

    Times in the future were stored before the clock was set back, and are ignored.
    """
    return now - max((at for at in contacts if at is not None and at <= now), default=now)
