"""Which file a job's log goes to; it belongs to the newest job that has begun on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_remote_protocol.states import JobState
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.fence import WorkerLease, hold
from airflow_remote_provider.models import Job


@dataclass(frozen=True)
class LogPlace:
    """Where a job's log goes: a file of the store, and where in it this lease's bytes begin (None: not known yet).

    *path* is None while it is not known how much of the log is in a file that a newer job has taken over (:func:`end_log`).
    """

    path: str | None
    base: int | None
    own_path: str
    """The path that the job's log was given: what is sized for :func:`begin_log` and :func:`end_log`."""


def log_place(session: Session, lease: WorkerLease) -> LogPlace:
    """Return where the log of a lease goes; also after the job has ended under it.

    A log path belongs to the newest job whose log began on it. What an older one still sends goes into a file beside it, which
    Airflow reads together with it (ADR 0023).
    """
    job = hold(session, lease, lock=False)
    begun = job.log_base if job.log_epoch == job.epoch else None
    if job.log_successor is None:
        return LogPlace(job.log_path, begun, job.log_path)
    beside = f"{job.log_path}.{job.id}.{job.epoch}.log"
    if begun is None:
        return LogPlace(beside, 0, job.log_path)
    if job.log_end is None:
        return LogPlace(None, None, job.log_path)
    # What the first file has counts as held: the worker's offsets go on from there.
    return LogPlace(beside, min(0, begun - job.log_end), job.log_path)


def begin_log(session: Session, lease: WorkerLease, base: int) -> int:
    """Fix where this lease's bytes begin; the first call wins. Return the offset that holds.

    *base* is the file's size, read after :func:`log_place` was committed. Where a newer job has the path, nothing begins on it:
    ask for the place again.
    """
    job = hold(session, lease)
    if job.log_epoch == job.epoch and job.log_base is not None:
        return job.log_base
    take_log(session, job)
    if job.log_successor is None:
        job.log_epoch, job.log_base = job.epoch, base
        behind = update(Job).where(Job.log_key == job.log_key, Job.log_successor.is_not(None), Job.log_end.is_(None))
        session.execute(behind.values(log_end=base).execution_options(synchronize_session=False))
    return base


def end_log(session: Session, lease: WorkerLease, size: int) -> None:
    """Fix how large the file was when a newer job took it over; the first call wins. *size* is its size now.

    Nothing is appended between the takeover and the newer job's first byte, and that fixes it, too (:func:`begin_log`).
    """
    job = hold(session, lease)
    if job.log_successor is not None and job.log_end is None:
        job.log_end = size


def take_log(session: Session, job: Job) -> None:
    """Make the log path this job's own: what older jobs still send no longer goes there. A job that is over takes nothing."""
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
