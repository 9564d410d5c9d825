"""Detects workers whose jobs keep failing before their own code begins. Only central's own observations count.

After :data:`..capacity.EARLY_FAILURES_LIMIT` such failures in a row the worker gets an alarm, and one job at a time until one has
begun. If the same task succeeds on other workers, the worker is paused first, each time for longer. A task that succeeds on no
worker does not prove that the machine is broken.
"""

from __future__ import annotations

from datetime import timedelta

from airflow_remote_protocol.messages import IntentMode
from airflow_remote_protocol.states import JobState
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import AuditKind, Event, record
from airflow_remote_provider.ledger.capacity import EARLY_FAILURES_LIMIT
from airflow_remote_provider.ledger.changes import stamp
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.ledger.workers import CENTRAL, WorkerRecord, record_of, set_intent
from airflow_remote_provider.models import Job, Worker

FIRST_PAUSE = timedelta(minutes=10)
LONGEST_PAUSE = timedelta(days=1)
SUCCEEDED_WITHIN = timedelta(hours=1)
"""How recently the same task must have succeeded on another worker."""


def note_begun(session: Session, worker_id: str) -> None:
    """Note that a job has begun on the worker, and reset its count of failures."""
    session.execute(
        update(Worker)
        .where(Worker.id == worker_id, Worker.early_failures > 0)
        .values(early_failures=0, changed_at=stamp(session))
        .execution_options(synchronize_session=False)
    )
    wake(session, Topic.WORKER)


def note_failure(session: Session, lease: WorkerLease, why: str) -> WorkerRecord | None:
    """Note that a job of the worker has failed before its own code began. Return the worker; None if it was removed."""
    worker = session.scalar(select(Worker).where(Worker.id == lease.worker_id).with_for_update())
    if worker is None or worker.removed_at is not None:
        return None
    worker.early_failures += 1
    worker.changed_at = stamp(session)
    wake(session, Topic.WORKER)
    if worker.early_failures < EARLY_FAILURES_LIMIT or worker.intent != IntentMode.SERVE.value:
        return record_of(worker)
    job, now = session.get(Job, lease.job_id), database_now(session)
    others = job is not None and _others_succeed(session, job)
    last = why or "no reason was given"
    text = f"its last {worker.early_failures} jobs failed before their own code began, the last one with: {last}"
    if others:
        lasts = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(worker.early_failures - EARLY_FAILURES_LIMIT, 10))
        text += (
            "; the same task succeeds on other workers, so this worker is paused, and then gets one job at a time until one "
            "begins"
        )
        set_intent(session, worker.name, IntentMode.PAUSE, by=CENTRAL, reason=text, lasts=lasts)
    else:
        text += (
            "; the same task has not succeeded on another worker recently, so this worker is not paused, and "
            "gets one job at a time"
        )
    worker.alarm = f"{now:%Y-%m-%d %H:%M} UTC: {text}"
    cause = f"{worker.id} {now:%Y-%m-%d}"
    record(session, Event(AuditKind.BREAKER, cause, text, worker_id=worker.id, worker_name=worker.name))
    return record_of(worker)


def _others_succeed(session: Session, job: Job) -> bool:
    lately = database_now(session) - SUCCEEDED_WITHIN
    found = session.scalar(
        select(Job.id)
        .where(
            Job.state == JobState.SUCCEEDED.value,
            Job.dag_id == job.dag_id,
            Job.task_id == job.task_id,
            Job.worker_id != job.worker_id,
            Job.ended_at >= lately,
        )
        .limit(1)
    )
    return found is not None
