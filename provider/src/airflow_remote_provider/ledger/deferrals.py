"""Waits of remote tasks: stored when a task defers, queued as a job of the kind *trigger*, ended by the event of that trigger.

The class path, arguments and event of a wait are opaque texts here. Only the worker that hosts the trigger and the worker that
resumes the task decode, import or render them (ADR 0022).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from airflow_remote_protocol.messages import (
    Bundle,
    EventKind,
    JobKind,
    Outcome,
    StopReason,
    TriggerEvent,
    TriggerWorkload,
)
from airflow_remote_protocol.states import JobEvent, JobState, advance
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.compat import database_clock, database_now
from airflow_remote_provider.ledger.errors import Impossible, Superseded
from airflow_remote_provider.ledger.jobs import NewJob, enqueue
from airflow_remote_provider.ledger.presentable import presentable
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Deferral, Job
from airflow_remote_provider.placeholder_names import FAIL, TRIGGER_QUEUE

TRIGGER_PRIORITY = 1_000_000
"""Above the priority of tasks: a trigger takes no slot, and each second without it is added to the task's wait."""
MOST_HOST_DEATHS = 3
"""After so many host processes have died under a trigger, its task fails: the trigger may be the cause."""
UNQUEUED_AFTER = timedelta(seconds=10)
"""How long a stored trigger may be not queued yet: Airflow's own part takes milliseconds."""
ORPHANED_AFTER = timedelta(seconds=60)
"""How long a task may wait for a remote trigger that has no row here."""
BATCH = 500
"""Most waits of each kind that one call of :func:`repair` handles; bounds its transaction."""
KEPT = timedelta(days=1)
"""How long a wait is kept after its task has ended. No task needs it by then."""
TRIGGER_FAILED = "Trigger failure"
"""Airflow's own words for `next_kwargs["error"]` of a task whose trigger failed."""
LONGEST_REASON = 2000


@dataclass(frozen=True)
class NewWait:
    """The deferral of a task. Texts are JSON, encoded by the Task SDK."""

    next_method: str
    next_kwargs: str
    kwargs: str = "{}"
    classpath: str | None = None
    """Of the trigger that a worker runs; None: no worker runs one."""


@dataclass(frozen=True)
class Resumption:
    """What a resumed task continues with."""

    next_method: str
    next_kwargs: str
    event: str | None
    """None: Airflow holds it."""


def note(session: Session, job_id: str, wait: NewWait) -> None:
    """Store what the task of this job waits for, before Airflow knows of it. Replaces the task's previous wait."""
    job = session.get(Job, job_id)
    if job is None or job.ti_id is None or job.kind != JobKind.TASK.value or job.state != JobState.RUNNING.value:
        return  # Airflow will refuse the call: only a task that runs can wait
    session.execute(delete(Deferral).where(Deferral.ti_id == job.ti_id))
    session.add(
        Deferral(
            ti_id=job.ti_id,
            deferred_by=job_id,
            classpath=wait.classpath,
            kwargs=wait.kwargs,
            next_method=wait.next_method,
            next_kwargs=wait.next_kwargs,
            deferred_at=database_clock(session),
        )
    )
    session.flush()


def queue_trigger(session: Session, job_id: str) -> None:
    """Queue the trigger of the task that this job has deferred. Airflow must know of the wait. A repeat changes nothing."""
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None or job.ti_id is None:
        return
    wait = session.get(Deferral, job.ti_id)
    if wait is None or wait.deferred_by != job_id or wait.classpath is None or wait.job_id is not None:
        return
    trigger_id = compat.waits_on(session, job.ti_id, TRIGGER_QUEUE)
    if trigger_id is None:
        return  # a user or a timeout has ended the wait already
    wait.job_id, wait.trigger_id = str(uuid.uuid4()), trigger_id
    enqueue(session, [_trigger_job(job, wait)])


