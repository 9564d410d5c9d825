"""The calls of the executor: enqueue, read back ended jobs, adopt, revoke. Also the stop of a job by a user."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_remote_protocol.messages import JobKind, StopReason
from airflow_remote_protocol.states import ENDED, JobEvent, JobState, advance
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job


@dataclass(frozen=True)
class NewJob:
    """A job as the executor submits it.

    *job_id* is the external executor id of the task instance, or the id of the callback or connection test. Fields that only
    tasks have are empty for the other kinds.
    """

    job_id: str
    kind: JobKind
    queue: str
    team: str | None
    priority: int
    slots: int
    owner: str
    ti_id: uuid.UUID | None
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    workload: str
    log_path: str
    lost_after_s: float
    labels: str | None = None
    """Encoded by :func:`..needs.encode_labels`."""
    bundle: str | None = None
    bundle_version: str | None = None
    """None: its bundle has no versions."""
    dag_version: uuid.UUID | None = None
    """Airflow's version of its Dag; None: any code of its bundle will do."""
    dag_file: str | None = None
    """Path of its Dag file within the bundle."""
    waits_for_code: bool = False
    code_patience: timedelta | None = None
    """How long it waits for code; None: as long as it takes."""
    tree: str | None = None
    """Digest of the tree that it runs; None: chosen when it is first offered."""


def enqueue(session: Session, new: Sequence[NewJob]) -> None:
    """Store *new* as queued and wake the dispatchers. Jobs that exist already are not changed.

    So a batch can be submitted again if it is unknown whether its commit succeeded.
    """
    if not new:
        return
    now = database_now(session)
    rows = [
        {
            "id": job.job_id,
            "kind": job.kind.value,
            "state": JobState.QUEUED.value,
            "epoch": 0,
            "queue": job.queue,
            "team": job.team,
            "priority": job.priority,
            "slots": job.slots,
            "owner": job.owner,
            "ti_id": job.ti_id,
            "dag_id": job.dag_id,
            "run_id": job.run_id,
            "task_id": job.task_id,
            "map_index": job.map_index,
            "try_number": job.try_number,
            "workload": job.workload,
            "log_path": job.log_path,
            "lost_after_s": job.lost_after_s,
            "labels": job.labels,
            "bundle": job.bundle,
            "bundle_version": job.bundle_version,
            "dag_version": job.dag_version,
            "dag_file": job.dag_file,
            "code_waits": job.waits_for_code,
            "code_patience_at": None if job.code_patience is None else now + job.code_patience,
            "tree": job.tree,
            "offers": 0,
            "reason": "",
            "queued_at": now,
        }
        for job in new
    ]
    try:
        with session.begin_nested():
            session.execute(insert(Job), rows)
    except IntegrityError:
        known = set(session.scalars(select(Job.id).where(Job.id.in_([job.job_id for job in new]))))
        unknown = [row for row in rows if row["id"] not in known]
        if unknown:
            session.execute(insert(Job), unknown)
    wake(session, Topic.QUEUED)


@dataclass(frozen=True)
class EndedJob:
    """An ended job, as the executor reports it to the scheduler."""

    job_id: str
    kind: JobKind
    state: JobState
    concluded: bool
    stop_reason: str | None
    reason: str
    queue: str = ""
    waited: timedelta | None = None
    """From queued to begun; None if it never began."""
    took: timedelta | None = None
    """From begun to ended."""


