"""What time and people do to jobs. Run by the one API process that holds the duty (`vouch`: by executors)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_remote_protocol.messages import JobKind, StopReason
from airflow_remote_protocol.states import ENDED, JobEvent, JobState, advance
from sqlalchemy import and_, delete, not_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger import deferrals
from airflow_remote_provider.ledger.audit import AuditKind, Event, record
from airflow_remote_provider.ledger.jobs import take_back
from airflow_remote_provider.ledger.wakeup import Topic, heartbeat, wake
from airflow_remote_provider.models import Deferral, Duty, Job, Presence, Usage, Worker

REMOVED_KEPT = timedelta(days=1)

OPEN = [state.value for state in JobState if not state.is_ended]


def take_duty(session: Session, name: str, holder: str, *, lasts: timedelta) -> bool:
    """Take or keep a duty that one process at a time has. True: it is *holder*'s until *lasts* from now."""
    now, until = database_clock(session), database_clock(session, lasts)
    taken = session.execute(
        update(Duty)
        # Nobody takes a duty for longer than *lasts*: what ends later was taken before the clock was set back.
        .where(Duty.name == name, or_(Duty.holder == holder, Duty.until < now, Duty.until > database_clock(session, 2 * lasts)))
        .values(holder=holder, until=until)
        .execution_options(synchronize_session=False)
    )
    if taken.rowcount == 1:  # type: ignore[attr-defined]
        return True
    if session.get(Duty, name) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(Duty(name=name, holder=holder, until=until))
            session.flush()
    except IntegrityError:
        return False
    return True


@dataclass(frozen=True)
class OfferRules:
    """When an offer that nobody accepted is made again."""

    attempts: int
    delay: timedelta


def expire_offers(session: Session, rules: OfferRules) -> int:
    """Queue offers again whose deadline has passed, later each time; fail what was offered too often. Return how many."""
    now = database_now(session)
    query = (
        select(Job)
        .where(Job.state == JobState.OFFERED.value, Job.deadline_at < now)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    )
    expired = session.scalars(query).all()
    for job in expired:
        job.deadline_at = None
        if job.offers >= rules.attempts:
            why = (
                f"offered {job.offers} times and never accepted, last by worker {job.worker_name}; "
                "see that worker's own log, or send the task to another queue"
            )
            if job.kind == JobKind.TRIGGER.value:
                deferrals.fail(session, job, why)
                continue
            job.state = advance(JobState.OFFERED, JobEvent.FAIL).value
            job.ended_at = now
            job.reason = why
            continue
        job.state = advance(JobState.OFFERED, JobEvent.EXPIRE).value
        job.not_before = now + rules.delay * job.offers
        job.reason = f"worker {job.worker_name} did not accept the offer in time"
    if expired:
        wake(session, Topic.QUEUED)
    return len(expired)


def any_open(session: Session) -> bool:
    """Return whether any job is not ended: an idle deployment has nothing to watch."""
    return session.scalar(select(Job.id).where(Job.state.in_(OPEN)).limit(1)) is not None


def look(session: Session) -> tuple[datetime, bool]:
    """Return the database's clock, and whether any job is not ended; and let all API processes know that NOTIFY reaches them.

    One statement, for whoever holds the duty, every few seconds.
    """
    now, is_open = compat.clock_beside(session, select(Job.id).where(Job.state.in_(OPEN)).exists(), *heartbeat(session))
    return now, bool(is_open)


def stop_ended(session: Session) -> int:
    """Take back the jobs whose task a person or the scheduler ended, cleared or deleted. Return how many.

    A job whose own terminal state went through (`concluded_at`) is not among them, nor one that was told to stop already.
    Triggers whose task no longer waits for them are.
    """
    ti = compat.task_instance_model()
    needed = and_(ti.state.in_(["queued", "running"]), or_(ti.external_executor_id.is_(None), ti.external_executor_id == Job.id))
    is_trigger = Job.kind == JobKind.TRIGGER.value
    over_task = and_(not_(is_trigger), or_(ti.state.is_(None), not_(needed)))
    over_trigger = and_(is_trigger, or_(Deferral.job_id.is_(None), ti.state.is_(None), not_(deferrals.waits(ti))))
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
        # A resumed task is another job's, and may have failed by itself before we look.
        is_resumed = row.external_executor_id not in (None, row.deferred_by)
        return StopReason.RESUMED if is_resumed else deferrals.why_over(row.ti_state)
    if row.ti is None or (row.external_executor_id is not None and row.external_executor_id != row.id):
        return StopReason.GONE
    if row.ti_state in (None, "restarting", "scheduled", "removed"):
        return StopReason.CLEARED
    return StopReason.ENDED


