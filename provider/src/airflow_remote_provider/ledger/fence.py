"""The fence of a job: who may act for it, and as of which lease. Every verb of a worker about a job begins here."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_remote_protocol.messages import (
    JobKind,
)
from airflow_remote_protocol.states import JobState
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.errors import LeaseLapsed, NotYours, Superseded
from airflow_remote_provider.models import Job
from airflow_remote_provider.settings import settings

LOOKED_UP = 100
"""Of one list: jobs that are looked up although they are not leased to the worker, and stops that are answered. The rest of them
follows with the next list, in which the first ones are stopping."""


@dataclass(frozen=True)
class WorkerLease:
    """Under which right a worker speaks."""

    worker_id: str
    job_id: str
    epoch: int


@dataclass(frozen=True)
class Subject:
    """For whom the calls of a job speak at the Execution API: a task instance, a callback, a connection test."""

    kind: JobKind
    id: uuid.UUID
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    taken_back: bool = False
    """A person or the scheduler ended, cleared or deleted the task; its worker has still to hear of it, or to wind down."""
    concluded: bool = False
    """The task's own terminal state went through before this call."""
    passed_on: bool = False
    """It had concluded, and its task instance is another job's by now (resumed, poked again), or has another id (next try)."""
    log_path: str = field(default="", compare=False)
    """Where its log goes, relative to the log store."""


def subject_of(job: Job) -> Subject:
    concluded = job.concluded_at is not None
    return Subject(
        JobKind(job.kind),
        job.ti_id or uuid.UUID(job.id),
        job.dag_id,
        job.run_id,
        job.task_id,
        job.map_index,
        taken_back=job.stop_reason is not None and not concluded,
        concluded=concluded,
        log_path=job.log_path,
    )


def hold(session: Session, lease: WorkerLease, *, lock: bool = True) -> Job:
    """Return the job of a lease that was given and not taken back, whether or not the job has ended under it.

    Raises:
        NotYours: no such job, or never this worker's.
        Superseded: another lease was given since, or this one went back to the queue.
    """
    query = select(Job).where(Job.id == lease.job_id).options(defer(Job.workload))  # kilobytes that nobody needs here
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None or job.worker_id != lease.worker_id:
        raise NotYours(lease.job_id)
    if job.epoch != lease.epoch or job.state == JobState.QUEUED.value:
        raise Superseded(f"job {lease.job_id} is at epoch {job.epoch} and {job.state}; this call is for epoch {lease.epoch}")
    return job


def hold_open(session: Session, lease: WorkerLease, *, lock: bool = True) -> Job:
    job = hold(session, lease, lock=lock)
    if JobState(job.state).is_ended:
        raise Superseded(f"job {lease.job_id} has ended: {job.state}, {job.stop_reason or job.reason or 'reported'}")
    return job


def refuse_after_its_end(session: Session, job: Job) -> None:
    """Refuse what a lease no longer allows once its task has ended (DESIGN: a lease ends with its job).

    Raises:
        LeaseLapsed: the terminal state went through, or a stop was not obeyed within `[remote] stop_grace_seconds`.
    """
    if job.concluded_at is not None:
        raise LeaseLapsed(
            f"the task of job {job.id} ended at {job.concluded_at:%Y-%m-%d %H:%M:%S} UTC; since then this lease only allows "
            "to send that state again, the rest of the log, and the report"
        )
    if job.stop_reason is None or job.stop_decided_at is None:
        return
    grace = timedelta(seconds=settings().stop_grace_seconds)
    if database_now(session) - job.stop_decided_at > grace:
        raise LeaseLapsed(
            f"job {job.id} was to stop ({job.stop_reason}) at {job.stop_decided_at:%Y-%m-%d %H:%M:%S} UTC and has not within "
            f"{grace.total_seconds():g} s ([remote] stop_grace_seconds); this lease only allows to send the rest of the log, "
            "and the report"
        )


def check(session: Session, lease: WorkerLease) -> Subject:
    """Return whom an open lease is for.

    Raises:
        LeaseLapsed: its task has ended.
    """
    job = hold_open(session, lease, lock=False)
    refuse_after_its_end(session, job)
    return subject_of(job)
