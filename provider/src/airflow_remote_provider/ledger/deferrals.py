"""Waits of remote tasks: noted when a task defers, made a job of the kind *trigger*, ended by that trigger's event.

A wait's class path, arguments and event are texts here. Nothing decodes, imports or renders them: the worker that hosts the
trigger does, and the worker that resumes the task. ADR 0022.
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

BEFORE_TASKS = 1_000_000
"""Priority of a trigger: it takes no slot, and each second without it is added to the task's wait."""
MOST_DEATHS = 3
"""So many hosts may end under a trigger before its task fails: it may be the trigger that ends them."""
UNQUEUED_AFTER = timedelta(seconds=10)
"""How long a trigger may be noted and not queued: Airflow's own part takes milliseconds."""
ORPHANED_AFTER = timedelta(seconds=60)
"""How long a task may wait for a trigger of ours of which no note exists."""
BATCH = 500
"""Most waits that one look mends; bounds its transaction."""
KEPT = timedelta(days=1)
"""How long what a task went on with is kept after its task has ended. Nothing asks for it then."""
TRIGGER_FAILED = "Trigger failure"
"""Airflow's own words for `next_kwargs["error"]` of a task whose trigger failed."""
LONGEST_REASON = 2000


@dataclass(frozen=True)
class NewWait:
    """What a task said when it deferred. Texts are JSON, encoded by the Task SDK."""

    next_method: str
    next_kwargs: str
    kwargs: str = "{}"
    classpath: str | None = None
    """Of the trigger that is to run at a site; None: nothing is."""


@dataclass(frozen=True)
class Resumption:
    """What a resumed task goes on with."""

    next_method: str
    next_kwargs: str
    event: str | None
    """None: Airflow holds it."""


def note(session: Session, job_id: str, wait: NewWait) -> None:
    """Store what the task of this job waits for, before Airflow hears of it; replaces its wait before."""
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
    """Queue the trigger of the task that this job has deferred; Airflow knows of the wait by now. Again changes nothing."""
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
        priority=BEFORE_TASKS,
        slots=0,
        owner="",
        ti_id=job.ti_id,
        dag_id=job.dag_id,
        run_id=job.run_id,
        task_id=job.task_id,
        map_index=job.map_index,
        try_number=job.try_number,
        workload=msgspec.json.encode(workload).decode(),
        # Airflow's UI shows all files that begin with the name of the task's log, in the order of their lines.
        log_path=f"{job.log_path}.trigger.{wait.job_id}.log",
        lost_after_s=job.lost_after_s,
        labels=job.labels,
        bundle=job.bundle,
    )


def resumption(session: Session, ti_id: uuid.UUID) -> Resumption | None:
    """Return what a task goes on with that Airflow has resumed; None if no wait of it is known."""
    wait = session.get(Deferral, ti_id)
    if wait is None:
        return None
    if wait.classpath is not None and wait.outcome is None:
        return None  # a timeout has resumed it, or something that does not know of our triggers
    if wait.outcome == EventKind.FAILED.value:
        told = {"error": TRIGGER_FAILED, "traceback": json.loads(wait.event or "[]")}
        return Resumption(FAIL, json.dumps(told), None)
    return Resumption(wait.next_method, wait.next_kwargs, wait.event)


def fire(session: Session, job: Job, event: TriggerEvent) -> None:
    """End a locked trigger job by its event, and let its task go on. Again changes nothing.

    Raises:
        Superseded: the task no longer waits for this trigger.
        Impossible: not a trigger, or it was never accepted.
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
        _end_task(session, job, wait, event)
    else:
        wait.outcome, wait.event = event.kind.value, _stored(event)
        if not compat.resume(session, job.ti_id, wait.trigger_id):
            raise Superseded(f"the task of job {job.id} no longer waits for it")
    failed = event.kind is EventKind.FAILED
    _end(session, job, JobEvent.FAIL if failed else JobEvent.SUCCEED, event.traceback[-1] if failed and event.traceback else "")
    job.outcome = (Outcome.FAILED if failed else Outcome.SUCCEEDED).value


def _end_task(session: Session, job: Job, wait: Deferral, event: TriggerEvent) -> None:
    if event.state is None:
        raise Impossible("an event that ends the task needs a state")
    xcoms = {key: msgspec.json.decode(value) for key, value in event.xcoms.items()}
    assert job.ti_id is not None and wait.trigger_id is not None
    if not compat.end_waiting(session, job.ti_id, wait.trigger_id, event.state.value, xcoms):
        raise Superseded(f"the task of job {job.id} no longer waits for it")
    wait.outcome = event.kind.value


def _stored(event: TriggerEvent) -> str:
    if event.kind is EventKind.FIRED:
        return bytes(event.payload).decode()
    return json.dumps([presentable(part, longest=LONGEST_REASON) for part in event.traceback])


def fail(session: Session, job: Job, reason: str) -> None:
    """End a locked trigger job that can't go on; its task goes on with that failure, if it still waits."""
    _let_fail(session, job, reason)
    _end(session, job, JobEvent.FAIL, reason)