def lose_silent(session: Session) -> int:
    """Call jobs lost whose worker has been silent for longer than the job allows. Return how many.

    Only for who has watched without a break for long enough that every worker could have come back (:class:`..api.vigil.Vigil`).
    """
    now = database_now(session)
    query = (
        select(Job, Presence.last_seen_at)
        .outerjoin(Presence, Presence.worker_id == Job.worker_id)
        .where(Job.state == JobState.RUNNING.value)
    )
    lost = [
        job.id
        for job, last_seen in session.execute(query)
        if _silence(now, last_seen, job.accepted_at) > timedelta(seconds=job.lost_after_s)
    ]
    if not lost:
        return 0
    locked = select(Job).where(Job.id.in_(lost), Job.state == JobState.RUNNING.value).order_by(Job.id).with_for_update()
    for job in session.scalars(locked):
        _lose(session, job, f"worker {job.worker_name} was not heard of for {timedelta(seconds=job.lost_after_s)}", now)
    return len(lost)


def lose_missing(session: Session, *, grace: timedelta) -> int:
    """Call running jobs lost that their worker has not listed since it opened its session. Return how many."""
    now = database_now(session)
    query = select(Job).where(Job.state == JobState.RUNNING.value, Job.missing_since < now - grace)
    missing = session.scalars(query.order_by(Job.id).with_for_update()).all()
    for job in missing:
        _lose(session, job, f"worker {job.worker_name} came back without this job", now)
    return len(missing)


def _lose(session: Session, job: Job, why: str, now: datetime) -> None:
    if job.kind == JobKind.TRIGGER.value:
        deferrals.hand_back(session, job, why)  # another worker goes on; the task keeps waiting
        return
    job.state = advance(JobState(job.state), JobEvent.LOSE).value
    job.ended_at = now
    job.reason = why
    what = f"{job.dag_id}.{job.task_id} (try {job.try_number}, run {job.run_id})" if job.task_id else job.kind
    record(
        session,
        Event(AuditKind.JOB_LOST, job.id, f"{what}: {why}", worker_id=job.worker_id, worker_name=job.worker_name, job_id=job.id),
    )


def rebase(session: Session, *, offer_deadline: timedelta) -> None:
    """The clock was set, or nobody has watched for a while: what was stamped must not hold for a day, nor be over at once.

    Workers heard of in the future were heard of now; offers begin their deadline anew; nothing waits longer for its next offer.
    """
    now = database_now(session)
    session.execute(update(Presence).where(Presence.last_seen_at > now).values(last_seen_at=now))
    session.execute(update(Job).where(Job.state == JobState.OFFERED.value).values(deadline_at=now + offer_deadline))
    session.execute(update(Job).where(Job.state == JobState.QUEUED.value, Job.not_before.is_not(None)).values(not_before=None))
    session.execute(update(Job).where(Job.state == JobState.RUNNING.value, Job.missing_since > now).values(missing_since=now))


def _silence(now: datetime, *contacts: datetime | None) -> timedelta:
    """Return how long ago the last contact was. That a job was accepted is one, perhaps not written down yet as its worker's.

    What lies in the future was stamped before the clock was set back, and says nothing.
    """
    return now - max((at for at in contacts if at is not None and at <= now), default=now)


def vouch(session: Session) -> int:
    """Keep Airflow's own heartbeat fresh for every running job: one UPDATE for the whole fleet. Return how many tasks.

    And one for tasks that were cleared while they ran (`restarting`): they wait for their job's end under a new id, and would
    start a second copy if the first one's worker is out of reach and Airflow lost patience.
    A job whose worker was silent too long is lost before (:func:`lose_silent`) and no longer running. The scheduler that asks
    compares with its own machine's clock: the later of the two is written, whichever of them was set.
    """
    ti = compat.task_instance_model()
    running = Job.state == JobState.RUNNING.value
    ours = [
        and_(ti.id.in_(select(Job.ti_id).where(running, Job.ti_id.is_not(None))), ti.state == "running"),
        and_(ti.external_executor_id.in_(select(Job.id).where(running)), ti.state == "restarting"),
    ]
    vouched = 0
    for which in ours:  # not one with OR: no database would use the indexes for it
        update_ = update(ti).where(which).values(last_heartbeat_at=compat.latest_clock(session))
        vouched += session.execute(update_.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]
    return vouched


def known_workers(session: Session) -> set[str]:
    """Return the ids of all workers that the ledger knows, removed ones included until they are purged."""
    return set(session.scalars(select(Worker.id)))


def purge(session: Session, *, older_than: timedelta) -> int:
    """Forget ended jobs that are older than the history kept; and workers removed a day ago. Return how many jobs.

    The scheduler has heard of their end, or needn't: a task that told its state itself while no scheduler lived is adopted
    by none.
    """
    now = database_now(session)
    before = now - older_than
    removed = select(Worker.id).where(Worker.removed_at < now - REMOVED_KEPT)
    for about in (Presence, Usage):
        session.execute(delete(about).where(about.worker_id.in_(removed)))
    session.execute(delete(Worker).where(Worker.removed_at < now - REMOVED_KEPT))
    gone = session.execute(
        delete(Job).where(
            Job.state.in_([state.value for state in ENDED]),
            Job.ended_at < before,
            or_(Job.settled_at.is_not(None), Job.concluded_at.is_not(None)),
        )
    )
    return int(gone.rowcount)  # type: ignore[attr-defined]
