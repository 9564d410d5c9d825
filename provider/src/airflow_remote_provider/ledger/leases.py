"""What a worker says about its jobs, each call fenced by (worker, job, epoch): accept, decline, renew, conclude, report, log."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from airflow_remote_protocol.messages import HeldJob, JobKind, JobPhase, Outcome, Report, Stop, StopReason
from airflow_remote_protocol.states import JobEvent, JobState, advance
from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session, defer

from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger.errors import Impossible, NotYours, Superseded
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job

STOPS_REPEATED = timedelta(minutes=5)
"""How long a parked poll hears of an offer that was taken back; a later poll hears of it by listing the job."""


@dataclass(frozen=True)
class Lease:
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


def _subject(job: Job) -> Subject:
    its_id = job.ti_id or uuid.UUID(job.id)
    return Subject(JobKind(job.kind), its_id, job.dag_id, job.run_id, job.task_id, job.map_index)


def _hold(session: Session, lease: Lease, *, lock: bool = True) -> Job:
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


def _hold_open(session: Session, lease: Lease, *, lock: bool = True) -> Job:
    job = _hold(session, lease, lock=lock)
    if JobState(job.state).is_ended:
        raise Superseded(f"job {lease.job_id} has ended: {job.state}, {job.stop_reason or job.reason or 'reported'}")
    return job


def check(session: Session, lease: Lease) -> Subject:
    """Return whom an open lease is for."""
    return _subject(_hold_open(session, lease, lock=False))


def accept(session: Session, lease: Lease) -> Subject:
    """The worker runs the job. Again changes nothing. Return whom it is for."""
    job = _hold_open(session, lease)
    if job.state == JobState.OFFERED.value:
        job.state = advance(JobState.OFFERED, JobEvent.ACCEPT).value
        job.accepted_at = database_clock(session)
        job.deadline_at = None
    return _subject(job)


def decline(session: Session, lease: Lease, reason: str, *, delay: timedelta) -> None:
    """The worker can't take an offer now: queue it again, after a delay, at no cost to the job."""
    job = _hold_open(session, lease)
    if job.state != JobState.OFFERED.value:
        raise Superseded(f"job {lease.job_id} is {job.state}; only an offer can be declined")
    job.state = advance(JobState.OFFERED, JobEvent.DECLINE).value
    job.offers -= 1
    job.deadline_at = None
    job.not_before = database_now(session) + delay
    job.reason = f"declined by {job.worker_name}: {reason}"
    wake(session, Topic.QUEUED)


def withdraw(session: Session, leases: Sequence[Lease]) -> None:
    """The offers did not reach their worker (the poll was gone): queue them again at once."""
    for lease in sorted(leases, key=lambda lease: lease.job_id):
        try:
            job = _hold_open(session, lease)
        except (NotYours, Superseded):
            continue
        if job.state == JobState.OFFERED.value:
            job.state = advance(JobState.OFFERED, JobEvent.WITHDRAW).value
            job.offers -= 1
            job.deadline_at = None
    wake(session, Topic.QUEUED)


def renew(session: Session, worker_id: str, held: Sequence[HeldJob], *, deadline: timedelta) -> list[Stop]:
    """Renew what a poll lists; return what the worker must stop.

    Offers listed as preparing get a new deadline. A listed job that is not this worker's at that epoch any more is superseded.
    """
    query = select(Job.id, Job.state, Job.epoch, Job.worker_id, Job.stop_reason).where(Job.id.in_({job.job_id for job in held}))
    rows = {row.id: row for row in session.execute(query)}
    preparing: list[str] = []
    stops: list[Stop] = []
    for mine in held:
        row = rows.get(mine.job_id)
        ours = row is not None and (row.worker_id, row.epoch) == (worker_id, mine.epoch) and row.state != JobState.QUEUED.value
        if row is None or not ours:
            stop = Stop(mine.job_id, mine.epoch, StopReason.SUPERSEDED, "another lease exists, or central knows no such job")
        elif row.stop_reason is not None:
            stop = Stop(mine.job_id, mine.epoch, StopReason(row.stop_reason))
        elif JobState(row.state).is_ended:
            stop = Stop(mine.job_id, mine.epoch, StopReason.SUPERSEDED, f"the job has ended: {row.state}")
        else:
            if row.state == JobState.OFFERED.value and mine.phase is JobPhase.PREPARING:
                preparing.append(mine.job_id)
            continue
        if is_stoppable(mine):
            stops.append(stop)
    if preparing:
        session.execute(
            update(Job)
            .where(Job.id.in_(preparing), Job.state == JobState.OFFERED.value)
            .values(deadline_at=database_now(session) + deadline)
        )
    return stops


