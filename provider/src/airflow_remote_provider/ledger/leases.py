"""Calls of a worker about its jobs: accept, decline, renew, conclude, report, fire. Each is fenced by (worker, job, epoch)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from airflow_remote_protocol.messages import (
    MAX_DETAIL,
    MAX_SHORT_TEXT,
    HeldJob,
    JobKind,
    JobPhase,
    Outcome,
    Report,
    Stop,
    StopReason,
    TriggerEvent,
)
from airflow_remote_protocol.states import JobEvent, JobState, advance
from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger import deferrals
from airflow_remote_provider.ledger.audit import AuditKind, Event, record
from airflow_remote_provider.ledger.errors import Impossible, LeaseLapsed, NoSuchJob, RetryLater, Superseded, TooLate
from airflow_remote_provider.ledger.fence import (
    MOST_LOOKED_UP,
    Subject,
    WorkerLease,
    find_job,
    find_open_job,
    refuse_after_end,
    subject_of,
)
from airflow_remote_provider.ledger.log_places import take_log
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job, Worker

MOST_DETAILS = 50
"""How many different notes on jobs in preparation one poll may store."""

STOPS_REPEATED = timedelta(minutes=5)
"""How long a parked poll is answered with the stop of an offer that was taken back; a later poll gets it by listing the job."""

RIVAL_CLAIMS_WITHIN = timedelta(seconds=5)
"""How long after a takeover of a session a report that a job died is refused. If the new start is a copy of the machine, the jobs
run on the original, which learns of the takeover in its open poll and claims its session back."""


def accept(session: Session, lease: WorkerLease) -> Subject:
    """Note that the worker runs the job, and return what the job is for. A repeat changes nothing.

    Raises:
        LeaseLapsed: its task has ended.
    """
    job = find_open_job(session, lease)
    refuse_after_end(session, job)
    if job.state == JobState.OFFERED.value:
        job.state = advance(JobState.OFFERED, JobEvent.ACCEPT).value
        job.accepted_at = database_clock(session)
        job.deadline_at = None
        take_log(session, job)
    return subject_of(job)


HOST_DIED = "host-died: "
"""Prefix of the reason of a decline if the host process of the trigger has died."""


REPORTED_TRIGGER_DELAY = timedelta(seconds=5)
"""Delay before a trigger is offered again that its worker reported as ended; only its event or a stop really ends a trigger."""


def decline(session: Session, lease: WorkerLease, reason: str, *, delay: timedelta) -> None:
    """Queue an offer again that the worker can't take now, after a delay; it does not count as an attempt.

    A running trigger can be declined as well: its worker drains, or its host process has ended.
    """
    job = find_open_job(session, lease)
    if job.kind == JobKind.TRIGGER.value and job.state == JobState.RUNNING.value:
        what = f"worker {job.worker_name}: {presentable(reason, longest=MAX_SHORT_TEXT)}"
        deferrals.hand_back(session, job, what, delay=delay, died=reason.startswith(HOST_DIED))
        return
    if job.state != JobState.OFFERED.value:
        raise Superseded(f"job {lease.job_id} is {job.state}; only an offer can be declined")
    job.state = advance(JobState.OFFERED, JobEvent.DECLINE).value
    job.offers -= 1
    job.deadline_at = None
    job.not_before = database_now(session) + delay
    job.reason = f"declined by {job.worker_name}: {presentable(reason, longest=MAX_SHORT_TEXT)}"
    wake(session, Topic.QUEUED)


def withdraw(session: Session, leases: Sequence[WorkerLease]) -> None:
    """Queue offers again at once that did not reach their worker because the poll had ended."""
    for lease in sorted(leases, key=lambda lease: lease.job_id):
        try:
            job = find_open_job(session, lease)
        except (NoSuchJob, Superseded):
            continue
        if job.state == JobState.OFFERED.value:
            job.state = advance(JobState.OFFERED, JobEvent.WITHDRAW).value
            job.offers -= 1
            job.deadline_at = None
    wake(session, Topic.QUEUED)


def renew(session: Session, worker_id: str, held: Sequence[HeldJob], *, deadline: timedelta, prepare: timedelta) -> list[Stop]:
    """Renew the jobs that a poll lists; return the jobs that the worker must stop.

    Offers listed as preparing get a new deadline, until *prepare* after the offer. A listed job that no longer belongs to this
    worker at that epoch is superseded.
    A job that was given up is lost, but its log is still accepted. The cost of a list is bounded by the jobs that are leased to
    the worker: of other listed jobs, :data:`..fence.MOST_LOOKED_UP` are looked up at a time.
    """
    rows, looked_up = _listed_rows(session, worker_id, held)
    preparing: list[tuple[HeldJob, Any]] = []
    found: list[str] = []
    stops: list[Stop] = []
    for mine in held:
        if mine.job_id not in looked_up:
            continue
        row = rows.get(mine.job_id)
        ours = row is not None and (row.worker_id, row.epoch) == (worker_id, mine.epoch) and row.state != JobState.QUEUED.value
        if row is None or not ours:
            stop = Stop(mine.job_id, mine.epoch, StopReason.SUPERSEDED, "another lease exists, or central has no such job")
        elif row.stop_reason is not None:
            stop = _stop(row)
        elif row.state == JobState.LOST.value:
            stop = Stop(mine.job_id, mine.epoch, StopReason.LOST, "central has given up this job; its log is still accepted")
        elif JobState(row.state).is_ended:
            stop = Stop(mine.job_id, mine.epoch, StopReason.SUPERSEDED, f"the job has ended: {row.state}")
        else:
            if row.state == JobState.OFFERED.value and mine.phase is JobPhase.PREPARING:
                preparing.append((mine, row))
            if row.missing_since is not None:
                found.append(mine.job_id)
            continue
        if is_stoppable(mine) and len(stops) < MOST_LOOKED_UP:
            stops.append(stop)
    if preparing:
        _renew_offers(session, preparing, deadline=deadline, prepare=prepare)
    if found:
        session.execute(update(Job).where(Job.id.in_(found)).values(missing_since=None))
    return stops


def _renew_offers(session: Session, preparing: Sequence[tuple[HeldJob, Any]], *, deadline: timedelta, prepare: timedelta) -> None:
    """Give offers that are being prepared a new deadline, and note what their worker does. One statement for each note."""
    now = database_now(session)
    by_detail: dict[str, list[str]] = {}
    for mine, row in preparing:
        detail = presentable(mine.detail, longest=MAX_DETAIL)
        if now - row.offered_at < prepare:
            by_detail.setdefault(detail if len(by_detail) < MOST_DETAILS else "", []).append(row.id)
    for detail, ids in by_detail.items():
        renewed = update(Job).where(Job.id.in_(ids), Job.state == JobState.OFFERED.value)
        session.execute(renewed.values(deadline_at=now + deadline, detail=detail))


def _listed_rows(session: Session, worker_id: str, held: Sequence[HeldJob]) -> tuple[dict[str, Any], Collection[str]]:
    """Return the rows of listed jobs by id, and the ids that were looked up; an id among them without a row does not exist."""
    wanted = select(Job.id, Job.state, Job.epoch, Job.worker_id, Job.stop_reason, Job.reason, Job.missing_since, Job.offered_at)
    ids = list(dict.fromkeys(job.job_id for job in held))
    rows: dict[str, Any] = {}
    if len(ids) > MOST_LOOKED_UP:
        leased = [state.value for state in JobState if state.is_leased]
        rows = {row.id: row for row in session.execute(wanted.where(Job.worker_id == worker_id, Job.state.in_(leased)))}
        others = dict.fromkeys(job.job_id for job in held if job.job_id not in rows and is_stoppable(job))
        ids = list(others)[:MOST_LOOKED_UP]
    if ids:
        rows |= {row.id: row for row in session.execute(wanted.where(Job.id.in_(ids)))}
    return rows, rows.keys() | set(ids)


def count_leased(session: Session, worker_id: str) -> int:
    """Return how many jobs are leased to the worker: offered to it, or running on it."""
    leased = [state.value for state in JobState if state.is_leased]
    counted = session.scalar(select(func.count()).select_from(Job).where(Job.worker_id == worker_id, Job.state.in_(leased)))
    return counted or 0


def is_stoppable(held: HeldJob) -> bool:
    """Return whether a worker that lists the job in this phase still needs a stop request."""
    return held.phase not in (JobPhase.STOPPING, JobPhase.ENDED)


def stops_for(session: Session, worker_ids: Sequence[str]) -> dict[str, list[Stop]]:
    """Return the stops of these workers, by worker id: running jobs, and offers revoked within :data:`STOPS_REPEATED`."""
    lately = database_now(session) - STOPS_REPEATED
    query = select(Job.id, Job.epoch, Job.worker_id, Job.stop_reason, Job.reason).where(
        Job.worker_id.in_(worker_ids),
        Job.stop_reason.is_not(None),
        or_(Job.state == JobState.RUNNING.value, and_(Job.state == JobState.REVOKED.value, Job.ended_at > lately)),
    )
    stops: dict[str, list[Stop]] = {}
    for row in session.execute(query):
        stops.setdefault(row.worker_id, []).append(_stop(row))
    return stops


def _stop(row: Any) -> Stop:
    """Return the stop request for a job that was taken back."""
    reason = StopReason(row.stop_reason)
    return Stop(row.id, row.epoch, reason, row.reason if reason is StopReason.REVOKED else "")


def reconcile(session: Session, worker_id: str, held: Sequence[HeldJob]) -> None:
    """Handle the jobs that are leased to a worker but not listed in its new session.

    An offer goes back to the queue: the reply with it was lost. A running job is missing from now on, and
    :func:`..lost_jobs.lose_missing` declares it lost unless it is listed again soon. It is not lost at once, because a copy of
    the worker that is detected a moment later must not cost the original its jobs.
    """
    listed = {(job.job_id, job.epoch) for job in held}
    leased = [state.value for state in JobState if state.is_leased]
    query = select(Job).where(Job.worker_id == worker_id, Job.state.in_(leased)).order_by(Job.id).with_for_update()
    for job in session.scalars(query):
        if (job.id, job.epoch) in listed:
            job.missing_since = None
            continue
        if job.state == JobState.OFFERED.value:
            job.state = advance(JobState.OFFERED, JobEvent.WITHDRAW).value
            job.offers -= 1
            job.deadline_at = None
            wake(session, Topic.QUEUED)
        elif job.missing_since is None:
            job.missing_since = database_now(session)


def conclude(session: Session, lease: WorkerLease, *, done: bool, body: bytes = b"") -> Subject:
    """Note that the task's own terminal state is about to go through (*done*), or that it did not go through after all.

    Return what the job is for, as it was before the call. The note is made before the call goes out, so that the resulting state
    is not mistaken for an action of a user. For a repeat (the reply was lost), `passed_on` says whether the scheduler has moved
    the task on since; the time of the first call stays. A job concludes once, so a call with another *body* is not a repeat.

    Raises:
        LeaseLapsed: the task has concluded with another state, or did not stop when requested.
    """
    job = find_open_job(session, lease)
    subject = subject_of(job)
    if not done:
        job.concluded_at = job.concluded_as = None
    elif subject.concluded:
        _check_repeat(job, body)
        subject = replace(subject, passed_on=_is_passed_on(session, job))
    else:
        refuse_after_end(session, job)
        job.concluded_at = database_clock(session)
        job.concluded_as = hashlib.sha256(body).hexdigest()
    return subject


def _check_repeat(job: Job, body: bytes) -> None:
    """Check that *body* repeats the call with which the job concluded.

    Raises:
        LeaseLapsed: it carries another state.
    """
    if job.concluded_as in (None, hashlib.sha256(body).hexdigest()):
        return
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return  # Airflow parses bodies in the same way, finds no state in this one, and refuses it
    raise LeaseLapsed(f"the task of job {job.id} has ended with another state; only that call may be repeated")


def _is_passed_on(session: Session, job: Job) -> bool:
    ti = compat.task_instance_model()
    row = session.execute(select(ti.external_executor_id).where(ti.id == job.ti_id)).one_or_none()
    return row is None or row.external_executor_id not in (None, job.id)


EVENTS = {
    Outcome.SUCCEEDED: JobEvent.SUCCEED,
    Outcome.FAILED: JobEvent.FAIL,
    Outcome.STOPPED: JobEvent.FAIL,
    Outcome.UNPREPARED: JobEvent.FAIL,
    Outcome.DIED: JobEvent.FAIL,
}


@dataclass(frozen=True)
class JobEnd:
    """How a job ended, as far as it matters for judging its worker."""

    is_success: bool
    was_accepted: bool
    has_written: bool
    """Whether it wrote more through the gateway than its API process allows without recording it."""
    reason: str


def report(session: Session, lease: WorkerLease, said: Report) -> JobEnd | None:
    """End the job as its worker reports. A repeat changes nothing.

    Return how it ended; None if that does not matter for judging the worker: it was stopped, or reported before.

    Raises:
        Superseded: the job was revoked or offered again meanwhile; the report is ignored.
        TooLate: the job was lost meanwhile (call :func:`note_late` in a transaction of its own: this one is rolled back).
        RetryLater: a worker that has just taken over a session reports that the job died.
        Impossible: an offer can't have run without acceptance.
    """
    job = find_job(session, lease)
    state = JobState(job.state)
    if state.is_ended:
        if job.outcome is not None:
            return None
        why = TooLate if state is JobState.LOST else Superseded
        raise why(f"job {lease.job_id} has ended without this report: {job.state}")
    if said.outcome is Outcome.DIED:
        _refuse_while_copy_possible(session, lease.worker_id)
    if job.kind == JobKind.TRIGGER.value:
        _end_trigger(session, job, said)
        return None
    if state is JobState.OFFERED and said.outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        raise Impossible(f"job {lease.job_id} was never accepted; an offer can only be reported as unprepared, stopped or died")
    if state is JobState.OFFERED and said.outcome is Outcome.DIED and job.stop_reason is None:
        # The daemon died before any call under this lease: the job did not run, and can't once it is offered again.
        job.deadline_at = database_now(session)
        return None
    stopped = job.stop_reason is not None and job.concluded_at is None and not _ran_to_its_end(job, said)
    event = JobEvent.REVOKE if stopped else EVENTS[said.outcome]
    job.state = advance(state, event).value
    job.ended_at = database_clock(session)
    job.outcome = said.outcome.value
    job.exit_code = said.exit_code
    what = presentable(said.reason, longest=MAX_SHORT_TEXT)
    job.reason = f"{job.reason} ({what or said.outcome.value})" if _is_user_stop(job) else what
    job.log_size = said.log_size
    job.log_sha256 = said.log_sha256 or None
    job.site_code = said.site_code or None
    job.deadline_at = None
    # Connection tests write nothing, and callbacks need not: for these only the acceptance counts.
    was_accepted = job.accepted_at is not None
    if stopped or said.outcome is Outcome.STOPPED or (job.kind != JobKind.TASK.value and was_accepted):
        return None
    return JobEnd(said.outcome is Outcome.SUCCEEDED, was_accepted, job.writes > 0, what)


def _end_trigger(session: Session, job: Job, said: Report) -> None:
    """Fail the task of a trigger that could not be prepared; queue a trigger again that ended otherwise without an event.

    Raises:
        Impossible: the trigger is reported to have ended by itself, which requires an event.
    """
    if said.outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        raise Impossible(f"job {job.id} is a trigger; it ends by its event")
    reason = f"worker {job.worker_name}: {presentable(said.reason, longest=MAX_SHORT_TEXT) or said.outcome.value}"
    if said.outcome is Outcome.UNPREPARED:
        deferrals.fail(session, job, reason)
        job.outcome = said.outcome.value
    elif job.state == JobState.OFFERED.value:
        job.deadline_at = database_now(session)
    else:
        deferrals.hand_back(session, job, reason, delay=REPORTED_TRIGGER_DELAY, died=said.outcome is Outcome.DIED)


def fire(session: Session, lease: WorkerLease, event: TriggerEvent) -> None:
    """End a trigger by its event and resume its task. A repeat changes nothing.

    Raises:
        LedgerError: the lease has ended, or the task no longer waits for this trigger.
    """
    deferrals.fire(session, find_job(session, lease), event)


def _ran_to_its_end(job: Job, said: Report) -> bool:
    """Return whether the job is a callback or connection test that ran to its end, although a stop was set.

    Its end in Airflow was set by itself, and a check between then and this report mistook that for an action of a user.
    """
    return job.kind != JobKind.TASK.value and job.stop_reason == StopReason.ENDED.value and said.outcome is Outcome.SUCCEEDED


def _is_user_stop(job: Job) -> bool:
    """Return whether a user stopped this job (:func:`..jobs.stop`); the executor still waits for its end then."""
    return job.stop_reason == StopReason.REVOKED.value and bool(job.owner)


def _refuse_while_copy_possible(session: Session, worker_id: str) -> None:
    """Refuse a report from a start that may turn out to be a copy of the worker.

    Raises:
        RetryLater: the start took over the session less than :data:`RIVAL_CLAIMS_WITHIN` ago.
    """
    worker = session.get(Worker, worker_id)
    if worker is None or worker.previous_boot_id is None or worker.session_at is None:
        return
    if timedelta() <= database_now(session) - worker.session_at < RIVAL_CLAIMS_WITHIN:
        raise RetryLater("possible duplicate worker: this start has just taken over the session; retry in a few seconds")


def note_late(session: Session, lease: WorkerLease, said: Report) -> None:
    """Record a report about a job that had been lost before."""
    job = session.get(Job, lease.job_id)
    if job is None or job.worker_id != lease.worker_id:
        return
    exit_code = "" if said.exit_code is None else f", exit code {said.exit_code}"
    reason = presentable(said.reason, longest=MAX_SHORT_TEXT)
    detail = (
        f"reported as {said.outcome.value}{exit_code} after it was lost ({job.reason}); refused. "
        f"Its log has {said.log_size} bytes, SHA-256 {said.log_sha256 or 'unknown'}. {reason}"
    )
    record(
        session,
        Event(
            AuditKind.LATE_REPORT,
            job.id,
            detail.strip(),
            actor="worker",
            worker_id=job.worker_id,
            worker_name=job.worker_name,
            job_id=job.id,
        ),
    )