def settle(session: Session, owner: str) -> list[EndedJob]:
    """Return the jobs of *owner* that ended since the last call, and mark them as settled, without an owner.

    Only jobs that are open or not settled have an owner, so the query does not read the history. If the scheduler dies before it
    uses the result, :func:`adopt` brings the jobs back. Takes no lock while no job has ended, which is most of the time.
    """
    query = select(
        Job.id,
        Job.kind,
        Job.state,
        Job.concluded_at,
        Job.stop_reason,
        Job.reason,
        Job.queue,
        Job.queued_at,
        Job.accepted_at,
        Job.ended_at,
    ).where(Job.owner == owner, Job.state.in_([state.value for state in ENDED]), Job.settled_at.is_(None))
    if session.execute(query.limit(1)).first() is None:
        return []
    ended = [
        EndedJob(
            job_id=row.id,
            kind=JobKind(row.kind),
            state=JobState(row.state),
            concluded=row.concluded_at is not None,
            stop_reason=row.stop_reason,
            reason=row.reason,
            queue=row.queue,
            waited=_between(row.queued_at, row.accepted_at),
            took=_between(row.accepted_at, row.ended_at),
        )
        for row in session.execute(query.order_by(Job.id).with_for_update())
    ]
    settled = update(Job).where(Job.id.in_([job.job_id for job in ended]))
    session.execute(settled.values(settled_at=database_now(session), owner=""))
    return ended


def concluded(session: Session, owner: str) -> set[str]:
    """Return the running jobs of *owner* whose task has ended; only the log and the report are still missing."""
    query = select(Job.id).where(
        Job.owner == owner, Job.settled_at.is_(None), Job.state == JobState.RUNNING.value, Job.concluded_at.is_not(None)
    )
    return set(session.scalars(query))


def adopt(session: Session, job_ids: Sequence[str], owner: str) -> set[str]:
    """Make *owner* the owner of these jobs, also of those that have ended meanwhile. Return the ids that exist."""
    query = select(Job.id).where(Job.id.in_(job_ids), Job.state != JobState.REVOKED.value).order_by(Job.id)
    known = set(session.scalars(query.with_for_update()))
    if known:
        session.execute(update(Job).where(Job.id.in_(known)).values(owner=owner, settled_at=None))
    return known


def revoke(session: Session, job_id: str) -> None:
    """Take a job back: it is revoked at once, or stopped if it runs. Its end is not reported to the scheduler."""
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None or JobState(job.state).is_ended:
        return
    job.settled_at, job.owner = database_now(session), ""
    take_back(session, job, StopReason.REVOKED)


def _between(begin: datetime | None, end: datetime | None) -> timedelta | None:
    return None if begin is None or end is None else max(end - begin, timedelta())


def stop(session: Session, job_id: str, *, by: str, reason: str = "") -> None:
    """Stop a job on behalf of a user. For Airflow its task has failed, and the task's retries decide what follows.

    Raises:
        NotFound: there is no such job.
        LedgerError: the job has ended, or is already being stopped.
    """
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None:
        raise no_such_job(job_id)
    if JobState(job.state).is_ended or job.concluded_at is not None:
        raise LedgerError(f"the job {job_id} has already ended: {job.state}; nothing was changed")
    if job.stop_reason is not None:
        raise LedgerError(f"the job {job_id} is already being stopped ({job.stop_reason}); nothing was changed")
    why = f"stopped by {by}{': ' + reason if reason else ''}"
    take_back(session, job, StopReason.REVOKED)
    job.reason = why
    record_action(
        session, by, f"stopped the job {job_id} ({job.dag_id}.{job.task_id}, run {job.run_id}){': ' + reason if reason else ''}"
    )


def no_such_job(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id[:36]!r}; `airflow remote jobs list` shows all jobs")


def take_back(session: Session, job: Job, why: StopReason) -> None:
    """End a locked, open job: at once if no worker runs it, else by a stop request to its worker.

    A trigger always ends at once: its outcome is not needed, and its worker only receives the stop.
    """
    job.stop_reason = why.value
    job.stop_decided_at = database_clock(session)
    is_trigger = job.kind == JobKind.TRIGGER.value
    if is_trigger or JobState(job.state) is not JobState.RUNNING:
        job.reason = (
            f"taken back: {why.value}" if job.state == JobState.RUNNING.value else f"taken back before it ran: {why.value}"
        )
        job.state = advance(JobState(job.state), JobEvent.REVOKE).value
        job.ended_at = database_now(session)
    if is_trigger:
        job.settled_at = job.ended_at
    wake(session, Topic.STOP)


def worker_of(session: Session, job_id: str) -> str | None:
    """Return the name of the worker that holds or held this job."""
    return session.scalar(select(Job.worker_name).where(Job.id == job_id))