def is_stoppable(held: HeldJob) -> bool:
    """Whether a worker that lists the job so still has to hear of a stop."""
    return held.phase not in (JobPhase.STOPPING, JobPhase.ENDED)


def stops_for(session: Session, worker_ids: Sequence[str]) -> dict[str, list[Stop]]:
    """Return what was taken back from these workers, by worker: running jobs, and offers revoked within the last minutes."""
    lately = database_now(session) - STOPS_REPEATED
    query = select(Job.id, Job.epoch, Job.worker_id, Job.stop_reason).where(
        Job.worker_id.in_(worker_ids),
        Job.stop_reason.is_not(None),
        or_(Job.state == JobState.RUNNING.value, and_(Job.state == JobState.REVOKED.value, Job.ended_at > lately)),
    )
    stops: dict[str, list[Stop]] = {}
    for row in session.execute(query):
        stops.setdefault(row.worker_id, []).append(Stop(row.id, row.epoch, StopReason(row.stop_reason)))
    return stops


def reconcile(session: Session, worker_id: str, held: Sequence[HeldJob]) -> None:
    """A new session: jobs that this worker holds by our books but doesn't list are over.

    An offer goes back to the queue (its reply was lost); a running job is lost (the worker's state was wiped).
    """
    listed = {(job.job_id, job.epoch) for job in held}
    leased = [state.value for state in JobState if state.is_leased]
    query = select(Job).where(Job.worker_id == worker_id, Job.state.in_(leased)).order_by(Job.id).with_for_update()
    for job in session.scalars(query):
        if (job.id, job.epoch) in listed:
            continue
        if job.state == JobState.OFFERED.value:
            job.state = advance(JobState.OFFERED, JobEvent.WITHDRAW).value
            job.offers -= 1
            job.deadline_at = None
            wake(session, Topic.QUEUED)
        else:
            job.state = advance(JobState.RUNNING, JobEvent.LOSE).value
            job.ended_at = database_clock(session)
            job.reason = f"worker {job.worker_name} came back without this job"


def conclude(session: Session, lease: Lease, *, done: bool) -> Subject:
    """Note that the task's own terminal state is about to go through (*done*), or that it did not after all.

    Return whom it is for. Set before the call goes out, so that nobody takes the state it brings for a person's doing.
    """
    job = _hold_open(session, lease)
    job.concluded_at = database_clock(session) if done else None
    return _subject(job)


EVENTS = {
    Outcome.SUCCEEDED: JobEvent.SUCCEED,
    Outcome.FAILED: JobEvent.FAIL,
    Outcome.STOPPED: JobEvent.FAIL,
    Outcome.UNPREPARED: JobEvent.FAIL,
    Outcome.DIED: JobEvent.FAIL,
}


def report(session: Session, lease: Lease, said: Report) -> None:
    """The job is over at its worker. The same report again changes nothing.

    Raises:
        Superseded: the job was lost, revoked or offered anew meanwhile; what is reported counts for nothing.
        Impossible: an offer can't have run without acceptance.
    """
    job = _hold(session, lease)
    state = JobState(job.state)
    if state.is_ended:
        if job.outcome is not None:
            return
        raise Superseded(f"job {lease.job_id} has ended without this report: {job.state}")
    if state is JobState.OFFERED and said.outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        raise Impossible(f"job {lease.job_id} was never accepted; an offer can only be reported as unprepared, stopped or died")
    event = JobEvent.REVOKE if job.stop_reason is not None and job.concluded_at is None else EVENTS[said.outcome]
    job.state = advance(state, event).value
    job.ended_at = database_clock(session)
    job.outcome = said.outcome.value
    job.exit_code = said.exit_code
    job.reason = said.reason
    job.log_size = said.log_size
    job.log_sha256 = said.log_sha256 or None
    job.deadline_at = None


@dataclass(frozen=True)
class LogPlace:
    """Where a job's log goes: a file of the store, and where in it this lease's bytes begin (None: not known yet)."""

    path: str
    base: int | None


def log_place(session: Session, lease: Lease) -> LogPlace:
    """Return where the log of a lease goes; also after the job has ended under it."""
    job = _hold(session, lease, lock=False)
    return LogPlace(job.log_path, job.log_base if job.log_epoch == job.epoch else None)


def begin_log(session: Session, lease: Lease, base: int) -> int:
    """Fix where this lease's bytes begin; the first call wins. Return the offset that holds."""
    job = _hold(session, lease)
    if job.log_epoch != job.epoch or job.log_base is None:
        job.log_epoch, job.log_base = job.epoch, base
    return job.log_base
