"""The fence of a job: which worker can act for it, and under which lease. Every call of a worker about a job starts here."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.errors import LeaseLapsed, NoSuchJob, Superseded
from airflow_remote_provider.models import Job
from airflow_remote_provider.settings import settings

MOST_LOOKED_UP = 100
"""Per list: how many jobs are looked up that are not leased to the worker, and how many stops are returned. The rest follows with
the next list, in which the first ones are already stopping."""


@dataclass(frozen=True)
class WorkerLease:
    """The lease under which a worker calls."""

    worker_id: str
    job_id: str
    epoch: int


@dataclass(frozen=True)
class Subject:
    """What the calls of a job to the Execution API are about: a task instance, a callback or a connection test."""

    kind: JobKind
    id: uuid.UUID
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    taken_back: bool = False
    """A user or the scheduler ended, cleared or deleted the task; its worker does not know yet, or is still stopping it."""
    concluded: bool = False
    """The task's own terminal state went through before this call."""
    passed_on: bool = False
    """It had concluded, and its task instance now belongs to another job (resumed, poked again), or has another id (next try)."""
    log_path: str = field(default="", compare=False)
    """Path of its log, relative to the log store."""


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


def find_job(session: Session, lease: WorkerLease, *, lock: bool = True) -> Job:
    """Return the job of a lease that is still the newest one, even if the job has ended under it.

    Raises:
        NoSuchJob: the job does not exist, or was never offered to this worker.
        Superseded: a newer lease exists, or the job went back to the queue.
    """
    query = select(Job).where(Job.id == lease.job_id).options(defer(Job.workload))  # kilobytes that no caller needs
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None or job.worker_id != lease.worker_id:
        raise NoSuchJob(lease.job_id)
    if job.epoch != lease.epoch or job.state == JobState.QUEUED.value:
        raise Superseded(f"job {lease.job_id} is at epoch {job.epoch} and {job.state}; this call is for epoch {lease.epoch}")
    return job


def find_open_job(session: Session, lease: WorkerLease, *, lock: bool = True) -> Job:
    job = find_job(session, lease, lock=lock)
    if JobState(job.state).is_ended:
        raise Superseded(f"job {lease.job_id} has ended: {job.state}, {job.stop_reason or job.reason or 'reported'}")
    return job


def refuse_after_end(session: Session, job: Job) -> None:
    """Refuse calls that a lease no longer allows once its task has ended (ADR 0023).

    Raises:
        LeaseLapsed: the terminal state went through, or the job did not stop within `[remote] stop_grace_seconds`.
    """
    if job.concluded_at is not None:
        raise LeaseLapsed(
            f"the task of job {job.id} ended at {job.concluded_at:%Y-%m-%d %H:%M:%S} UTC; since then this lease only allows "
            "repeating that state and sending the rest of the log and the report"
        )
    if job.stop_reason is None or job.stop_decided_at is None:
        return
    grace = timedelta(seconds=settings().stop_grace_seconds)
    if database_now(session) - job.stop_decided_at > grace:
        raise LeaseLapsed(
            f"job {job.id} was requested to stop ({job.stop_reason}) at {job.stop_decided_at:%Y-%m-%d %H:%M:%S} UTC and did not "
            f"within {grace.total_seconds():g} s ([remote] stop_grace_seconds); this lease only allows sending the rest of the "
            "log and the report"
        )


def check(session: Session, lease: WorkerLease) -> Subject:
    """Return what an open lease is for.

    Raises:
        LeaseLapsed: its task has ended.
    """
    job = find_open_job(session, lease, lock=False)
    refuse_after_end(session, job)
    return subject_of(job)