def _let_fail(session: Session, job: Job, reason: str) -> None:
    """Let the task of a trigger job go on with that failure, if it still waits."""
    wait = _wait_of(session, job)
    if wait is not None and wait.trigger_id is not None and job.ti_id is not None and wait.outcome is None:
        wait.outcome, wait.event = EventKind.FAILED.value, json.dumps([reason])
        compat.resume(session, job.ti_id, wait.trigger_id)


def hand_back(session: Session, job: Job, reason: str, *, delay: timedelta = timedelta(), died: bool = False) -> None:
    """Queue a locked, running trigger job again: its worker drains, is lost, or its host has *died* under it.

    A worker that is drained or lost costs the trigger nothing; a host that died counts, for the trigger may be why. It is offered
    again after *delay*: a worker that hands it back whenever it has accepted it must not keep central busy.
    """
    if died and job.offers >= MOST_DEATHS:
        fail(session, job, f"the process that hosts this trigger has ended {job.offers} times, the last time on {reason}")
        return
    job.state = advance(JobState(job.state), JobEvent.HAND_BACK).value
    job.offers -= 0 if died else 1
    job.missing_since = job.deadline_at = None
    job.not_before = database_now(session) + delay if delay else None
    job.reason = reason
    wake(session, Topic.QUEUED)


def _end(session: Session, job: Job, event: JobEvent, reason: str) -> None:
    now = database_now(session)
    job.state = advance(JobState(job.state), event).value
    job.ended_at = job.settled_at = now
    job.reason = presentable(reason, longest=LONGEST_REASON)
    job.deadline_at = None


def _wait_of(session: Session, job: Job) -> Deferral | None:
    """Return the wait that this trigger job is for, locked; None if its task waits for something else by now."""
    return session.scalar(select(Deferral).where(Deferral.ti_id == job.ti_id, Deferral.job_id == job.id).with_for_update())


def waits(ti: Any) -> ColumnElement[bool]:
    """Return the condition that a task instance still waits for the trigger of the joined :class:`Deferral`."""
    return and_(ti.state == "deferred", ti.trigger_id == Deferral.trigger_id)


def why_over(ti_state: str | None) -> StopReason:
    """Return why a trigger's task no longer waits for it. Only what a user did lets the trigger's `on_kill` run."""
    if ti_state in ("success", "failed", "skipped", "upstream_failed"):
        return StopReason.ENDED
    return StopReason.CLEARED if ti_state in (None, "restarting", "removed") else StopReason.RESUMED


def rescue(session: Session) -> int:
    """Queue triggers that were noted and not queued; fail tasks whose trigger is over or unknown. Return how many there were.

    An API process that ends between Airflow's commit and ours leaves such waits; its worker usually repeats the call. A trigger
    that a user has stopped is over without an event.
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
    over = select(Job).join(Deferral, Deferral.job_id == Job.id).join(ti, and_(ti.id == Deferral.ti_id, waits(ti)))
    over = over.where(Job.state.in_([state.value for state in JobState if state.is_ended]), Deferral.outcome.is_(None))
    for job in session.scalars(over.limit(BATCH)).all():
        _let_fail(session, job, job.reason)
        found += 1
    unknown = (
        select(ti.id, ti.trigger_id)
        .join(trigger, trigger.id == ti.trigger_id)
        .outerjoin(Deferral, Deferral.ti_id == ti.id)
        .where(trigger.queue == TRIGGER_QUEUE, ti.state == "deferred")
        .where(or_(Deferral.ti_id.is_(None), Deferral.trigger_id != ti.trigger_id))
        .where(trigger.created_date < now - ORPHANED_AFTER)
    )
    for ti_id, trigger_id in session.execute(unknown.limit(BATCH)).all():
        compat.resume(session, ti_id, trigger_id)  # Airflow's row holds the reason with which it fails
        found += 1
    return found


def purge(session: Session) -> None:
    """Forget the waits of tasks that are over or gone."""
    ti = compat.task_instance_model()
    alive = select(ti.id).where(ti.id == Deferral.ti_id, ti.state.in_(UNFINISHED)).exists()
    session.execute(
        delete(Deferral)
        .where(Deferral.deferred_at < database_now(session) - KEPT, ~alive)
        .execution_options(synchronize_session=False)
    )


UNFINISHED = ("deferred", "awaiting_input", "scheduled", "queued", "running", "restarting")
