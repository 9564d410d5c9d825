"""Queues: their settings and their depth. :mod:`.jobs` and :mod:`.dispatch` own the jobs that wait in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_remote_protocol.messages import JobKind
from airflow_remote_protocol.states import JobState
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger.audit import record_action
from airflow_remote_provider.ledger.errors import LedgerError, NotFound
from airflow_remote_provider.ledger.wakeup import Topic, wake
from airflow_remote_provider.models import Job, Queue

LONGEST_NAME = 256

ALL_QUEUES = "*"
"""Its policy applies to every queue, in addition to the queue's own."""


def lock_queue(session: Session, name: str, *, by: str) -> Queue:
    """Return the locked row of a queue, to be changed by the user *by*; a new row if the queue has no settings yet.

    Raises:
        LedgerError: *name* is not a valid name of a queue.
    """
    if not 0 < len(name) <= LONGEST_NAME:
        raise LedgerError(f"the name of a queue must have 1 to {LONGEST_NAME} characters, this one has {len(name)}")
    queue = session.get(Queue, name, with_for_update=True)
    if queue is None:
        queue = Queue(name=name)
        session.add(queue)
    queue.changed_at, queue.changed_by = database_now(session), by
    return queue


def set_queue(session: Session, name: str, *, lost_after_s: float, by: str) -> None:
    """Set how long the worker of a job of this queue may be silent before the job is lost. Applies to jobs queued from now on.

    Raises:
        LedgerError: *name* is not a valid name of a queue, or stands for all queues.
    """
    if name == ALL_QUEUES:
        raise LedgerError("set `[remote] lost_after_seconds` for all queues; here, name one queue")
    lock_queue(session, name, by=by).lost_after_s = lost_after_s
    record_action(session, by, f"set for the queue {name}: lost after {lost_after_s:g} s")


def unset_queue(session: Session, name: str, *, by: str = "unknown") -> None:
    """Restore the defaults of this queue. Its policy stays.

    Raises:
        NotFound: the queue has no settings.
    """
    queue = session.get(Queue, name, with_for_update=True)
    if queue is None or (queue.lost_after_s is None and queue.bundles is None and queue.runtime is None):
        raise NotFound(f"the queue {name!r} has no rules; `airflow remote queues list` shows the rules of all queues")
    queue.lost_after_s = queue.bundles = queue.runtime = None
    wake(session, Topic.RUNTIME)
    queue.changed_at, queue.changed_by = database_now(session), by
    record_action(session, by, f"unset the rules of the queue {name}")


@dataclass(frozen=True)
class QueueRule:
    """The settings of one queue."""

    lost_after_s: float
    changed_by: str


def rules(session: Session) -> dict[str, QueueRule]:
    """Return the settings of queues, by queue. A handful of rows."""
    query = select(Queue.name, Queue.lost_after_s, Queue.changed_by).where(Queue.lost_after_s.is_not(None))
    return {row.name: QueueRule(row.lost_after_s, row.changed_by) for row in session.execute(query)}


@dataclass(frozen=True)
class QueueDepth:
    """How many jobs of one queue and team are in each open state."""

    queue: str
    queued: int
    offered: int
    running: int
    oldest_queued_at: datetime | None
    team: str | None = None


def depths(session: Session) -> list[QueueDepth]:
    """Return every queue that has open jobs, once for each team with such jobs. One statement.

    Triggers that a worker hosts are not counted: they take no slot, and may wait for days.
    """
    open_states = [state.value for state in JobState if not state.is_ended]
    query = (
        select(Job.queue, Job.team, Job.state, func.count().label("jobs"), func.min(Job.queued_at).label("oldest"))
        .where(Job.state.in_(open_states))
        .where(or_(Job.kind != JobKind.TRIGGER.value, Job.state == JobState.QUEUED.value))
        .group_by(Job.queue, Job.team, Job.state)
    )
    found: dict[tuple[str, str | None], dict[str, tuple[int, datetime | None]]] = {}
    for row in session.execute(query):
        found.setdefault((row.queue, row.team), {})[row.state] = (row.jobs, row.oldest)
    rows = []
    for (queue, team), states in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        queued, oldest_queued_at = states.get(JobState.QUEUED.value, (0, None))
        rows.append(
            QueueDepth(
                queue=queue,
                queued=queued,
                offered=states.get(JobState.OFFERED.value, (0, None))[0],
                running=states.get(JobState.RUNNING.value, (0, None))[0],
                oldest_queued_at=oldest_queued_at,
                team=team,
            )
        )
    return rows