def _trigger_job(job: Job, wait: Deferral) -> NewJob:
    task = msgspec.json.decode(job.workload)
    assert wait.job_id is not None and wait.classpath is not None
    workload = TriggerWorkload(
        ti=task["ti"],
        classpath=wait.classpath,
        kwargs=msgspec.Raw(wait.kwargs.encode()),
        dag_rel_path=task["dag_rel_path"],
        bundle=msgspec.convert(task["bundle"], type=Bundle),
    )
    return NewJob(
        job_id=wait.job_id,
        kind=JobKind.TRIGGER,
        queue=job.queue,
        team=job.team,
        priority=TRIGGER_PRIORITY,
        slots=0,
        owner="",
        ti_id=job.ti_id,
        dag_id=job.dag_id,
        run_id=job.run_id,
        task_id=job.task_id,
        map_index=job.map_index,
        try_number=job.try_number,
        workload=msgspec.json.encode(workload).decode(),
        # Airflow's UI shows all files whose name begins with that of the task's log, and merges their lines.
        log_path=f"{job.log_path}.trigger.{wait.job_id}.log",
        lost_after_s=job.lost_after_s,
        labels=job.labels,
        bundle=job.bundle,
        bundle_version=job.bundle_version,
        dag_file=job.dag_file,
        tree=job.tree,
    )


def resumption(session: Session, ti_id: uuid.UUID) -> Resumption | None:
    """Return what a task continues with that Airflow has resumed; None if it has no known wait."""
    wait = session.get(Deferral, ti_id)
    if wait is None:
        return None
    if wait.classpath is not None and wait.outcome is None:
        return None  # a timeout has resumed it, or a caller that does not know our triggers
    if wait.outcome == EventKind.FAILED.value:
        failure = {"error": TRIGGER_FAILED, "traceback": json.loads(wait.event or "[]")}
        return Resumption(FAIL, json.dumps(failure), None)
    return Resumption(wait.next_method, wait.next_kwargs, wait.event)


def fire(session: Session, job: Job, event: TriggerEvent) -> None:
    """End a locked trigger job by its event, and resume its task. A repeat changes nothing.

    Raises:
        Superseded: the task no longer waits for this trigger.
        Impossible: the job is not a trigger, or was never accepted.
    """
    if job.kind != JobKind.TRIGGER.value:
        raise Impossible(f"job {job.id} is a {job.kind}; only a trigger ends by an event")
    if JobState(job.state).is_ended:
        if job.outcome is not None:
            return
        raise Superseded(f"job {job.id} has ended: {job.state}, {job.stop_reason or job.reason}")
    if job.state != JobState.RUNNING.value:
        raise Impossible(f"job {job.id} is {job.state}; accept it before its event")
    wait = _wait_of(session, job)
    if wait is None or wait.trigger_id is None or job.ti_id is None:
        raise Superseded(f"no task waits for job {job.id}")
    if event.kind is EventKind.ENDED:
        _end_task(session, job, wait=wait, event=event)
    else:
        wait.outcome, wait.event = event.kind.value, _stored(event)
        if not compat.resume(session, job.ti_id, wait.trigger_id):
            raise Superseded(f"the task of job {job.id} no longer waits for it")
    failed = event.kind is EventKind.FAILED
    _end(
        session,
        job,
        JobEvent.FAIL if failed else JobEvent.SUCCEED,
        reason=event.traceback[-1] if failed and event.traceback else "",
    )
    job.outcome = (Outcome.FAILED if failed else Outcome.SUCCEEDED).value


def _end_task(session: Session, job: Job, *, wait: Deferral, event: TriggerEvent) -> None:
    if event.state is None:
        raise Impossible("an event that ends the task needs a state")
    xcoms = {key: msgspec.json.decode(value) for key, value in event.xcoms.items()}
    assert job.ti_id is not None and wait.trigger_id is not None
    if not compat.end_waiting(session, job.ti_id, wait.trigger_id, state=event.state.value, xcoms=xcoms):
        raise Superseded(f"the task of job {job.id} no longer waits for it")
    wait.outcome = event.kind.value


def _stored(event: TriggerEvent) -> str:
    if event.kind is EventKind.FIRED:
        return bytes(event.payload).decode()
    return json.dumps([presentable(part, longest=LONGEST_REASON) for part in event.traceback])


def fail(session: Session, job: Job, reason: str) -> None:
    """End a locked trigger job that can't continue; its task resumes with that failure, if it still waits."""
    _fail_task(session, job, reason)
    _end(session, job, JobEvent.FAIL, reason=reason)


def _fail_task(session: Session, job: Job, reason: str) -> None:
    """Resume the task of a trigger job with that failure, if it still waits."""
    wait = _wait_of(session, job)
    if wait is not None and wait.trigger_id is not None and job.ti_id is not None and wait.outcome is None:
        wait.outcome, wait.event = EventKind.FAILED.value, json.dumps([reason])
        compat.resume(session, job.ti_id, wait.trigger_id)


