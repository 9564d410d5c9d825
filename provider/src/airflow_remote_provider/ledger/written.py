"""Counts in the rows of jobs how much they write through the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_remote_protocol.states import JobState
from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.models import Job


@dataclass(frozen=True)
class Bounds:
    """A number of bytes, and of calls that write them."""

    size: int
    calls: int


def note(session: Session, lease: WorkerLease) -> None:
    """Note that the job has written anything."""
    mine = update(Job).where(Job.id == lease.job_id, Job.worker_id == lease.worker_id, Job.epoch == lease.epoch)
    session.execute(mine.where(Job.writes == 0).values(writes=1).execution_options(synchronize_session=False))


def reserve(session: Session, lease: WorkerLease, wanted: Bounds, *, most: Bounds) -> bool:
    """Count *wanted* as written by the job. Return False, without a change, if the total would exceed *most*.

    An ended lease reserves nothing; :func:`..fence.check` refuses its calls.
    """
    leased = [state.value for state in JobState if state.is_leased]
    changed = session.execute(
        update(Job)
        .where(
            Job.id == lease.job_id,
            Job.worker_id == lease.worker_id,
            Job.epoch == lease.epoch,
            Job.state.in_(leased),
            Job.written_bytes <= most.size - wanted.size,
            Job.writes <= most.calls - wanted.calls,
        )
        .values(written_bytes=Job.written_bytes + wanted.size, writes=Job.writes + wanted.calls)
        .execution_options(synchronize_session=False)
    )
    return changed.rowcount == 1  # type: ignore[attr-defined, no-any-return]
