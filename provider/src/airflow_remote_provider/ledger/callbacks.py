"""Jobs that are not tasks: the queue of a callback, and the end and the owner of callbacks and connection tests.

Airflow adopts only the tasks of a dead scheduler, so the ledger adopts these (:func:`adopt_orphans`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from airflow_remote_protocol.messages import JobKind, StopReason
from airflow_remote_protocol.states import JobState
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.ledger.jobs import take_back
from airflow_remote_provider.models import Job

OPEN = [state.value for state in JobState if not state.is_ended]


def find_queue_of_run(session: Session, dag_run_id: int, executors: Collection[str | None]) -> str | None:
    """Return the queue that most remote tasks of this Dag run use; None if no task of the run is remote.

    *executors* are the names by which Dags select the executor. Of queues with equally many tasks, the first by name wins.
    """
    ti, run = compat.task_instance_model(), compat.dag_run_model()
    query = (
        select(ti.queue, ti.executor, func.count().label("tasks"))
        .join(run, (run.dag_id == ti.dag_id) & (run.run_id == ti.run_id))
        .where(run.id == dag_run_id)
        .group_by(ti.queue, ti.executor)
    )
    tasks: Counter[str] = Counter()
    for row in session.execute(query):
        if row.executor in executors and row.queue:
            tasks[row.queue] += row.tasks
    return min(tasks, key=lambda queue: (-tasks[queue], queue)) if tasks else None


def find_started(session: Session, job_ids: Sequence[str]) -> set[str]:
    """Return those of the jobs that a worker has accepted."""
    query = select(Job.id).where(Job.id.in_(job_ids), Job.state == JobState.RUNNING.value)
    return set(session.scalars(query))


def stop_ended(session: Session) -> int:
    """Stop the callbacks and connection tests that Airflow has ended or deleted. Return how many."""
    stopped = 0
    for kind, model, ended in (
        (JobKind.CALLBACK, compat.callback_model(), compat.ENDED_CALLBACK),
        (JobKind.CONNECTION_TEST, compat.connection_test_model(), compat.ENDED_CONNECTION_TEST),
    ):
        query = select(Job.id).where(Job.kind == kind.value, Job.state.in_(OPEN), Job.stop_reason.is_(None))
        ours = {UUID(job_id): job_id for job_id in session.scalars(query)}
        if not ours:
            continue
        found = {row.id: row.state for row in session.execute(select(model.id, model.state).where(model.id.in_(ours)))}
        over = {job_id: found.get(id) for id, job_id in ours.items() if id not in found or found[id] in ended}
        if not over:
            continue
        for job in session.scalars(select(Job).where(Job.id.in_(over)).order_by(Job.id).with_for_update()):
            if not JobState(job.state).is_ended and job.concluded_at is None and job.stop_reason is None:
                take_back(session, job, StopReason.GONE if over[job.id] is None else StopReason.ENDED)
                stopped += 1
    return stopped


def adopt_orphans(session: Session, owner: str) -> list[tuple[JobKind, str]]:
    """Make *owner* the owner of callbacks and connection tests whose scheduler is dead. Return (kind, job id) of each.

    *owner* is `<scheduler's job id>/<team>`, as in `Job.owner`; only jobs of the same team are taken.
    """
    team = owner.partition("/")[2]
    # Settled jobs have an empty owner, so the index skips the history.
    query = select(Job.owner).distinct().where(Job.owner > "", Job.owner != owner, Job.kind != JobKind.TASK.value)
    others = {other: other.partition("/")[0] for other in session.scalars(query) if other.partition("/")[2] == team}
    if not others:
        return []
    alive = compat.living_schedulers(session, [int(job_id) for job_id in others.values() if job_id.isdigit()])
    dead = [other for other, job_id in others.items() if not job_id.isdigit() or int(job_id) not in alive]
    if not dead:
        return []
    theirs = (
        select(Job.id, Job.kind)
        .where(Job.owner.in_(dead), Job.kind != JobKind.TASK.value)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    )
    orphans = [(JobKind(row.kind), row.id) for row in session.execute(theirs)]
    session.execute(update(Job).where(Job.id.in_([job_id for _, job_id in orphans])).values(owner=owner))
    return orphans