def hand_back(session: Session, job: Job, reason: str, *, delay: timedelta = timedelta(), died: bool = False) -> None:
    """Queue a locked, running trigger job again: its worker drains or is lost, or its host process has *died*.

    A drain or a loss does not count as an attempt. The death of a host does, because the trigger may be the cause. The job is
    offered again after *delay*, so that a worker that always hands it back can't keep central busy.
    """
    if died and job.offers >= MOST_HOST_DEATHS:
        fail(session, job, f"the process that hosts this trigger has ended {job.offers} times, the last time on {reason}")
        return
    job.state = advance(JobState(job.state), JobEvent.HAND_BACK).value
    job.offers -= 0 if died else 1
    job.missing_since = job.deadline_at = None
    job.not_before = database_now(session) + delay if delay else None
    job.reason = reason
    wake(session, Topic.QUEUED)


def _end(session: Session, job: Job, event: JobEvent, *, reason: str) -> None:
    now = database_now(session)
    job.state = advance(JobState(job.state), event).value
    job.ended_at = job.settled_at = now
    job.reason = presentable(reason, longest=LONGEST_REASON)
    job.deadline_at = None


def _wait_of(session: Session, job: Job) -> Deferral | None:
    """Return the wait of this trigger job, locked; None if its task no longer waits for it."""
    return session.scalar(select(Deferral).where(Deferral.ti_id == job.ti_id, Deferral.job_id == job.id).with_for_update())


def still_waits(ti: Any) -> ColumnElement[bool]:
    """Return the condition that a task instance still waits for the trigger of the joined :class:`Deferral`."""
    return and_(ti.state == "deferred", ti.trigger_id == Deferral.trigger_id)


def stop_reason_of(ti_state: str | None) -> StopReason:
    """Return why a trigger's task no longer waits for it. The trigger's `on_kill` runs only after an action of a user."""
    if ti_state in ("success", "failed", "skipped", "upstream_failed"):
        return StopReason.ENDED
    return StopReason.CLEARED if ti_state in (None, "restarting", "removed") else StopReason.RESUMED


def repair(session: Session) -> int:
    """Queue triggers that were stored but not queued; fail tasks whose trigger has ended or is unknown. Return how many.

    An API process that dies between Airflow's commit and ours leaves such waits; usually its worker repeats the call. A trigger
    that a user stops ends without an event.
    """
    ti, trigger = compat.task_instance_model(), compat.trigger_model()
    now = database_now(session)
    unqueued = select(Deferral.deferred_by).join(ti, and_(ti.id == Deferral.ti_id, ti.state == "deferred"))
    unqueued = unqueued.where(
        Deferral.job_id.is_(None), Deferral.classpath.is_not(None), Deferral.deferred_at < now - UNQUEUED_AFTER
    )
    found = 0
    for job_id in session.scalars(unqueued.limit(BATCH)).all():
        queue_trigger(session, job_id)
        found += 1
    over = select(Job).join(Deferral, Deferral.job_id == Job.id).join(ti, and_(ti.id == Deferral.ti_id, still_waits(ti)))
    over = over.where(Job.state.in_([state.value for state in JobState if state.is_ended]), Deferral.outcome.is_(None))
    for job in session.scalars(over.limit(BATCH)).all():
        _fail_task(session, job, job.reason)
        found += 1
    unknown = (
        select(ti.id, ti.trigger_id)
        .join(trigger, trigger.id == ti.trigger_id)
        .outerjoin(Deferral, Deferral.ti_id == ti.id)
        .where(trigger.queue == TRIGGER_QUEUE, ti.state == "deferred")
        .where(or_(Deferral.ti_id.is_(None), Deferral.trigger_id != ti.trigger_id))
        .where(trigger.created_date < now - ORPHANED_AFTER)
    )
    for row in session.execute(unknown.limit(BATCH)).all():
        compat.resume(session, row.id, row.trigger_id)  # Airflow's row holds the reason of the failure
        found += 1
    return found


def purge(session: Session) -> None:
    """Delete the waits of tasks that have ended or no longer exist."""
    ti = compat.task_instance_model()
    alive = select(ti.id).where(ti.id == Deferral.ti_id, ti.state.in_(UNFINISHED)).exists()
    session.execute(
        delete(Deferral)
        .where(Deferral.deferred_at < database_now(session) - KEPT, ~alive)
        .execution_options(synchronize_session=False)
    )


UNFINISHED = ("deferred", "awaiting_input", "scheduled", "queued", "running", "restarting")
