"""The file to which a job's log is written. A file belongs to the newest job that has begun to write to it (ADR 0023)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_remote_protocol.states import JobState
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.fence import WorkerLease, find_job
from airflow_remote_provider.models import Job


@dataclass(frozen=True)
class LogPlace:
    """The file of the store that gets a job's log, and the offset in it where this lease's bytes begin (None: not known yet).

    *path* is None until :func:`end_log` fixes how much of the log is in a file that a newer job has taken over.
    """

    path: str | None
    base: int | None
    own_path: str
    """The job's own log path. Its size is the argument of :func:`begin_log` and :func:`end_log`."""


def log_place(session: Session, lease: WorkerLease) -> LogPlace:
    """Return the place of a lease's log, also after the job has ended.

    A log path belongs to the newest job whose log began on it. The remaining log of an older job goes to a file beside it, which
    Airflow reads together with it (ADR 0023).
    """
    job = find_job(session, lease, lock=False)
    begun = job.log_base if job.log_epoch == job.epoch else None
    if job.log_successor is None:
        return LogPlace(job.log_path, begun, job.log_path)
    beside = f"{job.log_path}.{job.id}.{job.epoch}.log"
    if begun is None:
        return LogPlace(beside, 0, job.log_path)
    if job.log_end is None:
        return LogPlace(None, None, job.log_path)
    # The bytes in the first file count as held: the worker's offsets continue after them.
    return LogPlace(beside, min(0, begun - job.log_end), job.log_path)


def begin_log(session: Session, lease: WorkerLease, base: int) -> int:
    """Fix the offset where this lease's bytes begin; the first call wins. Return the offset in force.

    *base* is the file's size, read after :func:`log_place` was committed. If a newer job has taken the path meanwhile, nothing is
    fixed, and the caller must ask for the place again.
    """
    job = find_job(session, lease)
    if job.log_epoch == job.epoch and job.log_base is not None:
        return job.log_base
    take_log(session, job)
    if job.log_successor is None:
        job.log_epoch, job.log_base = job.epoch, base
        behind = update(Job).where(Job.log_key == job.log_key, Job.log_successor.is_not(None), Job.log_end.is_(None))
        session.execute(behind.values(log_end=base).execution_options(synchronize_session=False))
    return base


def end_log(session: Session, lease: WorkerLease, size: int) -> None:
    """Fix the size of the file at the time when a newer job took it over; the first call wins. *size* is its size now.

    Nothing is appended between the takeover and the newer job's first byte, which also fixes the size (:func:`begin_log`).
    """
    job = find_job(session, lease)
    if job.log_successor is not None and job.log_end is None:
        job.log_end = size


def take_log(session: Session, job: Job) -> None:
    """Make this job the owner of its log path, so that older jobs no longer write there. An ended job does not take it over."""
    job.log_key = hashlib.sha256(job.log_path.encode()).hexdigest()
    others = session.execute(
        select(Job.id, Job.log_successor).where(Job.log_key == job.log_key, Job.id != job.id).order_by(Job.id)
    ).all()
    owner = next((other.id for other in others if other.log_successor is None), None)
    if owner is not None and (JobState(job.state).is_ended or job.stop_reason is not None or job.concluded_at is not None):
        job.log_successor = owner
        return
    job.log_successor = job.log_end = None
    if owner is not None:
        taken = update(Job).where(Job.id.in_([other.id for other in others]), Job.log_successor.is_(None))
        session.execute(taken.values(log_successor=job.id).execution_options(synchronize_session=False))
